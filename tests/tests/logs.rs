//! What the workers write: shown by `logs`, and written to files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kernel_tests::{
    client, eventually, gate,
    launcher::{Launch, Launcher},
    process::{Process, Stream},
    scripts::{self, chatter_lines},
    servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

/// The smallest size of a log file that is allowed, in bytes.
const SMALLEST: u64 = 1 << 20;

/// A directory, and the path of a file in it.
fn place(name: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join(name);
    let file = file
        .to_str()
        .expect("temporary directories have UTF-8 names");
    let file = file.to_owned();
    (dir, file)
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The files of a directory by name, and their sizes.
fn sizes(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).expect("it is there").flatten();
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().expect("our own names");
        // It may just have been renamed.
        Some((name, entry.metadata().ok()?.len()))
    });
    sizes.collect()
}

/// Has the worker of a slot of [`scripts::talker`]s speak, and waits for its last word on the launcher's
/// own output.
#[track_caller]
fn talk(launcher: &Launcher, slot: u32, round: u32) {
    signal(launcher.status().pid(slot), Signal::SIGUSR1);
    let last = format!("{slot} {round} done");
    launcher
        .process
        .wait_for("its last word", |line| line == last);
}

#[track_caller]
fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("it runs");
}

/// Two talkers that listen.
#[track_caller]
fn talkers(count: u32, bytes: u32, options: &[&str]) -> Launcher {
    let launcher = Launch::of(scripts::talker(count, bytes))
        .options(["--workers", "2"])
        .options(options)
        .start();
    for slot in 0..2 {
        let first = format!("{slot} listens");
        launcher.process.wait_for("a talker", |line| line == first);
    }
    launcher
}

/// Waits until a process has written so many lines to its standard output that are `wanted`.
#[track_caller]
fn wait_for_lines(process: &Process, count: usize, wanted: impl Fn(&str) -> bool) {
    process.wait_until("so many lines", |lines| {
        let lines = lines.iter().filter(|line| line.stream == Stream::Out);
        (lines.filter(|line| wanted(&line.text)).count() >= count).then_some(())
    });
}

#[test]
fn a_rotation_under_load_loses_no_line_and_keeps_to_the_size() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (dir, file) = place("all.log");
    let launcher = Launch::of(scripts::chatter())
        .options([
            "--workers",
            "2",
            "--log-file",
            &file,
            "--log-max-size",
            "1M",
        ])
        .start();
    let streams = [Stream::Out, Stream::Err];
    let lines = || {
        let files = ["all.log.3", "all.log.2", "all.log.1", "all.log"];
        files.map(|file| read(dir.path().join(file))).concat()
    };
    let text = eventually("every line", || {
        for (name, size) in sizes(dir.path()) {
            assert!(size <= SMALLEST, "{name} has {size} bytes");
        }
        let text = lines();
        let last = |slot, stream| chatter_lines(slot, stream).last().expect("many lines") + "\n";
        let mut all = [0, 1]
            .into_iter()
            .flat_map(|slot| streams.map(|it| last(slot, it)));
        all.all(|last| text.contains(&last)).then_some(text)
    });
    for slot in 0..2 {
        for stream in streams {
            let fd = if stream == Stream::Out { 1 } else { 2 };
            let prefix = format!("{slot} {fd} ");
            let found = text.lines().filter(|line| line.starts_with(&prefix));
            assert!(
                found.eq(chatter_lines(slot, stream)),
                "slot {slot}, {stream:?}"
            );
        }
    }
    let names: Vec<String> = sizes(dir.path()).into_keys().collect();
    assert_eq!(names, ["all.log", "all.log.1", "all.log.2"]);
    launcher.stop_clean();
}

