//! The workers' output: every line whole, on the stream it was written to; on a terminal with the
//! slot before it.

use kernel_tests::{
    client, eventually, gate,
    launcher::{Launch, Launcher},
    process::{Line, Stream},
    procfs,
    scripts::{self, chatter_lines},
    servers,
};
use nix::sys::signal::Signal;

/// Runs a program on a terminal, and passes on what it writes there. Not in the program's place:
/// the end of this process is the end of the terminal.
const ON_A_TERMINAL: &str = "\
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

const GREETING: &str = "echo to stdout; echo to stderr >&2; exec sleep 1000";

#[test]
fn no_line_is_torn_or_lost() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::chatter())
        .options(["--workers", "2"])
        .start();
    let is_from = |line: &Line, slot: u32, stream| {
        line.stream == stream && line.text.starts_with(&format!("{slot} "))
    };
    launcher.process.wait_until("the last lines", |lines| {
        let complete = [0, 1].iter().all(|&slot| {
            [Stream::Out, Stream::Err].iter().all(|&stream| {
                let last = lines.iter().rfind(|line| is_from(line, slot, stream));
                last.is_some_and(|line| {
                    chatter_lines(slot, stream).last().as_ref() == Some(&line.text)
                })
            })
        });
        complete.then_some(())
    });
    launcher.process.signal(Signal::SIGTERM);
    let Launcher { mut process, site } = launcher;
    assert_eq!(process.wait().code(), Some(0));
    drop(site);
    let lines = process.lines();
    for stream in [Stream::Out, Stream::Err] {
        for slot in 0..2 {
            let found = lines.iter().filter(|line| is_from(line, slot, stream));
            let found: Vec<&String> = found.map(|line| &line.text).collect();
            let expected: Vec<String> = chatter_lines(slot, stream).collect();
            assert!(
                found.iter().copied().eq(&expected),
                "slot {slot}, {stream:?}: {} lines of {}",
                found.len(),
                expected.len()
            );
        }
    }
    let others: Vec<&Line> = lines
        .iter()
        .filter(|line| !(0..2).any(|slot| is_from(line, slot, line.stream)))
        .collect();
    let is_ours = |line: &&Line| {
        let level = [" INFO ", " WARN "]
            .iter()
            .any(|level| line.text.contains(level));
        line.stream == Stream::Err && level && !line.text.contains("xxx")
    };
    assert!(others.iter().all(is_ours), "{others:#?}");
}

/// What a fleet of two greeters writes to a terminal, until every line is there.
#[track_caller]
fn on_a_terminal(environment: &[(&str, &str)]) -> Vec<String> {
    let python = gate::path_of("python3");
    let launch = Launch::of(["sh", "-c", GREETING])
        .options(["--workers", "2"])
        .through([&python, "-c", ON_A_TERMINAL]);
    let launcher = environment
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(name, value))
        .start();
    launcher.process.wait_until("four greetings", |lines| {
        let greetings = lines.iter().filter(|line| line.text.contains("to std"));
        (greetings.count() == 4).then_some(())
    });
    let stopped = launcher.site.control(&["stop", launcher.site.name()]);
    assert_eq!(stopped.code(), 0, "{}", stopped.stderr);
    let finished = launcher.process.finish();
    assert_eq!(finished.code(), 0, "{}", finished.stdout);
    // A terminal makes "\r\n" of each newline, and has no second stream.
    let lines = finished.stdout.lines();
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn on_a_terminal_the_slot_stands_before_each_line_in_its_colour() {
    let Some(_netns) = gate::enter(&["python3", "sh", "sleep"]) else {
        return;
    };
    let lines = on_a_terminal(&[("TERM", "xterm")]);
    for slot in ["\x1b[0;36m0 │\x1b[0m", "\x1b[0;33m1 │\x1b[0m"] {
        for greeting in ["to stdout", "to stderr"] {
            let line = format!("{slot} {greeting}");
            assert!(lines.contains(&line), "{line:?} in {lines:#?}");
        }
    }
}

