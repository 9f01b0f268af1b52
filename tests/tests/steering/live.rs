//! `steer POLICY`, under load.

use std::{collections::BTreeSet, net::UdpSocket, thread};

use kernel_tests::{
    POLICIES, client, gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    servers,
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::{PORT, address, answer_from, dealt, nodes};

/// A walk through every ordered pair of different policies, each once.
fn every_change() -> Vec<&'static str> {
    let mut left: Vec<Vec<usize>> = (0..POLICIES.len())
        .map(|from| (0..POLICIES.len()).filter(|&to| to != from).collect())
        .collect();
    // Hierholzer's algorithm.
    let (mut open, mut walk) = (vec![0], Vec::new());
    while let Some(&at) = open.last() {
        match left[at].pop() {
            Some(next) => open.push(next),
            None => walk.extend(open.pop()),
        }
    }
    walk.into_iter().rev().map(|at| POLICIES[at]).collect()
}

#[test]
fn every_change_is_walked_once() {
    let walk = every_change();
    let changes: BTreeSet<_> = walk.windows(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!((walk.len(), changes.len()), (43, 42));
    assert!(changes.iter().all(|(from, to)| from != to));
}

#[test]
fn every_policy_follows_every_other_and_nothing_is_lost() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    if thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 2) {
        gate::skip("needs two CPUs, to tell cpu from the others");
        return;
    }
    let launcher = nodes(4, &[]).ready();
    let load = OpenLoad::start(address(), 100);
    let walk = every_change();
    let (first, rest) = walk.split_first().expect("a walk");
    assert_in_force(&launcher, first);
    for policy in rest {
        launcher.ask(&["steer", policy]);
        load.wait_for(10);
        assert_in_force(&launcher, policy);
    }
    let report = load.stop();
    report.assert_nothing_lost();
    assert_eq!(launcher.status().pids().len(), 4);
    launcher.stop_clean();
}

/// Shows that connections are dealt out as this policy says: by counters, and by what no other policy
/// would do.
#[track_caller]
fn assert_in_force(launcher: &Launcher, policy: &str) {
    let status = launcher.status();
    assert_eq!(status.0["steering"]["policy"], policy);
    if policy == "kernel" {
        for counter in ["selected_total", "fell_through_total", "held_now"] {
            assert_eq!(status.group(PORT)[counter], Value::Null, "{}", status.0);
        }
        assert_eq!(client::spread(address(), 8).values().sum::<u64>(), 8);
        return;
    }
    let asked = 16;
    let from_one_port = || -> BTreeSet<String> {
        let from = ([127, 0, 0, 1], 20_000);
        (0..asked).map(|_| answer_from(from, address())).collect()
    };
    let from_one_address = || -> BTreeSet<String> {
        let from = ([127, 0, 0, 9], 0);
        (0..asked).map(|_| answer_from(from, address())).collect()
    };
    let (mut port, mut address) = (BTreeSet::new(), BTreeSet::new());
    let allowed = sched_getaffinity(None).expect("our own");
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu));
    let mut one = CpuSet::new();
    one.set(first.expect("it runs somewhere"));
    sched_setaffinity(None, &one).expect("one of the allowed CPUs");
    let dealt = dealt(launcher, || {
        port = from_one_port();
        address = from_one_address();
    });
    sched_setaffinity(None, &allowed).expect("as before");
    let total: u64 = dealt.values().sum();
    assert!(total >= 2 * asked, "{policy}: {dealt:?}");
    match policy {
        // The load goes on between the looks at the members' counters.
        "round-robin" => {
            let (most, least) = (dealt.values().max(), dealt.values().min());
            assert!(most.unwrap() - least.unwrap() <= 3, "{policy}: {dealt:?}");
        }
        "least-conn" => assert!(
            dealt.values().all(|&got| got > 0),
            "{policy}: {dealt:?}, {}",
            launcher.status().0
        ),
        "hash" => assert_eq!(port.len(), 1, "{port:?}"),
        "source" => assert_eq!((port.len(), address.len()), (1, 1), "{port:?} {address:?}"),
        "random" => assert!(port.len() > 1 && address.len() > 1, "{port:?} {address:?}"),
        // This thread runs on one CPU, which has not every worker.
        "cpu" => {
            assert_eq!(port.len(), 1, "{port:?}");
            assert!(address.len() < 4, "{address:?}");
        }
        other => panic!("nothing is known of {other}"),
    }
    for counter in ["fell_through_total", "refused_total"] {
        let status = launcher.status();
        assert_eq!(status.counter(PORT, counter), 0, "{policy}: {}", status.0);
    }
}

