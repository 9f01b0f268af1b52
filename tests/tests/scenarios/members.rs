//! Every member is reached, over TCP and UDP and both families; and none that is missing.

use std::collections::BTreeMap;

use kernel_tests::{
    dns, gate,
    launcher::{Launch, Launcher},
    procfs::Handle,
    servers,
};
use nix::sys::signal::Signal;

use crate::groups;

/// Name servers on port 53: four groups of one port.
fn name_servers(workers: u32, policy: &str) -> Launch {
    let options = ["--workers", &workers.to_string(), "--steer", policy];
    Launch::of(servers::dnsmasq(53)).options(options)
}

/// Starts them, and waits until each has all its sockets.
#[track_caller]
fn ready(launch: Launch, workers: u32) -> Launcher {
    let launcher = launch.ready();
    launcher.members(4 * u64::from(workers));
    launcher
}

/// So many answers of each of the first `slots` slots.
fn each(slots: u32, count: u64) -> BTreeMap<u64, u64> {
    (0..slots.into()).map(|slot| (slot, count)).collect()
}

#[test]
fn ten_members_then_twenty_then_ten_take_even_turns_in_each_group() {
    const ROUNDS: u64 = 3;
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let launcher = ready(name_servers(10, "round-robin"), 10);
    let mut asked = 0;
    for workers in [10, 20, 10] {
        launcher.scale(workers);
        launcher.members(4 * u64::from(workers));
        let count = ROUNDS * u64::from(workers);
        asked += count;
        for (transport, bound, to) in groups() {
            let served = dns::spread(transport, to, count);
            assert_eq!(served, each(workers, ROUNDS), "{transport} {to}");
            let status = launcher.status();
            status.assert_selected_at(&transport.to_string(), bound, asked);
        }
    }
    launcher.stop_clean();
}

#[test]
fn the_hash_reaches_each_of_twenty_members_in_each_group() {
    each_of_twenty_members_is_reached("hash");
}

#[test]
fn chance_reaches_each_of_twenty_members_in_each_group() {
    each_of_twenty_members_is_reached("random");
}

#[track_caller]
fn each_of_twenty_members_is_reached(policy: &str) {
    // Each question has a port of its own. That one of 20 members gets none of 600 has a probability
    // of 20 × 0.95^600, which is 10^-12.
    const ASKED: u64 = 600;
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let launcher = ready(name_servers(20, policy), 20);
    for (transport, bound, to) in groups() {
        let served = dns::spread(transport, to, ASKED);
        assert_eq!(served.len(), 20, "{transport} {to}: {served:?}");
        let status = launcher.status();
        status.assert_selected_at(&transport.to_string(), bound, ASKED);
    }
    launcher.stop_clean();
}

#[test]
fn a_missing_member_is_passed_over_in_turn() {
    a_missing_member_is_passed_over("round-robin");
}

#[test]
fn a_missing_member_is_passed_over_by_the_hash() {
    a_missing_member_is_passed_over("hash");
}

#[test]
fn a_missing_member_is_passed_over_by_chance() {
    a_missing_member_is_passed_over("random");
}

/// The launcher stands still, so that the tables go on naming a worker that is killed; in the end all
/// but one.
#[track_caller]
fn a_missing_member_is_passed_over(policy: &str) {
    const WORKERS: u32 = 5;
    const ASKED: u64 = 200;
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let launcher = ready(name_servers(WORKERS, policy), WORKERS);
    let workers: Vec<Handle> = launcher
        .status()
        .pids()
        .into_iter()
        .map(Handle::of)
        .collect();
    launcher.process.signal(Signal::SIGSTOP);
    workers[2].kill();
    for (transport, _, to) in groups() {
        let served = dns::spread(transport, to, ASKED);
        let slots: Vec<u64> = served.keys().copied().collect();
        assert_eq!(slots, [0, 1, 3, 4], "{transport} {to}: {served:?}");
        if policy == "round-robin" {
            // Its turns are dealt out among all others.
            let even = ASKED / u64::from(WORKERS - 1);
            let off = served.values().map(|count| count.abs_diff(even)).max();
            assert!(off <= Some(1), "{transport} {to}: {served:?}");
        }
    }
    for slot in [0, 3, 4] {
        workers[slot].kill();
    }
    for (transport, _, to) in groups() {
        let served = dns::spread(transport, to, ASKED);
        assert_eq!(served, BTreeMap::from([(1, ASKED)]), "{transport} {to}");
    }
    launcher.process.signal(Signal::SIGCONT);
    let status = launcher.status_when("the others to be replaced", |status| {
        let replaced = [0, 2, 3, 4].iter().all(|&slot| status.is_ready(slot, 2));
        replaced && status.is_ready(1, 1)
    });
    for (transport, bound, _) in groups() {
        status.assert_selected_at(&transport.to_string(), bound, 2 * ASKED);
        let missed = status.group_at(&transport.to_string(), bound)["missed_total"].as_u64();
        // A fifth of the first, and four fifths of the others; but nobody knows of few hashes.
        let enough = match policy {
            "round-robin" => ASKED,
            _ => ASKED / 2,
        };
        assert!(missed >= Some(enough), "{}", status.0);
    }
    launcher.stop_clean();
}

#[test]
fn the_kernel_steers_on_without_a_launcher() {
    const WORKERS: u32 = 5;
    const ROUNDS: u64 = 20;
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let mut first = ready(name_servers(WORKERS, "round-robin"), WORKERS);
    let pids = first.status().pids();
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    for (transport, _, to) in groups() {
        let served = dns::spread(transport, to, ROUNDS * u64::from(WORKERS));
        // The kernel's own hash would have to be lucky.
        assert_eq!(served, each(WORKERS, ROUNDS), "{transport} {to}");
    }
    // The next launcher finds it counted.
    let second = ready(
        name_servers(WORKERS, "round-robin").at(&first.site),
        WORKERS,
    );
    let status = second.status();
    assert_eq!(status.pids(), pids);
    for (transport, bound, _) in groups() {
        let expected = ROUNDS * u64::from(WORKERS);
        status.assert_selected_at(&transport.to_string(), bound, expected);
    }
    second.stop_clean();
}
