//! `kill -9` of the launcher, and of the process that passes the output on, from which the workers
//! must not suffer; and a second launcher of the same name.

use std::sync::Arc;

use kernel_tests::{
    client, gate,
    launcher::{Launch, Launcher},
    process::Stream,
    procfs::{self, Handle},
    scripts::{self, WITNESS_PORT},
    servers,
};
use nix::sys::signal::Signal;

use crate::count;

const ADDRESS: &str = "127.0.0.1:8080";

/// The processes of the workers in slots `0..workers`.
#[track_caller]
fn workers(launcher: &Launcher, workers: u32) -> Vec<Handle> {
    let status = launcher.status();
    (0..workers)
        .map(|slot| Handle::of(status.pid(slot)))
        .collect()
}

/// Waits until so many requests are in the workers' logs.
#[track_caller]
fn wait_for_logged(launcher: &Launcher, requests: usize) {
    launcher
        .process
        .wait_until("a line for each request", |lines| {
            let logged = lines.iter().filter(|line| line.stream == Stream::Err);
            let logged = logged.filter(|line| line.text.contains("\"GET / HTTP/1.0\" 200"));
            (logged.count() == requests).then_some(())
        });
}

#[test]
fn workers_that_log_go_on_without_the_launcher() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut launcher = Launch::of(servers::python(WITNESS_PORT))
        .options(["--workers", "2"])
        .ready();
    let workers = workers(&launcher, 2);
    launcher.process.signal(Signal::SIGKILL);
    launcher.process.wait();

    client::spread(client::address(ADDRESS), 20);
    wait_for_logged(&launcher, 20);
    assert!(!workers.iter().any(Handle::ended));
}

#[test]
fn the_kernel_goes_on_steering_and_the_next_launcher_takes_over() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = Launch::of(scripts::witness())
        .options(["--workers", "3"])
        .ready();
    let site = Arc::clone(&first.site);
    let workers = workers(&first, 3);
    let assert_shares = || {
        let served = client::spread(client::address(ADDRESS), 30);
        for worker in &workers {
            let count = served.get(&worker.pid().to_string());
            assert_eq!(count.copied(), Some(10), "{served:?}");
        }
    };
    let pid = first.process.pid();
    first.process.signal(Signal::SIGKILL);
    first.process.wait();

    assert_shares();
    let status = site.control(&["status", site.name()]);
    let killed = format!("it was killed (pid {pid}); its workers may still run");
    status.assert_error(1, &killed);

    let second = Launch::of(scripts::witness())
        .options(["--workers", "3"])
        .at(&site)
        .ready();
    let said = format!("took over 3 workers of a launcher that was killed (pid {pid})");
    let lines = second.process.lines();
    assert_eq!(count(&lines, |line| line.contains(&said)), 1, "{lines:?}");
    assert_shares();
    second.status().assert_selected(WITNESS_PORT, 60);

    let (finished, site) = second.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(workers.iter().all(Handle::ended));
    // What passed the first one's output on has ended with the workers, or this would not end.
    assert_eq!(first.process.finish().code(), 128 + 9);
    site.assert_nothing_left();
}

#[test]
fn the_output_process_is_replaced() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::python(WITNESS_PORT))
        .options(["--workers", "2"])
        .ready();
    let workers = workers(&launcher, 2);
    client::spread(client::address(ADDRESS), 10);
    wait_for_logged(&launcher, 10);
    for killed in 1..=2 {
        let mut children = procfs::children(launcher.process.pid()).into_iter();
        let pump = children.find(|&pid| procfs::status(pid, "Name") == "launcher-output");
        Handle::of(pump.expect("the output process")).kill();
        // Before it is said, and after.
        client::spread(client::address(ADDRESS), 5);
        launcher.process.wait_until("the new one", |lines| {
            let said = |line: &str| line.contains("the output process was killed");
            (count(lines, said) == killed).then_some(())
        });
        client::spread(client::address(ADDRESS), 5);
        wait_for_logged(&launcher, 10 + 10 * killed);
    }
    assert!(!workers.iter().any(Handle::ended));
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}

#[test]
fn a_name_is_taken_once() {
    let Some(_netns) = gate::enter(&["python3", "sleep"]) else {
        return;
    };
    let first = Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .ready();
    let before = workers(&first, 2);
    let second = Launch::of(["sleep", "1000"]).at(&first.site).run();
    let (name, pid) = (first.site.name(), first.process.pid());
    second.assert_error(
        1,
        &format!("a launcher named {name} already runs (pid {pid})"),
    );

    let served = client::spread(client::address(ADDRESS), 10);
    for worker in &before {
        let count = served.get(&worker.pid().to_string());
        assert_eq!(count.copied(), Some(5), "{served:?}");
    }
    let (finished, site) = first.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}

#[test]
fn a_name_is_taken_once_even_with_another_runtime_directory() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let first = Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .ready();
    let before = workers(&first, 2);
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    let second = Launch::of(scripts::witness())
        .at(&first.site)
        .options(["--runtime-dir".as_ref(), elsewhere.path().as_os_str()])
        .run();
    second.assert_error(
        1,
        "one of that name already runs in this cgroup, with another runtime directory",
    );

    assert!(!before.iter().any(Handle::ended));
    let served = client::spread(client::address(ADDRESS), 10);
    for worker in &before {
        let count = served.get(&worker.pid().to_string());
        assert_eq!(count.copied(), Some(5), "{served:?}");
    }
    before[0].kill();
    first.status_when("the replacement", |status| status.is_ready(0, 2));
    let (finished, site) = first.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}
