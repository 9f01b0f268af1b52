//! `top` on a terminal: what it shows, what its keys do, and how it leaves the terminal.

use std::fs;

use kernel_tests::{
    client, gate,
    launcher::{Launch, Launcher, binary, example_of},
    servers,
    tmux::Tmux,
};
use nix::sys::signal::Signal;

/// The usual terminal.
const USUAL: (u16, u16) = (80, 24);

/// Two node workers that have served 10 requests.
#[track_caller]
fn fleet() -> Launcher {
    let launcher = Launch::of(servers::node(8080))
        .options(["--workers", "2"])
        .ready();
    client::spread(client::address("127.0.0.1:8080"), 10);
    launcher
}

/// Runs a program on a terminal that says how it was before and after, and how the program ended.
#[track_caller]
fn on_terminal(launcher: &Launcher, size: (u16, u16), program: &str, env: &[(&str, &str)]) -> Tmux {
    let script =
        format!("stty -a; echo started\n{program}\ncode=$?; stty -a; echo ended with $code");
    // To files: the lines are longer than the terminal.
    let script = script
        .replacen("stty -a", "stty -a > \"$0.before\"", 1)
        .replacen("stty -a;", "stty -a > \"$0.after\";", 1);
    Tmux::start(&launcher.site, size, &script, env)
}

/// `top`, and its first picture.
#[track_caller]
fn top(launcher: &Launcher, size: (u16, u16), env: &[(&str, &str)]) -> (Tmux, String) {
    let program = format!("{} top --interval 100ms", binary().display());
    let tmux = on_terminal(launcher, size, &program, env);
    let screen = tmux.screen_when("the first picture", |screen| screen.contains("CONN/S"));
    (tmux, screen)
}

/// Waits until the program has ended, with this code, and checks that the terminal is as before.
#[track_caller]
fn assert_left_clean(tmux: &Tmux, code: u8) -> String {
    let ended = format!("ended with {code}");
    let screen = tmux.screen_when("the end", |screen| screen.contains("ended with"));
    assert!(screen.contains(&ended), "{screen}");
    // What stood on it before stands there again.
    assert!(screen.contains("started"), "{screen}");
    assert!(!screen.contains("SLOT"), "{screen}");
    assert_eq!(tmux.modes(), (false, true), "(alternate screen, cursor)");
    let read = |end| fs::read_to_string(tmux.dir().join(format!("script.{end}")));
    let (before, after) = (read("before"), read("after"));
    let before = before.expect("the script writes it");
    assert!(
        before.contains(" icanon") && before.contains(" echo "),
        "{before}"
    );
    assert_eq!(after.expect("the script writes it"), before);
    screen
}

/// The line of a slot.
fn row(screen: &str, slot: u32) -> Option<Vec<&str>> {
    let rows = screen.lines().map(|line| {
        let line = line.strip_prefix('>').unwrap_or(line);
        line.split_whitespace().collect::<Vec<_>>()
    });
    let slot = slot.to_string();
    rows.into_iter()
        .find(|row| row.first() == Some(&slot.as_str()))
}

#[test]
fn it_shows_the_workers_and_their_rates() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let (tmux, screen) = top(&launcher, USUAL, &[]);
    let lines: Vec<&str> = screen.lines().collect();
    let name = launcher.site.name();
    let pid = launcher.process.pid();
    let head = format!("{name} · 2 of 2 ready · pid {pid} · steer round-robin (eBPF)");
    assert!(lines[0].starts_with(&head), "{screen}");
    for slot in 0..2 {
        let row = row(&screen, slot).expect("a line for each slot");
        assert_eq!(row[1..4], ["1", "ready", "50.0%"], "{screen}");
    }
    assert!(
        screen.contains("GROUP") && screen.contains("HELD"),
        "{screen}"
    );
    assert!(screen.trim_end().ends_with("q quit"), "{screen}");
    assert_eq!(tmux.modes(), (true, false), "(alternate screen, cursor)");

    // Someone connects, and it is seen to rise and to fall.
    client::spread(client::address("127.0.0.1:8080"), 200);
    tmux.screen_when("the connections", |screen| screen.contains('█'));
    tmux.screen_when("their end", |screen| {
        screen
            .lines()
            .next()
            .is_some_and(|head| head.contains(" 0 connect"))
    });
    tmux.keys(&["q"]);
    assert_left_clean(&tmux, 0);
    launcher.stop_clean();
}

#[test]
fn its_keys_drain_restart_and_reload() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let (tmux, _) = top(&launcher, USUAL, &[]);
    tmux.keys(&["Down", "d"]);
    tmux.screen_when("slot 1 to be drained", |screen| {
        screen.contains("drain slot 1: done")
            && row(screen, 1).is_some_and(|row| row[2] == "drained")
    });
    tmux.keys(&["u"]);
    tmux.screen_when("slot 1 to be back", |screen| {
        row(screen, 1).is_some_and(|row| row[2] == "ready")
    });
    tmux.keys(&["r"]);
    tmux.screen_when("slot 1 to be replaced", |screen| {
        screen.contains("restart slot 1: done")
            && row(screen, 1).is_some_and(|row| row[1..3] == ["2", "ready"])
    });
    let status = launcher.status();
    assert!(
        status.is_ready(0, 1) && status.is_ready(1, 2),
        "{}",
        status.0
    );
    // Only after a question.
    tmux.keys(&["R", "n"]);
    tmux.screen_when("the refusal", |screen| {
        screen.contains("nothing was changed")
    });
    tmux.keys(&["R"]);
    tmux.screen_when("the question", |screen| {
        screen.contains("reload all workers? y/n")
    });
    tmux.keys(&["y"]);
    tmux.screen_when("all to be replaced", |screen| {
        row(screen, 0).is_some_and(|row| row[1..3] == ["2", "ready"])
            && row(screen, 1).is_some_and(|row| row[1..3] == ["3", "ready"])
    });
    tmux.keys(&["q"]);
    assert_left_clean(&tmux, 0);
    launcher.stop_clean();
}