#[test]
fn no_color_leaves_the_slot_and_takes_every_colour() {
    let Some(_netns) = gate::enter(&["python3", "sh", "sleep"]) else {
        return;
    };
    let lines = on_a_terminal(&[("TERM", "xterm"), ("NO_COLOR", "1")]);
    for slot in 0..2 {
        for greeting in ["to stdout", "to stderr"] {
            let line = format!("{slot} │ {greeting}");
            assert!(lines.contains(&line), "{line:?} in {lines:#?}");
        }
    }
    let coloured: Vec<_> = lines.iter().filter(|line| line.contains('\x1b')).collect();
    assert!(coloured.is_empty(), "{coloured:#?}");
}

#[test]
fn a_terminal_that_goes_away_takes_the_fleet_with_it_in_good_order() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let python = gate::path_of("python3");
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .through([&python, "-c", ON_A_TERMINAL])
        .ready();
    let fleet = launcher.site.cgroup().expect("the launcher has found it");
    let state = launcher
        .site
        .runtime_dir()
        .join(format!("{}.state", launcher.site.name()));
    assert!(fleet.exists() && state.exists());
    launcher.process.signal(Signal::SIGKILL);
    eventually("the launcher to stop in good order", || {
        (!fleet.exists() && !state.exists()).then_some(())
    });
}

#[test]
fn workers_do_not_suffer_when_nobody_reads_their_output_any_more() {
    let Some(_netns) = gate::enter(&["bash", "head", "python3"]) else {
        return;
    };
    // Until the startup line, which is the third.
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .through(["bash", "-c", "exec \"$@\" 2> >(head -n 3 >&2)", "bash"])
        .ready();
    eventually("the reader to be gone", || {
        let mut children = procfs::children(launcher.process.pid()).into_iter();
        (!children.any(|pid| procfs::status(pid, "Name") == "head")).then_some(())
    });
    // Each request is a line in the log.
    let status = launcher.status();
    let served = client::spread(client::address("127.0.0.1:8080"), 20);
    for slot in 0..2 {
        let count = served.get(&status.pid(slot).to_string());
        assert_eq!(count.copied(), Some(10), "{served:?}");
    }
    assert_eq!(launcher.stop(), 0);
}

/// Runs a program whose standard error is a full pipe, which nobody reads and another process holds
/// open for as long as the program runs.
const WITH_A_FULL_PIPE: &str = "\
import os, select, sys
reader, writer = os.pipe()
program = os.pidfd_open(os.getpid())
if os.fork() == 0:
    select.select([program], [], [])
    os._exit(0)
os.set_blocking(writer, False)
for size in 4096, 1:
    try:
        while True:
            os.write(writer, b'x' * size)
    except BlockingIOError:
        pass
os.set_blocking(writer, True)
os.dup2(writer, 2)
os.execv(sys.argv[1], sys.argv[1:])";

#[test]
fn a_reader_that_stalls_does_not_hold_up_the_launcher() {
    let Some(_netns) = gate::enter(&["node", "python3"]) else {
        return;
    };
    let python = gate::path_of("python3");
    let launcher = Launch::of(servers::node(8080))
        .options(["--workers", "2"])
        .through([&python, "-c", WITH_A_FULL_PIPE])
        .start();
    eventually("both workers", || {
        let site = &launcher.site;
        let status = site.control(&["status", site.name(), "--json"]);
        let ready = status.stdout.matches("\"state\":\"ready\"").count() == 2;
        ready.then_some(())
    });
    client::spread(client::address("127.0.0.1:8080"), 10);
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_reader_that_stalls_does_not_hold_up_the_end() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let python = gate::path_of("python3");
    let finished = Launch::of(["sh", "-c", "echo last words >&2; exit 3"])
        .options(["--workers", "2"])
        .through([&python, "-c", WITH_A_FULL_PIPE])
        .run();
    assert_eq!(finished.code(), 1);
}
