//! The launcher itself in trouble: without a privilege, stopped, killed at the wrong moment, or with
//! what it has left behind damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use kernel_tests::{
    cgroup, eventually, gate,
    launcher::{Launch, Launcher},
    load::{Kind, OpenLoad},
    procfs::{self, Handle},
    say, scripts,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    PORT, RATE, address, crash,
    edges::assert_nobody_waited,
    signal,
    takeover::{apps, kill},
};

/// Kills one of three workers with connections in its queue. Returns how many connections without a
/// request each slot has got since: those by which the launcher wakes it.
#[track_caller]
fn woken_after_a_crash(wrapper: &[&str]) -> BTreeMap<String, usize> {
    let launcher = Launch::of(scripts::late())
        .through(wrapper.iter().copied())
        .options(["--workers", "3"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(20);
    signal(launcher.status().pid(1), Signal::SIGSTOP);
    launcher.status_when("a queue", |status| {
        status.worker(1)["accept_queue"].as_u64() > Some(0)
    });
    let accepted = crash(&launcher, 1);
    launcher.replaced(1, 2);
    load.wait_for(RATE.into());
    load.stop().assert_lost_only_of(&accepted);
    let status = launcher.status();
    assert!(status.counter(PORT, "migrated_total") > 0, "{}", status.0);
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
    let mut woken = BTreeMap::new();
    for line in finished.stdout.lines() {
        if let Some(slot) = line.strip_suffix(" empty") {
            *woken.entry(slot.to_owned()).or_default() += 1;
        }
    }
    woken
}

#[test]
fn where_the_wake_up_may_be_lost_each_survivor_of_a_crash_is_woken_once() {
    let Some(_netns) = gate::enter(&["python3", "setpriv"]) else {
        return;
    };
    // Without it a launcher can't find out, and takes the wake-up for lost.
    let woken = woken_after_a_crash(&[
        &gate::path_of("setpriv"),
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ]);
    let survivors = ["0", "2"].map(|slot| (slot.to_owned(), 1));
    assert_eq!(woken, BTreeMap::from(survivors));
}

#[test]
fn where_no_wake_up_is_lost_nobody_is_woken() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // The stable releases that are known to wake: of others the launcher finds it out.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let patch = release.strip_prefix("6.18.").and_then(|rest| {
        let digits = rest.split(|other: char| !other.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    });
    let woken = woken_after_a_crash(&[]);
    if patch.is_some_and(|patch| patch >= 44) {
        assert_eq!(woken, BTreeMap::new());
    } else {
        say(&format!(
            "wake-ups by the launcher on {}: {woken:?}",
            release.trim()
        ));
    }
}

/// One application whose replacement takes its time, with connections waiting for it. Returns the
/// ports of the clients that the crash may have cost something.
#[track_caller]
fn holding(after: &str) -> (Launcher, OpenLoad, BTreeSet<u16>) {
    let launcher = apps(1, &[after]).ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    let accepted = crash(&launcher, 0);
    launcher.status_when("connections to wait", |status| {
        status.counter(PORT, "held_now") > 10 && status.state(0) == "starting"
    });
    (launcher, load, accepted)
}

#[test]
fn an_upgrade_while_connections_are_held_loses_none_of_them() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (launcher, load, accepted) = holding("after=3");
    let before = launcher.status();
    launcher.ask(&["upgrade"]);
    let after = launcher.status();
    assert_eq!(after.state(0), "starting", "the upgrade was in time");
    assert_eq!(after.pid(0), before.pid(0));
    assert!(
        after.counter(PORT, "held_now") >= before.counter(PORT, "held_now"),
        "{}",
        after.0
    );
    launcher.replaced(0, 2);
    load.wait_for(RATE.into());
    load.stop().assert_lost_only_of(&accepted);
    assert_eq!(launcher.status().counter(PORT, "held_now"), 0);
    launcher.stop_clean();
}

#[test]
fn what_is_held_ends_with_a_launcher_that_is_killed_and_the_next_one_goes_on() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (mut first, load, _) = holding("after=3");
    let held = first.status().counter(PORT, "held_now");
    let worker = first.status().pid(0);
    kill(&mut first);
    eventually("the held to be reset", || {
        (load.lost() >= held).then_some(())
    });
    let second = apps(1, &["after=3"]).at(&first.site).start();
    let status = second.replaced(0, 2);
    assert_eq!(status.pid(0), worker, "it was taken over as it started");
    load.wait_for(RATE.into());
    let report = load.stop();
    assert_nobody_waited(&report);
    assert!(report.count(Kind::Reset) as u64 >= held, "{report}");
    second.stop_clean();
}

