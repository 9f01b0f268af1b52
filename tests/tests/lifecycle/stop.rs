//! Stopping: by signal, in time and out of it, the whole tree.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use kernel_tests::{
    cgroup, client, eventually, gate,
    launcher::Launch,
    process::Process,
    procfs::{self, Handle},
    scripts::{self, WITNESS_PORT, told_signals},
    servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getsid},
};

use crate::{count, finish};

/// What `workers` witnesses tell that got one TERM each, and nothing else.
fn one_term_each(workers: u32) -> BTreeMap<u32, Vec<String>> {
    (0..workers)
        .map(|slot| (slot, vec!["SIGTERM".to_owned()]))
        .collect()
}

/// Waits until `workers` witnesses have told one TERM each.
#[track_caller]
fn wait_for_one_term_each(process: &Process, workers: u32) {
    process.wait_until("one TERM for each", |lines| {
        (told_signals(lines) == one_term_each(workers)).then_some(())
    });
}

#[test]
fn term_gives_every_worker_one_term_and_leaves_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "4"])
        .ready();
    let name = launcher.site.name();
    for file in [format!("{name}.sock"), format!("{name}.state")] {
        assert!(launcher.site.runtime_dir().join(&file).exists(), "{file}");
    }
    let workers: Vec<Handle> = (0..4)
        .map(|slot| Handle::of(launcher.status().pid(slot)))
        .collect();

    launcher.process.signal(Signal::SIGTERM);
    wait_for_one_term_each(&launcher.process, 4);
    // A second one is not passed on either: a worker that is busy stopping may take it for "now".
    let (finished, site) = launcher.end(Signal::SIGTERM);

    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(workers.iter().all(Handle::ended));
    site.assert_nothing_left();
}

#[test]
fn an_interrupt_of_the_whole_process_group_reaches_the_workers_once_as_term() {
    let Some(_netns) = gate::enter(&["python3", "setsid"]) else {
        return;
    };
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .through([gate::path_of("setsid")])
        .ready();
    // What Ctrl-C does on a terminal.
    let group = Pid::from_raw(-launcher.process.pid().cast_signed());
    kill(group, Signal::SIGINT).expect("the launcher leads a process group");
    wait_for_one_term_each(&launcher.process, 2);
    let (finished, site) = finish(launcher);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(finished.stdout.lines().count(), 2, "{}", finished.stdout);
    site.assert_nothing_left();
}

#[test]
fn a_second_interrupt_kills_what_does_not_stop() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::stubborn_witness())
        .options(["--workers", "2", "--stop-timeout", "1h"])
        .ready();
    launcher.process.signal(Signal::SIGINT);
    wait_for_one_term_each(&launcher.process, 2);
    let (finished, site) = launcher.end(Signal::SIGINT);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(finished.stdout.lines().count(), 2, "{}", finished.stdout);
    site.assert_nothing_left();
}

#[test]
fn quit_kills_at_once() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::stubborn_witness())
        .options(["--workers", "2", "--stop-timeout", "1h"])
        .ready();
    let (finished, site) = launcher.end(Signal::SIGQUIT);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(finished.stdout, "", "no worker is asked first");
    site.assert_nothing_left();
}

#[test]
fn who_does_not_stop_in_time_is_killed() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::stubborn_witness())
        .options(["--workers", "2", "--stop-timeout", "500ms"])
        .ready();
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    for worker in ["0.1", "1.1"] {
        let line = format!("worker {worker} did not stop in time and is killed");
        assert!(finished.stderr.contains(&line), "{}", finished.stderr);
    }
    assert_eq!(finished.stdout.lines().count(), 2, "{}", finished.stdout);
    site.assert_nothing_left();
}

#[test]
fn the_stop_signal_can_be_chosen_and_nginx_finishes_its_requests_on_quit() {
    let Some(_netns) = gate::enter(&["nginx"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Half of the time the connections have to end by themselves; then comes the signal.
    let launcher = Launch::of(servers::nginx(dir.path(), 2))
        .options(["--workers", "2", "--stop-signal", "QUIT"])
        .options(["--stop-timeout", "4s"])
        .ready();
    let address = client::address("127.0.0.1:8080");
    // TERM would cut them off: nginx calls that a fast shutdown.
    let begun: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut connection = TcpStream::connect(address).expect("nginx listens");
            connection
                .write_all(b"GET / HTTP/1.0\r\nX-The-Rest: ")
                .expect("it is connected");
            connection
        })
        .collect();
    wait_until_read(begun.len());
    launcher.process.signal(Signal::SIGTERM);
    eventually("nginx to close its listening sockets", || {
        (sockets(LISTEN) == 0).then_some(())
    });
    for connection in begun {
        let answer = client::send(&connection).and_then(|()| client::receive(&connection));
        let answer = answer.expect("a request that was begun is answered");
        assert_eq!(answer.status, 200);
    }
    let (finished, site) = finish(launcher);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(!finished.stderr.contains("killed"), "{}", finished.stderr);
    site.assert_nothing_left();
}

