//! The launcher killed, started again, and replaced by another build of itself, under workers that
//! notice nothing of it.

use std::{fs, sync::Arc};

use kernel_tests::{
    eventually, gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    procfs::{self, Handle},
    scripts,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    PORT, RATE, address, begin_reload, crash,
    drain::{ask, read_until},
    signal,
};

pub(crate) fn apps(workers: u32, words: &[&str]) -> Launch {
    Launch::of(scripts::app(words)).options(["--workers", &workers.to_string()])
}

/// Kills a launcher, and nothing else.
#[track_caller]
pub(crate) fn kill(launcher: &mut Launcher) {
    launcher.process.signal(Signal::SIGKILL);
    launcher.process.wait();
}

#[test]
fn acceptance_12_no_lock_outlives_a_launcher_that_is_killed_in_a_reload() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(2, &["after=1"]).ready();
    let load = OpenLoad::start(address(), RATE);
    let reload = begin_reload(&first, &[]);
    kill(&mut first);
    assert_ne!(reload.finish().code(), 0);

    let second = apps(2, &["after=1"]).at(&first.site).ready();
    second.status_when("one worker a slot", |status| status.all_ready(2));
    second.reload();
    load.stop().assert_nothing_lost();
    second.stop_clean();
}

#[test]
fn a_worker_that_drains_while_the_launcher_is_killed_finishes_what_it_has_begun() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(1, &[]).ready();
    let old = Handle::of(first.status().pid(0));
    let mut slow = ask("/slow");
    read_until(&mut slow, "\r\n\r\n");
    let reload = begin_reload(&first, &[]);
    first.status_when("the drain", |status| {
        let mut workers = status.workers().iter();
        workers.any(|worker| worker["pid"] == old.pid() && worker["state"] == "draining")
    });
    kill(&mut first);
    assert_ne!(reload.finish().code(), 0);
    let second = apps(1, &[]).at(&first.site).ready();
    read_until(&mut slow, &".".repeat(20));
    drop(slow);
    old.wait();
    assert!(second.status().is_ready(0, 2));
    second.stop_clean();
}

#[test]
fn acceptance_24_a_worker_that_dies_meanwhile_is_replaced_and_the_others_are_kept() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(3, &[]).ready();
    let load = OpenLoad::start(address(), RATE);
    let before = first.status();
    load.wait_for(20);
    kill(&mut first);
    let accepted = {
        let pid = before.pid(1);
        signal(pid, Signal::SIGSTOP);
        let victim = Handle::of(pid);
        eventually("the worker to be stopped", || {
            procfs::status(pid, "State").starts_with('T').then_some(())
        });
        let accepted = procfs::peer_ports(&[pid]);
        victim.kill();
        accepted
    };
    load.wait_for(20);
    let second = apps(3, &[]).at(&first.site).ready();
    let after = second.status_when("three workers", |status| status.all_ready(3));
    assert_eq!(after.pid(0), before.pid(0));
    assert_ne!(after.pid(1), before.pid(1));
    assert_eq!(after.pid(2), before.pid(2));
    // No generation is used twice.
    assert_eq!(after.generation(1), 2);
    // They are children of nobody's now, and still watched.
    let mut accepted = accepted;
    accepted.extend(crash(&second, 0));
    second.replaced(0, 2);
    load.wait_for(20);
    load.stop().assert_lost_only_of(&accepted);
    second.stop_clean();
}

#[test]
fn the_next_launcher_may_be_told_another_number_of_workers() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(3, &[]).ready();
    let load = OpenLoad::start(address(), RATE);
    let before = first.status();
    kill(&mut first);
    let mut second = apps(2, &[]).at(&first.site).ready();
    let fewer = second.status_when("two workers", |status| status.all_ready(2));
    assert_eq!(fewer.pids(), before.pids()[..2]);
    kill(&mut second);
    let third = apps(4, &[]).at(&first.site).ready();
    let more = third.status_when("four workers", |status| status.all_ready(4));
    assert_eq!(more.pids()[..2], before.pids()[..2]);
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    third.stop_clean();
}

