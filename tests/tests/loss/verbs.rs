//! `scale`, `restart`, `drain` and `undrain`, the signals that do the same, and what is refused.

use std::{os::unix::fs::PermissionsExt as _, process::Command};

use kernel_tests::{
    gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    process::Process,
    procfs, scripts,
};
use nix::sys::signal::Signal;

use crate::{RATE, address, crash};

#[track_caller]
fn apps(workers: u32) -> Launcher {
    Launch::of(scripts::app(&[]))
        .options(["--workers", &workers.to_string()])
        .ready()
}

/// Loads the fleet for a second; nothing may be lost. Returns the pids that answered.
#[track_caller]
fn answering() -> Vec<u32> {
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(RATE.into());
    let report = load.stop();
    report.assert_nothing_lost();
    let mut pids: Vec<u32> = report
        .answers
        .keys()
        .map(|body| body.parse().expect("a pid"))
        .collect();
    pids.sort_unstable();
    pids
}

#[track_caller]
fn sorted(pids: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut pids: Vec<u32> = pids.into_iter().collect();
    pids.sort_unstable();
    pids
}

#[test]
fn scale_takes_the_highest_slots_and_tells_new_workers_how_many_they_are() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2);
    let before = launcher.status();
    launcher.scale(4);
    let more = launcher.status();
    assert!(more.all_ready(4), "{}", more.0);
    assert_eq!(more.pids()[..2], before.pids());
    let environment = procfs::environment(more.pid(3));
    assert_eq!(environment["REUSEPORT_LAUNCH_WORKERS"], "4");
    assert_eq!(environment["REUSEPORT_LAUNCH_SLOT"], "3");
    assert_eq!(answering(), sorted(more.pids()));

    launcher.scale(1);
    let fewer = launcher.status();
    assert!(fewer.all_ready(1), "{}", fewer.0);
    assert_eq!(fewer.pid(0), before.pid(0));
    assert_eq!(answering(), [before.pid(0)]);
    // As many as there are already.
    launcher.scale(1);
    assert_eq!(launcher.status().pids(), fewer.pids());
    launcher.stop_clean();
}

#[test]
fn ttin_and_ttou_scale_by_one_and_never_below() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(1);
    for (signal, workers) in [
        (Signal::SIGTTIN, 2),
        (Signal::SIGTTIN, 3),
        (Signal::SIGTTOU, 2),
        (Signal::SIGTTOU, 1),
    ] {
        launcher.process.signal(signal);
        launcher.status_when("the change", |status| {
            status.all_ready(workers) && status.0["operation"].is_null()
        });
    }
    let pid = launcher.status().pid(0);
    launcher.process.signal(Signal::SIGTTOU);
    launcher.process.wait_for("a word on it", |line| {
        line.contains("at least one worker is needed")
    });
    assert_eq!(launcher.status().pids(), [pid]);
    launcher.stop_clean();
}

#[test]
fn restart_replaces_one_worker_and_loses_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2);
    let load = OpenLoad::start(address(), RATE);
    let before = launcher.status();
    for generation in 2..=5 {
        launcher.ask(&["restart", "1"]);
        let status = launcher.status();
        assert!(status.all_ready(2), "{}", status.0);
        assert!(status.is_ready(1, generation), "{}", status.0);
        assert_eq!(status.pid(0), before.pid(0));
    }
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_drained_worker_runs_on_without_connections_until_it_is_wanted_again() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(3);
    // Not in step with the other load, or each would meet one of two workers only.
    let load = OpenLoad::start(address(), RATE / 3);
    let before = launcher.status();
    launcher.ask(&["drain", "1"]);
    let drained = launcher.status();
    assert_eq!(drained.state(1), "drained");
    assert_eq!(drained.pids(), before.pids());
    assert_eq!(answering(), sorted([before.pid(0), before.pid(2)]));
    launcher.ask(&["undrain", "1"]);
    assert_eq!(launcher.status().state(1), "ready");
    assert_eq!(answering(), sorted(before.pids()));
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_drained_slot_stays_drained_when_its_worker_is_replaced() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2);
    launcher.ask(&["drain", "0"]);
    let load = OpenLoad::start(address(), RATE);
    launcher.reload();
    let status = launcher.status();
    assert_eq!((status.state(0), status.generation(0)), ("drained", 2));
    assert_eq!(answering(), [status.pid(1)]);
    load.wait_for(10);
    crash(&launcher, 0);
    launcher.status_when("the replacement, drained", |status| {
        status.state(0) == "drained" && status.generation(0) == 3
    });
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn the_last_worker_that_takes_connections_is_not_drained() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2);
    launcher.ask(&["drain", "1"]);
    launcher.refuses(&["drain", "0"], "no worker would be left");
    let status = launcher.status();
    assert_eq!((status.state(0), status.state(1)), ("ready", "drained"));
    launcher.stop_clean();
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2);
    let before = launcher.status();
    for verb in ["restart", "drain", "undrain"] {
        launcher.refuses(&[verb, "9"], "no slot 9");
    }
    // Without --ipc node nobody would read it.
    launcher.refuses(&["send", "all", "1"], "--ipc node");
    for usage in [
        &["scale", "0"][..],
        &["scale", "-1"],
        &["scale", "many"],
        &["restart", "first"],
        &["send", "all", "{"],
        &["reload", "--drain-timeout", "soon"],
    ] {
        let finished = launcher.verb(usage);
        assert_eq!(finished.code(), 2, "{usage:?}: {}", finished.stderr);
    }
    for verb in [
        &["reload"][..],
        &["scale", "3"],
        &["restart", "0"],
        &["drain", "0"],
        &["undrain", "0"],
        &["upgrade"],
        &["send", "all", "1"],
    ] {
        let words: Vec<&str> = verb.iter().copied().chain(["no-such-name"]).collect();
        let finished = launcher.site.control(&words);
        finished.assert_error(1, "no-such-name");
    }
    let after = launcher.status();
    assert_eq!(after.pids(), before.pids());
    assert!(after.all_ready(2), "{}", after.0);
    launcher.stop_clean();
}

#[test]
fn another_user_may_not_ask_for_anything() {
    let Some(_netns) = gate::enter(&["python3", "setpriv"]) else {
        return;
    };
    let launcher = apps(2);
    let before = launcher.status();
    // A directory that everyone may enter leaves the socket's own mode to protect it.
    let dir = launcher.site.runtime_dir();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, open).expect("the test's own directory");
    for verb in [&["reload"][..], &["scale", "1"], &["stop"]] {
        let mut command = Command::new(gate::path_of("setpriv"));
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(kernel_tests::launcher::binary())
            .args(verb)
            .arg(launcher.site.name())
            .env("REUSEPORT_LAUNCH_RUNTIME_DIR", dir);
        Process::spawn(&mut command)
            .finish()
            .assert_error(1, "permission");
    }
    let after = launcher.status();
    assert_eq!(after.pids(), before.pids());
    assert!(after.all_ready(2), "{}", after.0);
    launcher.stop_clean();
}