#[test]
fn its_keys_change_the_policy_and_what_is_shown() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let (tmux, _) = top(&launcher, USUAL, &[]);
    tmux.keys(&["p"]);
    tmux.screen_when("the policies", |screen| {
        screen.contains("2 least-conn  3 hash")
    });
    tmux.keys(&["2"]);
    let question = "from round-robin to least-conn? y/n";
    tmux.screen_when("the question", |screen| screen.contains(question));
    assert_eq!(launcher.status().0["steering"]["policy"], "round-robin");
    tmux.keys(&["y"]);
    tmux.screen_when("the other policy", |screen| {
        screen.contains("steer least-conn (eBPF)")
    });
    assert_eq!(launcher.status().0["steering"]["policy"], "least-conn");

    tmux.keys(&["/", "1", "Enter"]);
    tmux.screen_when("slot 1 alone", |screen| {
        row(screen, 0).is_none() && row(screen, 1).is_some()
    });
    tmux.keys(&["Escape"]);
    tmux.screen_when("both slots", |screen| {
        row(screen, 0).is_some() && row(screen, 1).is_some()
    });
    tmux.keys(&["C-c"]);
    assert_left_clean(&tmux, 0);
    launcher.stop_clean();
}

#[test]
fn a_terminal_of_any_size_without_colours() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let (tmux, _) = top(&launcher, (60, 24), &[("NO_COLOR", "1")]);
    tmux.keys(&["d"]);
    tmux.screen_when("a worker that is drained", |screen| {
        screen.contains("drained")
    });
    // 39 and 49 are the terminal's own.
    let screen = tmux.screen(true);
    let colours = (0..8).flat_map(|n| [format!("[3{n}m"), format!("[4{n}m")]);
    let mut colours = colours.chain(["[38;".to_owned(), "[48;".to_owned()]);
    assert!(
        !colours.any(|colour| screen.contains(&colour)),
        "{screen:?}"
    );
    for (width, height) in [(160, 40), (100, 24), (30, 8), (60, 24)] {
        tmux.resize(width, height);
        tmux.screen_when("a picture of that size", |screen| match width {
            30 => screen.contains("too small") && screen.contains("30×8"),
            100.. => screen.contains("CPU") && screen.contains("PID"),
            _ => screen.contains("CPU") && !screen.contains("PID"),
        });
    }
    tmux.keys(&["q"]);
    assert_left_clean(&tmux, 0);
    launcher.stop_clean();
}

#[test]
fn in_colours_a_worker_that_drains_stands_out() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let (tmux, _) = top(&launcher, USUAL, &[]);
    tmux.keys(&["d"]);
    tmux.screen_when("a worker that is drained", |screen| {
        screen.contains("drained")
    });
    let screen = tmux.screen(true);
    assert!(screen.contains("\x1b[38;5;3m"), "{screen:?}");
    launcher.stop_clean();
}

#[test]
fn a_signal_leaves_the_terminal_clean() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    for signal in ["TERM", "INT", "QUIT"] {
        let program = format!(
            "{} top & echo $! > \"$0.pid\"; fg > /dev/null",
            binary().display()
        );
        let tmux = on_terminal(&launcher, USUAL, &format!("set -m; {program}"), &[]);
        tmux.screen_when("the first picture", |screen| screen.contains("SLOT"));
        let pid = fs::read_to_string(tmux.dir().join("script.pid")).expect("the script writes it");
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a pid"));
        let signal = format!("SIG{signal}").parse::<Signal>().expect("a signal");
        nix::sys::signal::kill(pid, signal).expect("it runs");
        assert_left_clean(&tmux, 0);
    }
    launcher.stop_clean();
}

#[test]
fn the_end_of_the_launcher_is_told() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let (tmux, _) = top(&launcher, USUAL, &[]);
    let name = launcher.site.name().to_owned();
    launcher.stop_clean();
    let screen = assert_left_clean(&tmux, 1);
    let told = format!("error: the launcher {name} has gone away");
    assert!(screen.contains(&told) && screen.contains("→"), "{screen}");
}

#[test]
fn a_panic_leaves_the_terminal_clean_and_is_reported() {
    let Some(_netns) = gate::enter(&["node", "tmux", "sh", "stty"]) else {
        return;
    };
    let launcher = fleet();
    let program = example_of("reuseport-launch", "panics");
    let program = program.display().to_string();
    let tmux = on_terminal(&launcher, USUAL, &program, &[("RUST_BACKTRACE", "0")]);
    let screen = assert_left_clean(&tmux, 101);
    assert!(screen.contains("panics while it draws"), "{screen}");
    launcher.stop_clean();
}

#[test]
fn what_is_no_terminal_is_refused() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = fleet();
    launcher.refuses(&["top"], "standard input is not a terminal");
    launcher.stop_clean();
}