#[test]
fn each_slot_has_its_files_and_only_so_many_are_kept() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (dir, file) = place("{slot}.log");
    let options = [
        "--log-file",
        &file,
        "--log-max-size",
        "1M",
        "--log-keep",
        "1",
    ];
    let launcher = talkers(900, 1000, &options);
    for round in 0..4 {
        talk(&launcher, 1, round);
    }
    let names: Vec<String> = sizes(dir.path()).into_keys().collect();
    assert_eq!(names, ["0.log", "1.log", "1.log.1"]);
    assert_eq!(read(dir.path().join("0.log")), "0 listens\n");
    // 901 lines each time: two rounds never fit into one file.
    let [earlier, latest] = ["1.log.1", "1.log"].map(|name| read(dir.path().join(name)));
    assert!(latest.ends_with("1 3 done\n"), "{}", latest.len());
    let both = earlier + &latest;
    assert!(both.contains("1 3 0 ") && !both.contains("1 0 done"));
    assert!(sizes(dir.path()).values().all(|&size| size <= SMALLEST));
    launcher.stop_clean();
}

#[test]
fn usr1_opens_the_files_anew() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (dir, file) = place("log");
    let launcher = talkers(3, 1000, &["--log-file", &file]);
    talk(&launcher, 0, 0);
    let moved = dir.path().join("moved");
    fs::rename(&file, &moved).expect("it is there");
    launcher.process.signal(Signal::SIGUSR1);
    // Though nobody has written anything.
    eventually("another file", || Path::new(&file).exists().then_some(()));
    assert_eq!(read(&file), "");
    talk(&launcher, 1, 0);
    let text = read(&file);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.ends_with("1 0 done\n"), "{text}");
    assert!(read(&moved).ends_with("0 0 done\n"));
    launcher.stop_clean();
}

#[test]
fn where_there_is_no_file_usr1_says_so() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let (launcher, _) = scripts::start_idlers(Launch::of(scripts::idler()).options(["-w", "1"]), 1);
    launcher.process.signal(Signal::SIGUSR1);
    let said = "USR1 is ignored: there is no --log-file";
    launcher.process.wait_for(said, |line| line.contains(said));
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_file_that_cannot_be_written_is_refused_at_the_start() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    for (file, why) in [
        ("/nonexistent/log", "No such file or directory"),
        ("/dev/null", "it is not a file"),
        ("/", "Is a directory"),
    ] {
        let finished = Launch::of(scripts::idler())
            .options(["--log-file", file])
            .run();
        finished.assert_error(78, why);
        finished.assert_error(78, &format!("cannot write the log file {file}"));
    }
}

#[test]
fn a_full_disk_is_told_once_and_holds_up_nothing() {
    let Some(_netns) = gate::enter(&["python3", "unshare", "sh", "mount"]) else {
        return;
    };
    let (dir, file) = place("log");
    let mount = dir.path().to_str().expect("UTF-8");
    let script = format!("mount -t tmpfs -o size=512k none {mount} && exec \"$@\"");
    let launcher = Launch::of(scripts::talker(400, 1000))
        .options(["--workers", "1", "--log-file", &file])
        .through(["unshare", "--mount", "sh", "-c", &script, "sh"])
        .start();
    launcher
        .process
        .wait_for("the talker", |line| line == "0 listens");
    for round in 0..4 {
        talk(&launcher, 0, round);
    }
    let told = |what: &str| {
        let lines = launcher.process.lines().into_iter();
        lines
            .filter(|line| line.stream == Stream::Err && line.text.contains(what))
            .count()
    };
    let failed = format!("cannot write the log file {file}: No space left on device");
    launcher
        .process
        .wait_for("the failure", |line| line.contains(&failed));
    assert_eq!(told("cannot write the log file"), 1);

    // When there is room again it goes on, and says what is missing.
    let inside = format!("/proc/{}/root{file}", launcher.process.pid());
    let text = read(&inside);
    let whole = text.matches('\n').count();
    assert!((400..800).contains(&whole), "{whole}");
    fs::write(&inside, "").expect("it can be emptied");
    talk(&launcher, 0, 4);
    let again = launcher
        .process
        .wait_for("that it goes on", |line| line.contains("is written again"));
    let text = read(&inside);
    assert!(text.ends_with("0 4 done\n"), "{}", text.len());
    // `listens`, and four rounds before the fifth: what is not in the file was counted.
    let lost = again
        .split_once("again; ")
        .and_then(|(_, rest)| rest.split_once(' '));
    let lost: usize = lost
        .and_then(|(lost, _)| lost.parse().ok())
        .expect("a number");
    assert_eq!(whole + lost, 1 + 4 * 401);
    launcher.stop_clean();
}

