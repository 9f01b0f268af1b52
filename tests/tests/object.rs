//! A steering object of the user's own: that of `examples/least-hint`, and what is left of it when
//! something is taken away.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    scripts, servers,
    status::Status,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use object::{Object as _, ObjectSection as _};
use serde_json::json;

const PORT: u16 = 8080;
const TO: &str = "127.0.0.1:8080";

/// The object of the example; another build of it where those are tested.
fn example() -> PathBuf {
    let directory = env::var_os("REUSEPORT_LAUNCH_BPF_DIR").map(PathBuf::from);
    let committed = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/least-hint");
    directory.unwrap_or_else(committed).join("least-hint.o")
}

/// A copy of it in which this map has another name, which means nothing to the launcher.
fn without(map: &str, directory: &Path) -> PathBuf {
    let mut bytes = fs::read(example()).expect("the example is committed");
    let name = format!("\0{map}\0");
    let found: Vec<usize> = (0..bytes.len() - name.len())
        .filter(|&at| bytes[at..].starts_with(name.as_bytes()))
        .collect();
    assert!(!found.is_empty(), "{map}");
    for at in found {
        bytes[at + 1] = b'x';
    }
    let path = directory.join(format!("without-{map}.o"));
    fs::write(&path, bytes).expect("a temporary directory");
    path
}

/// A copy of it in which the first instruction reads beyond the context.
fn reading_out_of_bounds(directory: &Path) -> PathBuf {
    /// `r0 = *(u64 *)(r1 + 4096)`
    const BEYOND: [u8; 8] = [0x79, 0x10, 0x00, 0x10, 0, 0, 0, 0];
    let mut bytes = fs::read(example()).expect("the example is committed");
    let file = object::File::parse(&*bytes).expect("the example is an ELF object");
    let program = file
        .section_by_name("sk_reuseport/migrate")
        .expect("its program");
    let (at, _) = program.file_range().expect("it has instructions");
    let at = usize::try_from(at).expect("a small file");
    bytes[at..at + 8].copy_from_slice(&BEYOND);
    let path = directory.join("beyond.o");
    fs::write(&path, bytes).expect("a temporary directory");
    path
}

fn launch(command: Vec<String>, workers: u32, object: &Path) -> Launch {
    Launch::of(command)
        .options(["--workers", &workers.to_string()])
        .options([Path::new("--steer-object"), object])
}

fn hint(launcher: &Launcher, slot: u32, value: u64) {
    launcher.ask(&["hint", &slot.to_string(), &value.to_string()]);
}

fn hints(status: &Status) -> Vec<Option<u64>> {
    let workers = status.workers().iter();
    workers.map(|worker| worker["hint"].as_u64()).collect()
}

/// Sends requests, and returns who has answered: one worker.
#[track_caller]
fn chosen() -> u32 {
    let answers = client::spread(address(TO), 10);
    assert_eq!(answers.len(), 1, "{answers:?}");
    let pid = answers.into_keys().next().expect("one");
    pid.parse().expect("they answer with their pids")
}

#[test]
fn hints_decide_who_gets_connections() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let object = example();
    let launcher = launch(servers::node(PORT), 3, &object).ready();
    let status = launcher.status();
    let policy = format!("object:{}", object.display());
    assert_eq!(status.0["steering"]["policy"], policy);
    assert_eq!(status.0["steering"]["migration"], true);
    assert_eq!(hints(&status), [Some(0); 3]);
    // Where nobody has said anything they take turns.
    assert_eq!(client::spread(address(TO), 30).len(), 3);

    for (slot, value) in [(0, 5), (1, 3), (2, u64::MAX)] {
        hint(&launcher, slot, value);
    }
    assert_eq!(chosen(), status.pid(1));
    hint(&launcher, 1, 6);
    assert_eq!(chosen(), status.pid(0));
    let after = launcher.status();
    assert_eq!(hints(&after), [Some(5), Some(6), Some(u64::MAX)]);
    after.assert_selected(PORT, 50);

    // Who takes a worker's place has said nothing yet.
    launcher.ask(&["restart", "2"]);
    let after = launcher.status();
    assert_eq!(hints(&after), [Some(5), Some(6), Some(0)]);
    assert_eq!(chosen(), after.pid(2));
    // The table counts, too.
    launcher.ask(&["drain", "2"]);
    assert_eq!(chosen(), after.pid(0));
    launcher.stop_clean();
}

