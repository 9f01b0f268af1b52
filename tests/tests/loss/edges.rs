//! Fleets and moments out of the ordinary: several ports, another user, a listener that comes and goes,
//! several replacements at once, and stops in the middle of something.

use std::{
    fs,
    time::{Duration, Instant},
};

use kernel_tests::{
    cgroup, client, eventually, gate,
    launcher::{Launch, Launcher},
    load::{Kind, OpenLoad, Report},
    scripts, servers,
    status::Status,
};
use nix::sys::signal::Signal;

use crate::{PORT, RATE, address, begin_reload, crash, signal, takeover::kill, two_apps};

#[test]
fn a_server_that_closes_its_listener_for_a_while_has_connections_held() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::sockets(&["tcp,0.0.0.0,8080"]))
        .options(["--workers", "1"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    let pid = launcher.status().pid(0);
    for _ in 0..3 {
        load.wait_for(20);
        signal(pid, Signal::SIGUSR1);
        launcher.status_when("connections to wait", |status| {
            status.counter(PORT, "held_now") > 10
        });
        signal(pid, Signal::SIGUSR2);
        launcher.status_when("them to be handed over", |status| {
            status.counter(PORT, "held_now") == 0
        });
    }
    let status = launcher.status();
    assert_eq!((status.pid(0), status.generation(0)), (pid, 1));
    load.wait_for(20);
    let report = load.stop();
    report.assert_nothing_lost();
    // Nor did anything wait for something else than the socket.
    assert!(report.latency(1.0) < 2_000_000, "{report}");
    launcher.stop_clean();
}

/// Asserts that whoever got no answer was told at once.
#[track_caller]
pub(crate) fn assert_nobody_waited(report: &Report) {
    for kind in [Kind::Timeout, Kind::Bad] {
        assert_eq!(report.count(kind), 0, "{report}");
    }
}

/// Those for TCP of a server with several.
const PORTS: [u16; 2] = [PORT, 8081];

/// Loads both TCP ports while something happens, and for a while afterwards.
#[track_caller]
fn loaded<T>(action: impl FnOnce() -> T) -> (T, [Report; 2]) {
    let loads = PORTS.map(|port| {
        let to = client::address(&format!("127.0.0.1:{port}"));
        OpenLoad::start(to, RATE / 2)
    });
    loads.iter().for_each(|load| load.wait_for(10));
    let result = action();
    loads.iter().for_each(|load| load.wait_for(20));
    (result, loads.map(OpenLoad::stop))
}

/// Asserts that the only worker answers datagrams, and that all of them, `ever` many, were counted.
#[track_caller]
fn assert_datagrams(launcher: &Launcher, ever: u64) {
    let pid = launcher.status().pid(0).to_string();
    for _ in 0..DATAGRAMS {
        let answer = client::ask_udp(client::address("127.0.0.1:5353"));
        assert_eq!(answer.expect("the worker answers"), pid);
    }
    launcher.status().assert_selected(5353, ever);
}

/// How many are sent each time.
const DATAGRAMS: u64 = 5;

#[test]
fn each_port_of_a_server_with_three_is_held_and_counted_for_itself() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let sockets = ["tcp,0.0.0.0,8080", "tcp,0.0.0.0,8081", "udp,0.0.0.0,5353"];
    let launch = || Launch::of(servers::sockets(&sockets)).options(["--workers", "1"]);
    let mut first = launch().ready();
    let status = first.members(3);
    for port in PORTS {
        assert!(status.counter(port, "hold_backlog") > 0, "{}", status.0);
    }
    assert!(status.group(5353)["hold_backlog"].is_null());

    let ((), reports) = loaded(|| (0..3).for_each(|_| first.reload()));
    let status = first.status();
    for (port, report) in PORTS.into_iter().zip(&reports) {
        report.assert_nothing_lost();
        // A worker is ready with its first socket: until it has the others, those are held for.
        let counted = status.counter(port, "selected_total") + status.counter(port, "held_total");
        assert_eq!(counted, report.sent(), "port {port}: {}", status.0);
    }
    assert_datagrams(&first, DATAGRAMS);

    let held = |status: &Status| PORTS.map(|port| status.counter(port, "held_total"));
    let before = held(&status);
    let (accepted, reports) = loaded(|| {
        let accepted = crash(&first, 0);
        first.replaced(0, 5);
        first.members(3);
        accepted
    });
    for report in &reports {
        report.assert_lost_only_of(&accepted);
    }
    let status = first.status();
    assert!(
        held(&status)
            .iter()
            .zip(&before)
            .all(|(now, then)| now > then),
        "each of them: {}",
        status.0
    );
    assert_datagrams(&first, 2 * DATAGRAMS);

    let selected = PORTS.map(|port| status.counter(port, "selected_total"));
    let (second, reports) = loaded(|| {
        kill(&mut first);
        launch().at(&first.site).ready()
    });
    let status = second.members(3);
    for ((port, report), before) in PORTS.into_iter().zip(&reports).zip(selected) {
        report.assert_nothing_lost();
        let counted = status.counter(port, "selected_total") - before;
        assert_eq!(counted, report.sent(), "port {port}: {}", status.0);
    }
    assert_datagrams(&second, 3 * DATAGRAMS);
    second.stop_clean();
}

