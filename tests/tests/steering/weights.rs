//! `weight SLOT W`.

use std::ops::RangeInclusive;

use kernel_tests::{
    POLICIES, client, gate, launcher::Launcher, load::OpenLoad, procfs::Handle, status::Status,
};
use nix::sys::signal::Signal;

use crate::{address, assert_all_steered, dealt, nodes};

#[track_caller]
fn assert_share(launcher: &Launcher, of: u64, slot: u64, expected: RangeInclusive<u64>) {
    let dealt = dealt(launcher, || drop(client::spread(address(), of)));
    assert_eq!(dealt.values().sum::<u64>(), of, "{dealt:?}");
    assert!(expected.contains(&dealt[&slot]), "{dealt:?}");
}

#[track_caller]
fn weights(status: &Status) -> Vec<u64> {
    let weight = |worker: &serde_json::Value| worker["weight"].as_u64().expect("a weight");
    status.workers().iter().map(weight).collect()
}

#[test]
fn connections_are_shared_by_weight() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    // The third worker shows that the others' shares are those of all.
    for (policy, expected) in [
        ("round-robin", 599..=601),
        ("least-conn", 540..=660),
        // 600 ± 15.5, and what Maglev is off.
        ("hash", 510..=690),
        ("random", 510..=690),
    ] {
        let launcher = nodes(3, &["--steer", policy]).ready();
        launcher.ask(&["weight", "0", "3"]);
        assert_eq!(weights(&launcher.status()), [3, 1, 1]);
        assert_share(&launcher, 1000, 0, expected);
        assert_all_steered(&launcher);
    }
}

#[test]
fn a_slot_of_weight_0_gets_nothing_new_and_keeps_what_it_has() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    for policy in POLICIES.into_iter().filter(|&policy| policy != "kernel") {
        let launcher = nodes(2, &["--steer", policy]).ready();
        launcher.ask(&["weight", "1", "0"]);
        assert_share(&launcher, 60, 1, 0..=0);
        assert_eq!(launcher.status().state(1), "ready", "{policy}");
        launcher.refuses(&["weight", "0", "0"], "no worker would be left");
        launcher.refuses(&["drain", "0"], "no worker would be left");
        launcher.refuses(&["steer", "kernel"], "slot 1 is to get no connections");
        launcher.ask(&["weight", "1", "256"]);
        launcher.ask(&["weight", "0", "0"]);
        assert_share(&launcher, 60, 1, 60..=60);
        assert_all_steered(&launcher);
    }
}

#[test]
fn a_weight_is_refused_where_it_means_nothing() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = nodes(2, &[]).ready();
    launcher.refuses(&["weight", "2", "1"], "no slot 2");
    for wrong in ["257", "-1", "1.5", "heavy"] {
        let finished = launcher.verb(&["weight", "0", wrong]);
        assert_eq!(finished.code(), 2, "{wrong}: {}", finished.stderr);
    }
    launcher.ask(&["weight", "1", "7"]);
    launcher.ask(&["steer", "kernel"]);
    launcher.refuses(&["weight", "0", "2"], "the policy is kernel");
    launcher.ask(&["steer", "round-robin"]);
    assert_eq!(weights(&launcher.status()), [1, 7]);
    assert_share(&launcher, 80, 1, 69..=71);
    launcher.stop_clean();
}

#[test]
fn a_weight_outlives_everything_but_its_slot() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let mut first = nodes(3, &[]).ready();
    first.ask(&["weight", "1", "3"]);
    first.ask(&["weight", "2", "0"]);
    let check = |launcher: &Launcher| {
        let status = launcher.status_when("three workers", |status| status.all_ready(3));
        assert_eq!(weights(&status), [1, 3, 0]);
        assert_share(launcher, 40, 1, 29..=31);
    };
    check(&first);
    Handle::of(first.status().pid(1)).kill();
    first.replaced(1, 2);
    check(&first);
    first.reload();
    check(&first);
    first.ask(&["upgrade"]);
    check(&first);
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    let second = nodes(3, &[]).at(&first.site).ready();
    check(&second);
    second.scale(2);
    second.scale(3);
    assert_eq!(weights(&second.status()), [1, 3, 1]);
    second.refuses(&["weight", "3", "1"], "no slot 3");
    second.stop_clean();
}

#[test]
fn weights_change_under_load_and_nothing_is_lost() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = nodes(4, &[]).ready();
    let load = OpenLoad::start(address(), 200);
    for round in 0..10 {
        for slot in 0..4 {
            let weight = (round + slot) % 4;
            launcher.ask(&["weight", &slot.to_string(), &weight.to_string()]);
            load.wait_for(5);
        }
    }
    load.stop().assert_nothing_lost();
    assert_all_steered(&launcher);
    launcher.stop_clean();
}