#[test]
fn workers_tell_their_hints_themselves() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let command = servers::python_code(include_str!("../servers/hinting.py"));
    let launcher = launch(command, 2, &example()).ready();
    let status = launcher.status();
    let everybody: BTreeSet<u32> = status.pids().into_iter().collect();

    let mut waiting = TcpStream::connect(address(TO)).expect("a worker listens");
    waiting
        .write_all(b"GET /wait HTTP/1.0\r\n\r\n")
        .expect("it reads");
    let mut answer = Vec::new();
    let mut byte = [0];
    let body = |answer: &[u8]| {
        let text = String::from_utf8_lossy(answer).into_owned();
        let (_, pid) = text.split_once("\r\n\r\n")?;
        pid.parse::<u32>()
            .ok()
            .filter(|pid| everybody.contains(pid))
    };
    let busy = loop {
        if let Some(pid) = body(&answer) {
            break pid;
        }
        assert_eq!(waiting.read(&mut byte).expect("an answer"), 1, "no pid");
        answer.push(byte[0]);
    };
    let others = chosen();
    assert_ne!(others, busy);
    waiting.shutdown(Shutdown::Write).expect("it is open");
    waiting.read_to_end(&mut answer).expect("it ends");
    launcher.status_when("the worker to be idle", |status| {
        hints(status) == [Some(0), Some(0)]
    });
    assert_eq!(client::spread(address(TO), 10).len(), 2);
    launcher.stop_clean();
}

#[test]
fn a_hint_is_for_the_worker_that_has_the_slots_place() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = launch(scripts::app(&["notify"]), 1, &example())
        .options(["--ready", "notify"])
        .start();
    let make_ready = |generation: usize| {
        launcher
            .process
            .wait_until("the worker to listen", |lines| {
                let listening = lines.iter().filter(|line| line.text == "0 listening");
                (listening.count() == generation).then_some(())
            });
        let status = launcher.status();
        let mut workers = status.workers().iter();
        let worker = workers.find(|worker| worker["generation"] == generation);
        let pid = worker.and_then(|worker| worker["pid"].as_i64());
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        kill(Pid::from_raw(pid.expect("it runs")), Signal::SIGUSR1).expect("it runs");
    };
    make_ready(1);
    launcher.ready();
    let restart = launcher.begin(&["restart", "0"]);
    launcher.status_when("its successor", |status| status.workers().len() == 2);

    hint(&launcher, 0, 5);
    let socket = format!("{}.sock", launcher.site.name());
    let socket = launcher.site.runtime_dir().join(socket);
    let say = |generation: u64, value: u64| {
        let mut control = UnixStream::connect(&socket).expect("it listens");
        let line = json!({"verb": "hint", "slot": 0, "generation": generation, "value": value})
            .to_string();
        control.write_all(line.as_bytes()).expect("it reads");
        control.write_all(b"\n").expect("it reads");
        let mut answer = String::new();
        BufReader::new(control)
            .read_line(&mut answer)
            .expect("it answers");
        answer
    };
    assert_eq!(say(2, 9), "{\"ok\":true}\n");
    let refused = say(3, 1);
    assert!(
        refused.contains("it has no worker of generation 3"),
        "{refused}"
    );
    assert_eq!(hints(&launcher.status()), [Some(5), Some(9)]);

    make_ready(2);
    assert_eq!(restart.finish().success(), "");
    assert_eq!(hints(&launcher.status()), [Some(9)]);
    let refused = say(1, 1);
    assert!(
        refused.contains("it has no worker of generation 1"),
        "{refused}"
    );
    launcher.stop_clean();
}

#[test]
fn hints_steer_datagrams() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let command = || servers::sockets(&["udp,0.0.0.0,5353"]);
    let launcher = launch(command(), 2, &example()).ready();
    let status = launcher.members(2);
    for slot in [0, 1] {
        hint(&launcher, 0, u64::from(slot == 1));
        hint(&launcher, 1, u64::from(slot == 0));
        let answers: BTreeSet<String> = (0..10)
            .map(|_| client::ask_udp(address("127.0.0.1:5353")).expect("an answer"))
            .collect();
        assert_eq!(answers, [status.pid(slot).to_string()].into());
    }
    launcher.status().assert_selected(5353, 20);
    drop(launcher);

    // Where datagrams have a policy of their own the object is not asked.
    let options = ["--steer-udp", "round-robin"];
    let launcher = launch(command(), 2, &example()).options(options).ready();
    launcher.members(2);
    hint(&launcher, 0, 1);
    for _ in 0..10 {
        client::ask_udp(address("127.0.0.1:5353")).expect("an answer");
    }
    assert_eq!(launcher.status().connections(), [(0, 5), (1, 5)].into());
}

#[test]
fn nothing_is_lost_in_a_reload() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = launch(scripts::app(&[]), 2, &example()).ready();
    let load = OpenLoad::start(address(TO), 100);
    load.wait_for(20);
    launcher.reload();
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

/// Kills the only worker, connects before there is another one, and is served by that.
#[track_caller]
fn assert_held(object: &Path) -> Status {
    let launcher = launch(scripts::app(&["after=1"]), 1, object).ready();
    let before = launcher.status();
    kill(Pid::from_raw(before.pid(0).cast_signed()), Signal::SIGKILL).expect("it runs");
    launcher.status_when("nobody to be ready", |status| status.ready() == 0);
    let waiting: Vec<TcpStream> = (0..5)
        .map(|_| {
            let connection = TcpStream::connect(address(TO)).expect("it is held");
            client::send(&connection).expect("the kernel takes it");
            connection
        })
        .collect();
    for connection in waiting {
        let response = client::receive(&connection).expect("the next worker answers");
        assert_ne!(response.body, before.pid(0).to_string());
    }
    let status = launcher.status();
    launcher.stop_clean();
    status
}