#[test]
fn json_has_all_that_is_known_of_a_line() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let (_dir, file) = place("log");
    let script =
        "console.log('to \"stdout\"'); console.error('to stderr'); setInterval(() => {}, 1e6)";
    let node = [gate::path_of("node"), "-e".to_owned(), script.to_owned()];
    let launcher = Launch::of(node)
        .options([
            "--workers",
            "2",
            "--log-format",
            "json",
            "--log-file",
            &file,
        ])
        .start();
    launcher.process.wait_until("four lines", |lines| {
        (lines
            .iter()
            .filter(|line| line.text.contains("\"stream\""))
            .count()
            == 4)
            .then_some(())
    });
    let name = launcher.site.name().to_owned();
    let from_logs = launcher.site.control(&["logs", &name, "--json"]).success();
    let own: String = launcher
        .process
        .lines()
        .iter()
        .filter(|line| line.text.contains("\"stream\""))
        .map(|line| format!("{}\n", line.text))
        .collect();
    for text in [own, read(&file), from_logs] {
        let mut lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON and nothing else"))
            .collect();
        lines.sort_by_key(|line| (line["slot"].as_u64(), line["stream"].to_string()));
        assert_eq!(lines.len(), 4, "{text}");
        for (line, (slot, stream)) in
            lines
                .iter()
                .zip([(0, "stderr"), (0, "stdout"), (1, "stderr"), (1, "stdout")])
        {
            assert_eq!(line["slot"], slot, "{line}");
            assert_eq!(line["stream"], stream, "{line}");
            assert_eq!(line["generation"], 1, "{line}");
            let said = if stream == "stdout" {
                "to \"stdout\""
            } else {
                "to stderr"
            };
            assert_eq!(line["line"], said, "{line}");
            let time = line["time"].as_str().unwrap_or_default();
            assert_eq!(time.len(), "2026-11-21T15:00:00.123Z".len(), "{line}");
        }
    }
    launcher.stop_clean();
}

#[test]
fn logs_shows_the_past_of_all_slots_or_of_one() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = talkers(30, 1000, &["--log-lines", "20"]);
    talk(&launcher, 0, 0);
    talk(&launcher, 1, 0);
    let name = launcher.site.name();
    let logs = |words: &[&str]| {
        let words: Vec<&str> = ["logs"].iter().chain(words).copied().collect();
        let text = launcher.site.control(&words).success();
        // `TIME SLOT │ LINE`
        let line = |line: &str| {
            let (_, line) = line.split_once(' ').expect("the time");
            line.trim_end_matches('x').to_owned()
        };
        text.lines().map(line).collect::<Vec<_>>()
    };
    let expected = |slot: u32| {
        let numbers = (11..30).map(move |number| format!("{slot} │ {slot} 0 {number} "));
        numbers
            .chain([format!("{slot} │ {slot} 0 done")])
            .collect::<Vec<_>>()
    };
    assert_eq!(logs(&["1"]), expected(1));
    assert_eq!(logs(&["1", name]), expected(1));
    assert_eq!(logs(&[]), [expected(0), expected(1)].concat());
    assert_eq!(logs(&["all", name, "-n", "3"]), expected(1)[17..]);
    assert_eq!(logs(&["7"]), Vec::<String>::new());
    // What has been replaced is still known.
    signal(launcher.status().pid(1), Signal::SIGKILL);
    launcher.process.wait_until("the next one", |lines| {
        let first = lines.iter().filter(|line| line.text == "1 listens");
        (first.count() == 2).then_some(())
    });
    let after = logs(&["1", "-n", "2"]);
    assert_eq!(after, ["1 │ 1 0 done", "1 │ 1 listens"]);
    let nobody = launcher.site.control(&["logs", "nobody"]);
    nobody.assert_error(1, "cannot show the logs of nobody");
    let wrong = launcher.site.control(&["logs", name, name]);
    wrong.assert_error(2, "the first is the number of a slot");
    launcher.stop_clean();
}