#[test]
fn a_worker_that_begins_to_listen_while_no_launcher_runs_is_ready_after_the_takeover() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(2, &["after=1"]).start();
    let starting = first.status_when("both to start", |status| status.workers().len() == 2);
    kill(&mut first);
    first.process.wait_until("both to listen", |lines| {
        let listening = lines
            .iter()
            .filter(|line| line.text.ends_with(" listening"));
        (listening.count() == 2).then_some(())
    });
    let second = apps(2, &["after=1"]).at(&first.site).start();
    let ready = second.status_when("both to be ready", |status| status.all_ready(2));
    assert_eq!(ready.pids(), starting.pids());
    assert_eq!(ready.group(PORT)["members"], 2);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(RATE.into());
    let report = load.stop();
    report.assert_nothing_lost();
    assert_eq!(report.answers.len(), 2, "{report}");
    second.status_when("the program to have sent them", |status| {
        status.counter(PORT, "selected_total") == report.sent()
    });
    second.stop_clean();
}

/// Starts the next launcher where nothing can be gone on with. It says so, and starts anew.
#[track_caller]
fn starts_anew(first: &Launcher) -> Launcher {
    let left: Vec<Handle> = cgroup::processes(&first.site.cgroup().expect("it was found"))
        .into_iter()
        .map(Handle::of)
        .collect();
    assert!(left.len() >= 2, "{left:?}");
    let second = apps(2, &[]).at(&first.site).ready();
    second.process.wait_for("a word on it", |line| {
        line.contains("was killed") && line.contains("stopping the 2 workers it left")
    });
    left.iter().for_each(Handle::wait);
    assert!(second.status().all_ready(2));
    let load = OpenLoad::start(address(), RATE);
    second.reload();
    load.stop().assert_nothing_lost();
    second
}

#[test]
fn without_the_pins_the_next_launcher_starts_anew_and_says_so() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(2, &[]).ready();
    kill(&mut first);
    let pins = first.site.pins();
    assert_eq!(pins.len(), 1, "{pins:?}");
    for dir in pins {
        fs::remove_dir_all(dir).expect("nobody uses it");
    }
    starts_anew(&first).stop_clean();
}

#[test]
fn with_a_damaged_state_the_next_launcher_starts_anew_and_says_so() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut launcher = apps(2, &[]).ready();
    let site = launcher.site.clone();
    let file = |end: &str| site.runtime_dir().join(format!("{}.{end}", site.name()));
    let damages: [fn(&str) -> String; 4] = [
        // Cut off in the middle.
        |state| state[..state.len() / 2].to_owned(),
        |_| String::new(),
        |_| "[\"something\", \"else\"]".to_owned(),
        // Of a version that writes something else of the fleet.
        |state| {
            let mut state: Value = serde_json::from_str(state).expect("it is JSON");
            state["fleet"] = json!({"layout": 9, "slots": "two"});
            state.to_string()
        },
    ];
    for damage in damages {
        kill(&mut launcher);
        let state = fs::read_to_string(file("state")).expect("a killed launcher leaves its state");
        fs::write(file("state"), damage(&state)).expect("the test's own directory");
        fs::write(file("listened"), "{").expect("the test's own directory");
        launcher = starts_anew(&launcher);
    }
    launcher.stop_clean();
}

#[test]
fn while_the_launcher_is_stopped_the_kernel_goes_on_alone() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::late())
        .options(["--workers", "3"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(20);
    let victim = Handle::of(launcher.status().pid(1));
    let fleet = launcher.site.cgroup().expect("the launcher has found it");
    let pid = launcher.process.pid();
    launcher.process.signal(Signal::SIGSTOP);
    eventually("the launcher to be stopped", || {
        procfs::status(pid, "State").starts_with('T').then_some(())
    });
    cgroup::freeze(&fleet.join("1.1"));
    let accepted = procfs::peer_ports(&[victim.pid()]);
    victim.kill();
    // Three seconds, all of them answered by the other two.
    load.wait_for(u64::from(RATE) * 3);
    assert!(load.lost() <= accepted.len() as u64);
    launcher.process.signal(Signal::SIGCONT);
    launcher.replaced(1, 2);
    launcher.reload();
    let report = load.stop();
    report.assert_lost_only_of(&accepted);
    assert!(
        Duration::from_micros(report.latency(1.0).into()) < Duration::from_secs(2),
        "{report}"
    );
    let status = launcher.status();
    assert!(status.counter(PORT, "migrated_total") > 0, "{}", status.0);
    launcher.stop_clean();
}