#[test]
fn connections_that_are_held_move_to_workers_when_the_program_goes() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = nodes(2, &[]).ready();
    for (there, back) in [("kernel", "least-conn"), ("kernel", "hash")] {
        launcher.ask(&["steer", there]);
        let status = launcher.status();
        assert_eq!(status.0["hold"], false, "{}", status.0);
        launcher.ask(&["steer", back]);
        let status = launcher.status();
        assert_eq!(status.0["hold"], true, "{}", status.0);
        assert_eq!(status.counter(PORT, "held_now"), 0);
    }
    // What the program does for those who wait, it does again.
    let load = OpenLoad::start(address(), 50);
    load.wait_for(10);
    launcher.reload();
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let Some(_netns) = gate::enter(&["node", "python3"]) else {
        return;
    };
    let launcher = nodes(2, &["--health", "tcp"]).ready();
    launcher.refuses(&["steer", "kernel"], "no program would be there");
    launcher.refuses(
        &["steer", "least-conn", "--udp"],
        "no connections that could be counted",
    );
    launcher.ask(&["drain", "1"]);
    let finished = launcher.verb(&["steer", "rond-robin"]);
    assert_eq!(finished.code(), 2);
    assert!(
        finished.stderr.contains("round-robin"),
        "{}",
        finished.stderr
    );
    assert_eq!(launcher.status().0["steering"]["policy"], "round-robin");
    launcher.stop_clean();

    let launcher = nodes(2, &[]).ready();
    launcher.ask(&["drain", "1"]);
    launcher.refuses(&["steer", "kernel"], "slot 1 is drained");
    launcher.stop_clean();

    let specs = ["udp,0.0.0.0,5353"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(["--workers", "2"])
        .ready();
    launcher.refuses(
        &["steer", "least-conn"],
        "no connections that could be counted",
    );
    assert_eq!(launcher.status().0["steering"]["policy_udp"], "hash");
    launcher.stop_clean();
}

#[test]
fn datagrams_are_steered_by_a_policy_of_their_own() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["udp,0.0.0.0,5353", "tcp,0.0.0.0,8080"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(["--workers", "4", "--steer", "least-conn"])
        .start();
    launcher.process.wait_for("the warning", |line| {
        line.contains("udp 0.0.0.0:5353 is steered by hash instead of least-conn")
    });
    launcher.ready();
    launcher.members(8);
    let flow = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    flow.connect("127.0.0.1:5353").expect("loopback");
    flow.set_read_timeout(Some(client::TIMEOUT))
        .expect("a timeout");
    let ask = || {
        let mut answer = [0; 64];
        flow.send(b"?").expect("loopback");
        let length = flow.recv(&mut answer).expect("every datagram is answered");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    let mut sent = 0;
    let mut answers = |count: u64| -> BTreeSet<String> {
        sent += count;
        (0..count).map(|_| ask()).collect()
    };
    assert_eq!(answers(8).len(), 1);
    for (policy, workers) in [
        ("round-robin", 4),
        ("hash", 1),
        ("kernel", 1),
        ("round-robin", 4),
        ("source", 1),
        ("kernel", 1),
        ("hash", 1),
    ] {
        launcher.ask(&["steer", policy, "--udp"]);
        let status = launcher.status();
        assert_eq!(status.0["steering"]["policy"], "least-conn");
        assert_eq!(status.0["steering"]["policy_udp"], policy);
        assert_eq!(answers(8).len(), workers, "{policy}");
    }
    // That of all is not that of datagrams any more.
    launcher.ask(&["steer", "round-robin"]);
    let status = launcher.status();
    assert_eq!(status.0["steering"]["policy_udp"], "hash");
    assert_eq!(answers(8).len(), 1);
    assert_eq!(status.counter(5353, "fell_through_total"), 0);
    launcher.stop_clean();
}
