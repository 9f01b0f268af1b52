//! Workers that run, but do not serve: those that fail their health check, and those that take
//! nothing from their queue.

use kernel_tests::{gate, launcher::Launch, load::OpenLoad, scripts, servers};
use nix::sys::signal::Signal;

use crate::{PORT, RATE, address, signal, watched};

/// Checks that come fast, and fail after two.
const HEALTH: [&str; 8] = [
    "--health",
    "http:/health",
    "--health-interval",
    "100ms",
    "--health-timeout",
    "500ms",
    "--health-threshold",
    "2",
];

#[test]
fn a_worker_that_fails_its_health_check_is_replaced() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "3"])
        .options(HEALTH)
        .ready();
    let load = OpenLoad::start(address(), RATE);
    let before = launcher.status();
    signal(before.pid(1), Signal::SIGUSR2);
    let ((), seen) = watched(&launcher, || {
        launcher.replaced(1, 2);
    });
    assert!(seen.iter().all(|status| status.ready() >= 2));
    let after = launcher.status_when("the sick one to be gone", |status| status.all_ready(3));
    assert_eq!(after.pid(0), before.pid(0));
    assert_eq!(after.pid(2), before.pid(2));
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_hanging_worker_fails_its_health_check() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "2", "--stall-timeout", "off"])
        .options(["--stop-timeout", "500ms", "--drain-timeout", "500ms"])
        .options(HEALTH)
        .ready();
    signal(launcher.status().pid(0), Signal::SIGSTOP);
    launcher.replaced(0, 2);
    launcher.status_when("the hanging one to be gone", |status| status.all_ready(2));
    launcher.stop_clean();
}

#[test]
fn the_last_worker_is_never_taken_out_however_sick() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sick = dir.path().join("sick");
    let launcher = Launch::of(scripts::app(&[&format!("sick={}", sick.display())]))
        .options(["--workers", "2", "--drain-timeout", "1s"])
        .options(HEALTH)
        .ready();
    let load = OpenLoad::start(address(), RATE);
    std::fs::write(&sick, "").expect("a new directory");
    launcher.status_when("both to be found sick", |status| {
        (0..2).all(|slot| {
            let mut workers = status.workers().iter();
            workers.any(|worker| worker["slot"] == slot && worker["state"] == "unhealthy")
        })
    });
    load.wait_for(RATE.into());
    std::fs::remove_file(&sick).expect("it was written");
    launcher.status_when("both to be well", |status| status.all_ready(2));
    let report = load.stop();
    report.assert_nothing_lost();
    assert!(report.latency(1.0) < 1_000_000, "nothing waits: {report}");
    launcher.stop_clean();
}

#[test]
fn acceptance_55_a_worker_that_accepts_nothing_is_steered_around_until_it_does() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(servers::node(PORT))
        .options(["--workers", "2", "--stall-timeout", "500ms"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(20);
    let victim = launcher.status().pid(1);
    signal(victim, Signal::SIGSTOP);
    let stalled = launcher.status_when("the stall", |status| status.state(1) == "stalled");
    assert!(
        stalled.worker(1)["accept_queue"].as_u64() > Some(0),
        "{}",
        stalled.0
    );
    // What comes from now on does not meet it.
    let fresh = OpenLoad::start(address(), RATE);
    fresh.wait_for(RATE.into());
    let report = fresh.stop();
    report.assert_nothing_lost();
    assert!(report.latency(1.0) < 500_000, "{report}");
    assert!(!report.answers.contains_key(&victim.to_string()));

    signal(victim, Signal::SIGCONT);
    let back = launcher.status_when("its return", |status| status.state(1) == "ready");
    assert_eq!(back.pid(1), victim);
    let report = load.stop();
    // Not even what waited all the while.
    report.assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn the_only_worker_is_not_taken_out_when_it_stalls() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(servers::node(PORT))
        .options(["--workers", "1", "--stall-timeout", "300ms"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(20);
    let pid = launcher.status().pid(0);
    signal(pid, Signal::SIGSTOP);
    launcher.status_when("the stall", |status| status.state(0) == "stalled");
    signal(pid, Signal::SIGCONT);
    launcher.status_when("its return", |status| status.state(0) == "ready");
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_slow_server_that_works_off_its_queue_is_not_stalled() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // Its queues are never empty, but move.
    let launcher = Launch::of(scripts::late())
        .options(["--workers", "2", "--stall-timeout", "500ms"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    let ((), seen) = watched(&launcher, || load.wait_for(u64::from(RATE) * 2));
    let busy = seen.iter().filter(|status| {
        let mut workers = status.workers().iter();
        workers.any(|worker| worker["accept_queue"].as_u64() > Some(0))
    });
    assert!(busy.count() > 0, "its queues are never empty");
    assert!(seen.iter().all(|status| status.all_ready(2)));
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}