#[test]
fn what_was_drained_is_still_drained_after_a_takeover_and_an_upgrade() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(2, &[]).ready();
    first.ask(&["drain", "1"]);
    first.ask(&["upgrade"]);
    assert_eq!(first.status().state(1), "drained");
    kill(&mut first);
    let second = apps(2, &[]).at(&first.site).start();
    second
        .process
        .wait_for("the takeover", |line| line.contains("took over 2 workers"));
    second.status_when("both workers", |status| {
        status.workers().len() == 2 && (status.state(0), status.state(1)) == ("ready", "drained")
    });
    second.stop_clean();
}

#[test]
fn usr2_executes_the_launcher_anew_under_the_same_pid() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2, &[]).ready();
    let load = OpenLoad::start(address(), RATE);
    let (before, pid) = (launcher.status(), launcher.process.pid());
    for _ in 0..5 {
        load.wait_for(10);
        let incarnation = procfs::incarnation(pid);
        launcher.process.signal(Signal::SIGUSR2);
        eventually("the launcher to be another one", || {
            (procfs::incarnation(pid) != incarnation).then_some(())
        });
        let after = launcher.status_when("its answer", |_| true);
        assert_eq!(after.0["pid"], pid);
        assert_eq!(after.pids(), before.pids());
    }
    // It is as able as before.
    let accepted = crash(&launcher, 1);
    launcher.replaced(1, 2);
    launcher.reload();
    let report = load.stop();
    report.assert_lost_only_of(&accepted);
    let selected = launcher.status().counter(PORT, "selected_total");
    assert!(selected >= report.sent(), "{selected} of {report}");
    launcher.stop_clean();
}

#[test]
fn output_goes_on_after_an_upgrade() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(1, &[]).ready();
    launcher.ask(&["upgrade"]);
    signal(launcher.status().pid(0), Signal::SIGUSR2);
    launcher
        .process
        .wait_for("the worker's word", |line| line == "0 is sick");
    launcher.stop_clean();
}

#[test]
fn acceptance_25_no_process_that_got_a_workers_old_pid_is_signalled() {
    let Some(_netns) = gate::enter(&["python3", "sleep"]) else {
        return;
    };
    let mut first = apps(2, &[]).ready();
    let site = Arc::clone(&first.site);
    let workers: Vec<Handle> = first.status().pids().into_iter().map(Handle::of).collect();
    kill(&mut first);
    workers.iter().for_each(Handle::kill);

    // What the launcher has written down now names somebody else.
    let mut sleep = std::process::Command::new(gate::path_of("sleep"));
    let innocent = kernel_tests::process::Process::spawn(sleep.arg("1000"));
    let file = site.runtime_dir().join(format!("{}.state", site.name()));
    let text = fs::read_to_string(&file).expect("a killed launcher leaves its state");
    let mut state: Value = serde_json::from_str(&text).expect("it is JSON");
    let renamed = rename_pids(&mut state, innocent.pid());
    assert!(renamed > 0, "{text}");
    fs::write(&file, state.to_string()).expect("the test's own directory");

    let second = apps(2, &[]).at(&site).ready();
    assert!(second.status().all_ready(2));
    second.reload();
    second.stop_clean();
    assert!(!Handle::of(innocent.pid()).ended(), "it was killed");
}

/// Puts a pid in the place of every one in a state. Returns how many there were.
fn rename_pids(state: &mut Value, pid: u32) -> usize {
    match state {
        Value::Object(members) => members
            .iter_mut()
            .map(|(name, value)| match value {
                Value::Number(_) if name == "pid" => {
                    *value = pid.into();
                    1
                }
                _ => rename_pids(value, pid),
            })
            .sum(),
        Value::Array(items) => items.iter_mut().map(|item| rename_pids(item, pid)).sum(),
        _ => 0,
    }
}