#[test]
fn under_hash_nothing_is_lost_in_reloads() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::late())
        .options(["--workers", "3", "--steer", "hash"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    for _ in 0..5 {
        launcher.reload();
    }
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn under_kernel_there_is_a_reload_but_nothing_that_needs_a_program() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&[], &["--steer", "kernel"]);
    let status = launcher.status();
    assert_eq!(status.0["hold"], false);
    for nothing in ["held_total", "held_now", "hold_backlog"] {
        assert!(status.group(PORT)[nothing].is_null(), "{}", status.0);
    }
    let load = OpenLoad::start(address(), RATE);
    launcher.reload();
    load.wait_for(20);
    let status = launcher.status();
    assert!((0..2).all(|slot| status.is_ready(slot, 2)), "{}", status.0);
    let report = load.stop();
    // What an old worker has not accepted when it goes is lost, but at once.
    assert_nobody_waited(&report);
    launcher.stop_clean();

    for probing in [["--ready", "http:/health"], ["--health", "http:/health"]] {
        let refused = Launch::of(scripts::app(&[]))
            .options(["--steer", "kernel"])
            .options(probing)
            .run();
        refused.assert_error(2, probing[0]);
    }
}

/// Waits until the worker of a slot and generation listens, and has it say that it is ready.
#[track_caller]
fn have_it_notify(launcher: &Launcher, slot: u32, generation: u64) {
    let pid = |status: &Status| {
        let mut workers = status.workers().iter();
        let worker = workers.find(|worker| {
            worker["slot"] == slot
                && worker["generation"] == generation
                && worker["state"] == "listening"
        })?;
        worker["pid"].as_u64()?.try_into().ok()
    };
    let status = launcher.status_when("it to listen", |status| pid(status).is_some());
    signal(pid(&status).expect("it was there"), Signal::SIGUSR1);
}

#[track_caller]
fn reload_that_notifies(launcher: &Launcher, generation: u64) {
    let reload = begin_reload(launcher, &[]);
    (0..2).for_each(|slot| have_it_notify(launcher, slot, generation));
    assert_eq!(reload.finish().success(), "");
}

