//! SYN cookies: the kernel remembers nothing of a SYN, so the program is asked again at the ACK. It may
//! choose another member then; every connection is served all the same.

use std::{collections::BTreeMap, net::IpAddr};

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    netns,
    patient::{PORT, Patient},
    servers,
    tun::{Client, HOST_V4, HOST_V6, Remote},
};

const WORKERS: u32 = 3;

/// Has the kernel of this network namespace send cookies always, not only when the queue of half-open
/// connections is full. For both families.
fn always() {
    netns::set("tcp_syncookies", 2);
}

/// Node servers, which listen for both families.
#[track_caller]
fn fleet() -> Launcher {
    let options = ["--workers", &WORKERS.to_string(), "--steer", "round-robin"];
    Launch::of(servers::node(PORT)).options(options).ready()
}

#[test]
fn one_after_another_they_take_even_turns() {
    const ASKED: u64 = 30;
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    always();
    let launcher = fleet();
    let pids = launcher.status().pids();
    for to in ["127.0.0.1:8080", "[::1]:8080"] {
        // SYNs take turns among themselves, and ACKs do.
        let served = client::spread(address(to), ASKED);
        let each = ASKED / u64::from(WORKERS);
        let even: BTreeMap<String, u64> = pids.iter().map(|pid| (pid.to_string(), each)).collect();
        assert_eq!(served, even, "{to}");
    }
    assert_eq!(netns::counter("SyncookiesRecv"), 2 * ASKED);
    // Each was counted once, though the program was asked twice.
    launcher.status().assert_selected(PORT, 2 * ASKED);
    launcher.stop_clean();
}

#[test]
fn nothing_is_lost_under_load_while_workers_are_replaced() {
    const RATE: u32 = 200;
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    always();
    let launcher = fleet();
    let first = launcher.status().pids();
    let load = OpenLoad::start(address("127.0.0.1:8080"), RATE);
    load.wait_for(60);
    launcher.reload();
    let second = launcher.status().pids();
    load.wait_for(60);
    let report = load.stop();
    report.assert_nothing_lost();
    for pid in first.iter().chain(&second) {
        let served = report.answers.get(&pid.to_string());
        assert!(
            served.is_some(),
            "worker {pid} has served nobody: {:?}",
            report.answers
        );
    }
    // The request may overtake the handshake's ACK on its way through the CPUs: then it brings the
    // cookie, and the ACK brings it again. A SYN that is repeated is counted again.
    assert!(netns::counter("SyncookiesRecv") >= report.sent());
    let status = launcher.status();
    assert!(status.counter(PORT, "selected_total") >= report.sent());
    assert_eq!(status.counter(PORT, "fell_through_total"), 0);
    launcher.stop_clean();
}

#[test]
fn a_worker_that_dies_between_syn_and_ack_costs_nothing_ipv4() {
    a_worker_dies_between_syn_and_ack("0.0.0.0", HOST_V4.into());
}

#[test]
fn a_worker_that_dies_between_syn_and_ack_costs_nothing_ipv6() {
    a_worker_dies_between_syn_and_ack("::", HOST_V6.into());
}

/// 24 clients have a SYN-ACK, each of three workers having been chosen for eight, when one of these is
/// killed.
#[track_caller]
fn a_worker_dies_between_syn_and_ack(any: &str, host: IpAddr) {
    const CLIENTS: u64 = 24;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let Some(mut remote) = Remote::attach() else {
        return;
    };
    always();
    let fleet = Patient::start(any, WORKERS, &["--steer", "round-robin"]);
    for slot in 0..WORKERS {
        fleet.listen(slot);
    }
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| remote.syn((host, PORT).into(), &[]))
        .collect();
    remote.wait_for_each(&clients, "a SYN-ACK", |received| received.syn_acks > 0);
    assert_eq!(netns::counter("SyncookiesSent"), CLIENTS);
    let chosen = fleet.launcher.status().connections();
    assert_eq!(chosen, (0..WORKERS.into()).map(|slot| (slot, 8)).collect());

    fleet.kill(0);
    for &client in &clients {
        remote.send(client, b"GET / HTTP/1.0\r\n\r\n");
    }
    let left = [1, 2];
    for slot in left {
        fleet.accept(slot);
    }
    remote.wait_for_each(&clients, "an answer", |received| {
        received.finished || received.reset
    });
    // The ACKs came all at once, after every SYN, and take turns all the same.
    for slot in left {
        let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}", fleet.worker(slot).pid());
        let answered = clients
            .iter()
            .filter(|&&client| remote.received(client).data == answer.as_bytes());
        assert_eq!(answered.count() as u64, CLIENTS / 2, "{remote}");
    }
    assert_eq!(netns::counter("SyncookiesRecv"), CLIENTS);
    assert_eq!(netns::counter("SyncookiesFailed"), 0);
    let status = fleet.launcher.status();
    status.assert_selected(PORT, CLIENTS);
    // There was nothing to move: no listener had a socket for any of them.
    fleet.assert_migrated(0);
    fleet.end();
}