#[test]
fn the_stop_signal_can_be_a_real_time_one() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // RTMIN+3, which ends who does not handle it.
    let launcher = Launch::of(servers::python(WITNESS_PORT))
        .options([
            "--workers",
            "2",
            "--stop-signal",
            "37",
            "--stop-timeout",
            "1h",
        ])
        .ready();
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}

/// The states of sockets in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// How many sockets on port 8080 there are in this state that belong to somebody and have no bytes
/// waiting.
#[track_caller]
fn sockets(state: &str) -> usize {
    // The namespace of this thread; that of `self` would be the first thread's.
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc is mounted");
    let found = table.lines().filter(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // A connection without an inode was not accepted yet.
        matches!(fields[..], [_, local, _, is, "00000000:00000000", _, _, _, _, inode, ..]
            if is == state && local.ends_with(":1F90") && inode != "0")
    });
    found.count()
}

/// Waits until so many connections were accepted and what was sent on them was read.
#[track_caller]
fn wait_until_read(connections: usize) {
    eventually("the server to read what was sent", || {
        (sockets(ESTABLISHED) == connections).then_some(())
    });
}

#[test]
fn the_whole_tree_of_a_worker_is_stopped_and_what_resists_is_killed() {
    let Some(_netns) = gate::enter(&["python3", "setsid", "sh", "sleep"]) else {
        return;
    };
    let with_daemon = "setsid sh -c 'trap \"\" TERM; echo armed; sleep 1000' & exec \"$@\"";
    let command = ["sh", "-c", with_daemon, "sh"].map(str::to_owned);
    let command = command.into_iter().chain(servers::python(WITNESS_PORT));
    let launcher = Launch::of(command)
        .options(["--workers", "2", "--stop-timeout", "500ms"])
        .ready();
    let fleet = launcher.site.cgroup().expect("the launcher has found it");
    launcher.process.wait_until("both daemons", |lines| {
        (count(lines, |line| line == "armed") == 2).then_some(())
    });
    let daemons: Vec<Handle> = ["0.1", "1.1"]
        .iter()
        .flat_map(|worker| session_leaders(&fleet.join(worker)))
        .collect();
    assert_eq!(daemons.len(), 2, "one for each worker");

    let (finished, site) = launcher.end(Signal::SIGTERM);

    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let resisted = "did not stop in time and is killed";
    assert!(finished.stderr.contains(resisted), "{}", finished.stderr);
    assert!(daemons.iter().all(Handle::ended));
    site.assert_nothing_left();
}

/// The processes in a cgroup that lead a session of their own.
fn session_leaders(dir: &Path) -> Vec<Handle> {
    let leads = |pid: &u32| {
        let raw = Pid::from_raw(pid.cast_signed());
        getsid(Some(raw)) == Ok(raw)
    };
    let leaders = cgroup::processes(dir).into_iter().filter(leads);
    leaders.map(Handle::of).collect()
}

#[test]
fn acceptance_19_a_shell_in_between_swallows_no_signal() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    // What `npm start` is, too: a parent that waits for the server, and passes nothing on.
    let command = ["sh", "-c", "trap : TERM; \"$@\"; wait", "sh"].map(str::to_owned);
    let launcher = Launch::of(command.into_iter().chain(scripts::witness()))
        .options(["--workers", "2"])
        .ready();
    launcher.process.signal(Signal::SIGTERM);
    wait_for_one_term_each(&launcher.process, 2);
    let (finished, site) = finish(launcher);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(finished.stdout.lines().count(), 2, "{}", finished.stdout);
    assert!(!finished.stderr.contains("killed"), "{}", finished.stderr);
    site.assert_nothing_left();
}

#[test]
fn acceptance_20_as_the_first_process_of_a_container_it_stops_in_ten_seconds() {
    let Some(_netns) = gate::enter(&["python3", "unshare"]) else {
        return;
    };
    let unshare = gate::path_of("unshare");
    let launcher = Launch::of(scripts::stubborn_witness())
        .options(["--workers", "2"])
        .through([&unshare, "--pid", "--fork", "--mount-proc", "--kill-child"])
        .ready();
    assert_eq!(launcher.status().0["pid"], 1);
    let first = procfs::children(launcher.process.pid());
    let [first] = first[..] else {
        panic!("unshare has these children: {first:?}");
    };
    // What `docker stop` does; it kills after ten seconds.
    let asked = Instant::now();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGTERM).expect("it runs");
    let (finished, site) = finish(launcher);
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}