#[test]
fn workers_of_another_user_notify_are_held_for_and_are_taken_over() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launch = || {
        Launch::of(scripts::app(&["notify"]))
            .options(["--workers", "2", "--ready", "notify"])
            .options(["--user", "nobody", "--group", "nogroup"])
    };
    let mut first = launch().start();
    (0..2).for_each(|slot| have_it_notify(&first, slot, 1));
    first.ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    reload_that_notifies(&first, 2);
    let before = first.status();
    kill(&mut first);
    let second = launch().at(&first.site).ready();
    let after = second.status();
    assert!(after.all_ready(2), "{}", after.0);
    assert_eq!(after.pids(), before.pids());
    reload_that_notifies(&second, 3);
    let mut accepted = crash(&second, 0);
    accepted.extend(crash(&second, 1));
    have_it_notify(&second, 0, 4);
    have_it_notify(&second, 1, 4);
    let status = second.status_when("both", |status| status.all_ready(2));
    assert!(status.counter(PORT, "held_total") > 0, "{}", status.0);
    load.wait_for(20);
    load.stop().assert_lost_only_of(&accepted);
    second.stop_clean();
}

#[test]
fn a_broken_version_leaves_nothing_of_several_replacements_at_once() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broken = dir.path().join("broken");
    let launcher = Launch::of(scripts::breakable(&broken, scripts::app(&[])))
        .options(["--workers", "4", "--max-surge", "2"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    launcher.reload();
    let before = launcher.status();
    assert!((0..4).all(|slot| before.is_ready(slot, 2)), "{}", before.0);
    fs::write(&broken, "").expect("the test's own directory");
    launcher.refuses(&["reload"], scripts::BROKEN);
    let after = launcher.status_when("the new ones to be gone", |status| status.all_ready(4));
    assert_eq!(after.pids(), before.pids());
    assert!(after.0["operation"].is_null(), "{}", after.0);
    let mut processes = cgroup::processes(&launcher.site.cgroup().expect("it was found"));
    processes.sort_unstable();
    let mut pids = after.pids();
    pids.sort_unstable();
    assert_eq!(processes, pids, "nothing else is left");
    fs::remove_file(&broken).expect("it was written");
    launcher.reload();
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_stop_ends_a_reload_and_nothing_is_reset() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&["after=1.5"], &[]);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(20);
    let reload = begin_reload(&launcher, &[]);
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
    reload.finish().assert_error(1, "stopped meanwhile");
    let report = load.stop();
    assert_eq!(report.count(Kind::Refused), report.lost.len(), "{report}");
}

/// Longer than anything in a test that does not wait for it.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn what_is_held_is_reset_at_once_by_a_stop_and_a_second_interrupt_kills() {
    let Some(_netns) = gate::enter(&["python3", "sh", "sleep"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stuck = dir.path().join("stuck");
    // While the file exists it never listens, and no TERM ends it.
    let script = format!(
        "test -e \"$0\" && trap '' TERM && exec {} 1000; exec \"$@\"",
        gate::path_of("sleep")
    );
    let stuck_name = stuck.to_str().expect("temporary files have UTF-8 names");
    let shell = [&gate::path_of("sh"), "-c", &script, stuck_name].map(str::to_owned);
    let timeout = format!("{}s", STOP_TIMEOUT.as_secs());
    let launcher = Launch::of(shell.into_iter().chain(scripts::app(&[])))
        .options(["--workers", "1", "--stop-timeout", &timeout])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    fs::write(&stuck, "").expect("the test's own directory");
    crash(&launcher, 0);
    let status = launcher.status_when("connections to wait", |status| {
        status.counter(PORT, "held_now") > 10 && status.state(0) == "starting"
    });
    let held = status.counter(PORT, "held_now");

    let told = Instant::now();
    launcher.process.signal(Signal::SIGINT);
    eventually("what is held to be reset", || {
        (load.lost() >= held).then_some(())
    });
    assert!(told.elapsed() < STOP_TIMEOUT / 2, "{:?}", told.elapsed());
    assert_eq!(launcher.status().state(0), "stopping");
    let (finished, site) = launcher.end(Signal::SIGINT);
    assert!(told.elapsed() < STOP_TIMEOUT, "{:?}", told.elapsed());
    assert!(
        finished.stderr.contains("a second INT"),
        "{}",
        finished.stderr
    );
    site.assert_nothing_left();
    let report = load.stop();
    assert!(report.count(Kind::Reset) as u64 >= held, "{report}");
    assert_nobody_waited(&report);
}