#[test]
fn connections_are_held_by_the_object() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let status = assert_held(&example());
    assert_eq!(status.counter(PORT, "held_total"), 5);
    assert_eq!(status.counter(PORT, "migrated_total"), 5);
}

#[test]
fn an_object_may_count_nothing_and_take_no_hints() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let status = assert_held(&without("COUNTERS", directory.path()));
    assert!(status.group(PORT)["selected_total"].is_null());
    assert!(status.worker(0)["connections_total"].is_null());

    let silent = without("HINTS", directory.path());
    let launcher = launch(scripts::app(&[]), 2, &silent).ready();
    launcher.refuses(&["hint", "0", "1"], "the policy takes no hints");
    assert_eq!(client::spread(address(TO), 20).len(), 2);
    let status = launcher.status();
    assert_eq!(hints(&status), [None, None]);
    status.assert_selected(PORT, 20);
}

#[test]
fn the_next_launcher_goes_on_with_the_hints() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let object = directory.path().join("mine.o");
    let restore = || fs::copy(example(), &object).expect("a temporary directory");
    restore();
    let mut first = launch(scripts::app(&[]), 2, &object).ready();
    let pids = first.status().pids();
    hint(&first, 0, 7);
    assert_eq!(chosen(), pids[1]);

    // Another version that could not go on is found out beforehand.
    fs::write(&object, "half an object").expect("a temporary directory");
    first.refuses(&["upgrade"], "it is no eBPF object");
    restore();
    first.ask(&["upgrade"]);
    assert_eq!(hints(&first.status()), [Some(7), Some(0)]);
    assert_eq!(chosen(), pids[1]);

    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    assert_eq!(chosen(), pids[1]);
    // Nor is anything touched by a launcher that can't go on.
    let bad = reading_out_of_bounds(directory.path());
    let failed = launch(scripts::app(&[]), 2, &bad).at(&first.site).run();
    failed.assert_error(78, "invalid bpf_context access");
    assert_eq!(chosen(), pids[1]);
    let second = launch(scripts::app(&[]), 2, &object)
        .at(&first.site)
        .ready();
    let status = second.status();
    assert_eq!(status.pids(), pids);
    assert_eq!(hints(&status), [Some(7), Some(0)]);
    assert_eq!(chosen(), pids[1]);
    second.status().assert_selected(PORT, 50);

    // From one program to another: the sockets and the counts are the same.
    let (_, site) = second.end(Signal::SIGKILL);
    let third = Launch::of(scripts::app(&[]))
        .options(["--workers", "2"])
        .at(&site)
        .ready();
    let status = third.status();
    assert_eq!(status.pids(), pids);
    assert_eq!(hints(&status), [None, None]);
    assert_eq!(client::spread(address(TO), 10).len(), 2);
    third.status().assert_selected(PORT, 60);
    third.stop_clean();
}

#[test]
fn what_is_no_steering_object_is_refused_before_a_worker_starts() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let half = directory.path().join("half.o");
    let whole = fs::read(example()).expect("the example is committed");
    fs::write(&half, &whole[..whole.len() / 2]).expect("a temporary directory");
    for (object, why) in [
        (half, "it is no eBPF object"),
        (directory.path().join("none.o"), "No such file"),
        (directory.path().to_owned(), "it is not a regular file"),
        (
            without("MEMBERS", directory.path()),
            "it has no map MEMBERS",
        ),
        (
            reading_out_of_bounds(directory.path()),
            "invalid bpf_context access off=4096 size=8",
        ),
    ] {
        let launcher = launch(vec!["echo".into(), "started".into()], 1, &object).start();
        let Launcher { process, site } = launcher;
        let finished = process.finish();
        assert_eq!(finished.stdout, "");
        finished.assert_error(78, why);
        site.assert_nothing_left();
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let example = example();
    for (options, why) in [
        (&["--steer", "hash"][..], "cannot be used with"),
        (&["--health", "tcp"], "with --steer-object"),
        (&["--ready", "http:/"], "with --steer-object"),
    ] {
        let refused = launch(vec!["true".into()], 1, &example).options(options);
        let finished = refused.run();
        assert_eq!(finished.code(), 2, "{options:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    launch(
        vec!["true".into()],
        1,
        &without("COUNTERS", directory.path()),
    )
    .options(["--max-connections", "10"])
    .run()
    .assert_error(2, "nothing counts them");

    let ours = Launch::of(scripts::app(&[]))
        .options(["--workers", "1"])
        .ready();
    ours.refuses(&["hint", "0", "1"], "the policy takes no hints");
    drop(ours);
    let theirs = launch(scripts::app(&[]), 1, &example).ready();
    theirs.refuses(&["hint", "1", "1"], "it has no worker");
}