#[test]
fn logs_follows_real_servers_until_the_launcher_ends() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::python(8080))
        .options(["--workers", "2"])
        .ready();
    let follower = launcher.begin(&["logs", "-f", "all"]);
    let of_one = launcher.begin(&["logs", "--follow", "1"]);
    let get = |count| {
        for _ in 0..count {
            let answer = client::get(client::address("127.0.0.1:8080"));
            assert_eq!(answer.expect("an answer").status, 200);
        }
    };
    let request = |line: &str| line.contains("\"GET / HTTP/1.");
    get(2);
    wait_for_lines(&follower, 2, request);
    wait_for_lines(&of_one, 1, request);
    // It goes on with who comes after, and is told of those by another process where need be.
    launcher.reload();
    launcher.ask(&["upgrade"]);
    launcher.reload();
    get(8);
    wait_for_lines(&follower, 10, request);
    wait_for_lines(&of_one, 5, request);
    launcher.stop_clean();
    for follower in [follower, of_one] {
        let text = follower.finish().success();
        let slots: Vec<bool> = text
            .lines()
            .filter(|line| request(line))
            .map(|line| line.contains(" 1 │ "))
            .collect();
        assert!(slots.len() == 10 || slots == [true; 5], "{text}");
    }
}

#[test]
fn a_follower_that_stops_reading_holds_up_nobody_and_learns_what_it_missed() {
    const LINES: u32 = 2_000;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = talkers(LINES, 8000, &[]);
    let follower = launcher.begin(&["logs", "-f", "all"]);
    wait_for_lines(&follower, 2, |line| line.ends_with("listens"));
    signal(follower.pid(), Signal::SIGSTOP);
    // All of it passes though nobody reads: 16 MB, of which 4 MiB may wait.
    talk(&launcher, 0, 0);
    signal(follower.pid(), Signal::SIGCONT);
    let (seen, missed) = follower.wait_until("what was missed", |lines| {
        let seen = lines
            .iter()
            .filter(|line| line.text.contains("│ 0 0 "))
            .count();
        let missed = lines.iter().filter_map(|line| {
            let lines = line
                .text
                .strip_prefix("… ")?
                .strip_suffix(" lines were not read in time")?;
            lines.parse::<usize>().ok()
        });
        let missed: usize = missed.sum();
        (seen + missed == LINES as usize + 1).then_some((seen, missed))
    });
    assert!(seen > 400 && missed > 400, "{seen} seen, {missed} missed");
    // And then it follows on.
    talk(&launcher, 1, 0);
    wait_for_lines(&follower, 1, |line| line.ends_with("│ 1 0 done"));
    launcher.stop_clean();
    assert_eq!(follower.finish().code(), 0);
}

#[test]
fn files_and_logs_outlive_a_launcher_that_is_killed() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (dir, file) = place("log");
    let launch = || Launch::of(scripts::witness()).options(["--workers", "2", "--log-file", &file]);
    let mut first = launch().ready();
    let requests = |path: &PathBuf| {
        let text = read(path);
        text.lines().filter(|line| line.contains("GET")).count()
    };
    let path = PathBuf::from(&file);
    let written = |path: &PathBuf, count| {
        eventually("so many requests in the file", || {
            (requests(path) == count).then_some(())
        });
    };
    let ask = |count| drop(client::spread(client::address("127.0.0.1:8080"), count));
    ask(4);
    written(&path, 4);
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    ask(4);
    written(&path, 8);
    let name = first.site.name().to_owned();
    let logs = |launcher: &Launcher| {
        let text = launcher.site.control(&["logs", &name]).success();
        text.lines().filter(|line| line.contains("GET")).count()
    };
    assert_eq!(logs(&first), 8, "without a launcher");

    let second = launch().at(&first.site).ready();
    ask(4);
    written(&path, 12);
    // The process that writes is the first launcher's, and hears of the signal all the same.
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).expect("it is there");
    second.process.signal(Signal::SIGUSR1);
    eventually("another file", || path.exists().then_some(()));
    ask(4);
    written(&path, 4);
    assert_eq!(requests(&moved), 12);
    // Two processes write to the same file now.
    second.ask(&["restart", "1"]);
    ask(4);
    written(&path, 8);
    assert_eq!(logs(&second), 20);
    second.stop_clean();
}
