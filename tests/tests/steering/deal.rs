//! The policies one by one.

use std::{collections::BTreeMap, net::Ipv4Addr, process::Command};

use kernel_tests::{client, gate};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{address, answer_from, any_port, assert_all_steered, dealt, nodes};

/// Clients of this number of /24 networks.
const NETWORKS: u8 = 60;

/// By network: the worker that answers three of its clients, who are to agree.
#[track_caller]
fn answers_by_network() -> BTreeMap<u8, String> {
    (0..NETWORKS)
        .map(|network| {
            let ask = |host| answer_from(any_port(Ipv4Addr::new(127, 0, network, host)), address());
            let answers = [1, 77, 254].map(ask);
            assert!(
                answers.iter().all(|answer| *answer == answers[0]),
                "network {network}: {answers:?}"
            );
            (network, answers[0].clone())
        })
        .collect()
}

#[test]
fn source_keeps_each_network_with_its_worker_and_moves_few() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = nodes(4, &["--steer", "source:24/56"]).ready();
    let before = answers_by_network();
    let leaves = launcher.status().pid(3).to_string();
    let its = before.values().filter(|answer| **answer == leaves).count();
    assert!((1..NETWORKS.into()).contains(&its), "{before:?}");

    launcher.ask(&["drain", "3"]);
    let during = answers_by_network();
    let moved = before
        .iter()
        .filter(|&(network, answer)| *answer != leaves && during[network] != *answer)
        .count();
    assert!(!during.values().any(|answer| *answer == leaves));
    // Maglev moves 2 % of the others at most; of 60 that is one.
    assert!(moved <= 3, "{moved} networks have moved without need");
    launcher.ask(&["undrain", "3"]);
    assert_eq!(answers_by_network(), before);
    assert_all_steered(&launcher);
    assert_eq!(launcher.status().0["steering"]["policy"], "source:24/56");
    launcher.stop_clean();
}

#[test]
fn source_counts_the_prefix_of_an_ipv6_client() {
    let Some(_netns) = gate::enter(&["node", "ip"]) else {
        return;
    };
    let networks = 0..24u16;
    let client = |network: u16, host: u16| format!("fd00:0:0:{:x}::{host:x}", network << 8);
    for network in networks.clone() {
        for host in [1, 2] {
            let address = format!("{}/128", client(network, host));
            let added = Command::new(gate::path_of("ip"))
                .args(["-6", "address", "add", &address, "dev", "lo", "nodad"])
                .status();
            assert!(added.expect("ip was found").success());
        }
    }
    let launcher = nodes(4, &["--steer", "source:24/56"]).ready();
    let to = client::address("[::1]:8080");
    let mut used = BTreeMap::<String, u32>::new();
    for network in networks {
        let ask = |host| {
            let from: std::net::Ipv6Addr = client(network, host).parse().expect("an address");
            answer_from(any_port(from), to)
        };
        let (one, other) = (ask(1), ask(2));
        assert_eq!(one, other, "clients of network {network}");
        *used.entry(one).or_default() += 1;
    }
    assert_eq!(used.len(), 4, "{used:?}");
    assert_all_steered(&launcher);
    launcher.stop_clean();
}

#[test]
fn cpu_gives_a_connection_to_the_worker_of_the_cpu_that_its_packets_come_on() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let allowed = sched_getaffinity(None).expect("our own");
    if allowed.count() < 2 {
        gate::skip("needs two CPUs");
        return;
    }
    let launcher = nodes(2, &["--steer", "cpu", "--pin", "auto"]).ready();
    let status = launcher.status();
    for (slot, worker) in (0..).zip(status.workers()) {
        let cpu = worker["cpus"][0].as_u64().expect("it is pinned");
        let mut only = CpuSet::new();
        only.set(usize::try_from(cpu).expect("few CPUs"));
        // On loopback the CPU that sends a packet is the one that handles it.
        sched_setaffinity(None, &only).expect("one of the allowed CPUs");
        let answers = client::spread(address(), 50);
        assert_eq!(
            answers,
            [(status.pid(slot).to_string(), 50)].into(),
            "CPU {cpu}"
        );
    }
    sched_setaffinity(None, &allowed).expect("as before");
    assert_all_steered(&launcher);
    launcher.stop_clean();
}

#[test]
fn cpu_without_pinning_says_what_it_does() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = nodes(2, &["--steer", "cpu"]).ready();
    launcher.process.wait_for("the warning", |line| {
        line.contains("steer cpu without --pin") && line.contains("the n-th worker")
    });
    let all = dealt(&launcher, || drop(client::spread(address(), 50)));
    assert_eq!(all.values().sum::<u64>(), 50);
    assert_all_steered(&launcher);
    launcher.stop_clean();
}

#[test]
fn random_gives_every_worker_its_share() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = nodes(4, &["--steer", "random"]).ready();
    let shares = dealt(&launcher, || drop(client::spread(address(), 400)));
    // Of 400, 100 ± 8.7: this is more than five times that.
    assert!(
        shares.values().all(|share| (50..=150).contains(share)),
        "{shares:?}"
    );
    // One client, over and over, reaches others.
    let from = ([127, 0, 0, 1], 20_000);
    let answers: Vec<String> = (0..20).map(|_| answer_from(from, address())).collect();
    assert!(answers.iter().any(|answer| *answer != answers[0]));
    assert_all_steered(&launcher);
    launcher.stop_clean();
}
