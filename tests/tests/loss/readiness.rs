//! When a worker is ready: each of the ways in which one can tell.

use kernel_tests::{
    gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    process::Line,
    scripts,
};
use nix::sys::signal::Signal;

use crate::{PORT, RATE, address, signal};

/// Starts two [`scripts::app`]s, and waits until both listen.
#[track_caller]
fn two_listening(words: &[&str], ready: &str) -> Launcher {
    let launcher = Launch::of(scripts::app(words))
        .options(["--workers", "2", "--ready", ready])
        .start();
    launcher.status_when("both workers to listen", |status| {
        let states = status.workers().iter().map(|worker| &worker["state"]);
        states.filter(|&state| state == "listening").count() == 2
    });
    launcher
}

/// How many lines the worker of a slot has told that say this.
fn told(lines: &[Line], slot: u32, what: &str) -> usize {
    let line = format!("{slot} {what}");
    lines.iter().filter(|told| told.text == line).count()
}

#[test]
fn a_worker_that_notifies_is_ready_when_it_says_so() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_listening(&["notify"], "notify");
    let warming = launcher.status_when("the status of both", |status| {
        (0..2).all(|slot| status.worker(slot)["status_text"] == "warming up")
    });
    // Meanwhile nothing reaches the workers.
    let load = OpenLoad::start(address(), RATE);
    launcher.status_when("connections to wait", |status| {
        status.counter(PORT, "held_now") > 10
    });
    signal(warming.pid(1), Signal::SIGUSR1);
    let one = launcher.replaced(1, 1);
    load.wait_for(RATE.into());
    assert_eq!(one.state(0), "listening");
    let report = load.stop();
    report.assert_nothing_lost();
    let only: Vec<_> = report.answers.keys().cloned().collect();
    assert_eq!(only, [one.pid(1).to_string()]);

    signal(warming.pid(0), Signal::SIGUSR1);
    launcher.ready();
    launcher.status_when("the status of both", |status| {
        (0..2).all(|slot| status.worker(slot)["status_text"] == "serving")
    });
    launcher.stop_clean();
}

#[test]
fn a_worker_is_ready_when_its_own_answer_says_so() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_listening(&["sick"], "http:/health");
    // Probes go through the shared port, and each reaches the worker that it is meant for.
    launcher.process.wait_until("probes of both", |lines| {
        (0..2)
            .all(|slot| told(lines, slot, "probed") >= 2)
            .then_some(())
    });
    signal(launcher.status().pid(1), Signal::SIGUSR1);
    let one = launcher.replaced(1, 1);
    let probes = told(&launcher.process.lines(), 0, "probed");
    launcher.process.wait_until("more probes", |lines| {
        (told(lines, 0, "probed") > probes + 2).then_some(())
    });
    assert_eq!(launcher.status().state(0), "listening");
    // A ready worker is not probed any more, without --health.
    let probes = told(&launcher.process.lines(), 1, "probed");

    let load = OpenLoad::start(address(), RATE);
    load.wait_for(RATE.into());
    let report = load.stop();
    report.assert_nothing_lost();
    let only: Vec<_> = report.answers.keys().cloned().collect();
    assert_eq!(only, [one.pid(1).to_string()]);
    signal(one.pid(0), Signal::SIGUSR1);
    launcher.ready();
    assert_eq!(told(&launcher.process.lines(), 1, "probed"), probes);
    launcher.stop_clean();
}

#[test]
fn a_worker_is_ready_when_it_takes_connections() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "2", "--ready", "tcp"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    for _ in 0..3 {
        launcher.reload();
    }
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_reload_waits_until_the_new_workers_say_they_are_ready() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_listening(&["sick"], "http:/health");
    for slot in 0..2 {
        signal(launcher.status().pid(slot), Signal::SIGUSR1);
    }
    launcher.ready();
    let load = OpenLoad::start(address(), RATE);
    let reload = launcher.begin(&["reload"]);
    for slot in 0..2 {
        let status = launcher.status_when("the next generation to listen", |status| {
            let mut workers = status.workers().iter();
            workers.any(|worker| {
                worker["slot"] == slot
                    && worker["generation"] == 2
                    && worker["state"] == "listening"
            })
        });
        assert_eq!(status.ready(), 2, "{}", status.0);
        let mut workers = status.workers().iter();
        let next = workers.find(|worker| worker["slot"] == slot && worker["generation"] == 2);
        let pid = next.and_then(|worker| worker["pid"].as_u64()?.try_into().ok());
        signal(pid.expect("it listens"), Signal::SIGUSR1);
    }
    assert_eq!(reload.finish().success(), "");
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn workers_that_are_never_ready_are_given_up() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let finished = Launch::of(scripts::app(&["sick"]))
        .options(["--workers", "1", "--ready", "http:/health"])
        .options(["--ready-timeout", "300ms"])
        .run();
    finished.assert_error(1, "gave up");
    assert!(finished.stderr.contains("not ready"), "{}", finished.stderr);
}
