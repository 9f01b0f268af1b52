//! Connections for which the program runs a second time, because their worker has gone.
//!
//! The scenarios of the kernel's selftest `migrate_reuseport`: 25 connections are somewhere between
//! their SYN and `accept` at a worker that is killed; all must be served by another one, and the
//! program must have counted 25.

use std::{
    io,
    net::{IpAddr, TcpStream},
};

use kernel_tests::{
    client, gate, netns,
    patient::{PORT, Patient},
    tun::{Client, HOST_V4, HOST_V6, Remote},
};

const CLIENTS: u64 = 25;
const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

#[derive(Clone, Copy, Debug)]
struct Family {
    /// Where servers listen.
    any: &'static str,
    /// Where clients on the device find them.
    host: IpAddr,
}

const V4: Family = Family {
    any: "0.0.0.0",
    host: IpAddr::V4(HOST_V4),
};

const V6: Family = Family {
    any: "::",
    host: IpAddr::V6(HOST_V6),
};

/// How far connections have come when their listener is closed, and what makes them move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Established, in the accept queue: they move when the listener is closed.
    Established,
    /// In the accept queue before the handshake is complete, as there was data in the SYN (TCP Fast
    /// Open): they move when the listener is closed.
    SynRecv,
    /// Half open (NEW_SYN_RECV), and the client is silent: the timer that repeats the SYN-ACK moves
    /// them.
    SilentNewSynRecv,
    /// Half open (NEW_SYN_RECV), and the client's ACK comes: it moves them.
    NewSynRecv,
}

#[test]
fn established_connections_move_ipv4() {
    all_move(V4, State::Established);
}

#[test]
fn established_connections_move_ipv6() {
    all_move(V6, State::Established);
}

#[test]
fn fast_open_connections_move_ipv4() {
    all_move(V4, State::SynRecv);
}

#[test]
fn fast_open_connections_move_ipv6() {
    all_move(V6, State::SynRecv);
}

#[test]
fn half_open_connections_move_when_the_syn_ack_is_repeated_ipv4() {
    all_move(V4, State::SilentNewSynRecv);
}

#[test]
fn half_open_connections_move_when_the_syn_ack_is_repeated_ipv6() {
    all_move(V6, State::SilentNewSynRecv);
}

#[test]
fn half_open_connections_move_at_the_final_ack_ipv4() {
    all_move(V4, State::NewSynRecv);
}

#[test]
fn half_open_connections_move_at_the_final_ack_ipv6() {
    all_move(V6, State::NewSynRecv);
}

#[track_caller]
fn all_move(family: Family, state: State) {
    const ATTEMPTS: u32 = 5;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    if state == State::SynRecv {
        // For servers, without a cookie, and without their asking (the kernel's ip-sysctl.rst).
        netns::set("tcp_fastopen", 0x2 | 0x200 | 0x400);
    }
    let Some(mut remote) = Remote::attach() else {
        return;
    };
    for _ in 0..ATTEMPTS {
        let repeated = move_all(&mut remote, family, state);
        // A second after the SYN the timer repeats the SYN-ACK. If the ACK was not sent by then, it is
        // the other state that was tried.
        if state != State::NewSynRecv || !repeated {
            return;
        }
    }
    panic!("{ATTEMPTS} times, the final ACK was not sent within a second");
}

/// Has 25 clients connect to the only worker that listens, then another one listen, then the first one
/// killed. Returns whether a SYN-ACK was repeated.
#[track_caller]
fn move_all(remote: &mut Remote, family: Family, state: State) -> bool {
    let (in_syn, later): (&[u8], &[u8]) = match state {
        State::SynRecv => (REQUEST, &[]),
        _ => (&[], REQUEST),
    };
    let moved_before = netns::counter("TCPMigrateReqSuccess");
    let fleet = Patient::start(family.any, 2, &[]);
    fleet.listen(0);
    let clients = half_open(remote, family, in_syn);
    if state == State::Established {
        clients.iter().for_each(|&client| remote.ack(client));
    }
    let queued = match state {
        State::Established | State::SynRecv => CLIENTS,
        State::SilentNewSynRecv | State::NewSynRecv => 0,
    };
    fleet.wait_for_queue(0, queued);

    fleet.listen(1);
    fleet.kill(0);
    if state == State::SilentNewSynRecv {
        remote.wait_for_each(&clients, "another SYN-ACK", |received| {
            received.syn_acks > 1
        });
    }
    if state != State::NewSynRecv {
        // Nothing that a client sends from here on is what moves it.
        fleet.wait_for_migrated(CLIENTS);
    }
    for &client in &clients {
        remote.send(client, later);
    }
    fleet.wait_for_queue(1, CLIENTS);

    fleet.accept(1);
    assert_answered(remote, &clients, &fleet, 1);
    fleet.assert_migrated(CLIENTS);
    let moved = netns::counter("TCPMigrateReqSuccess") - moved_before;
    let lost = netns::counter("TCPMigrateReqFailure");
    assert_eq!((moved, lost), (CLIENTS, 0));
    fleet.end();
    let mut received = clients.iter().map(|&client| remote.received(client));
    received.any(|received| received.syn_acks > 1)
}

#[test]
fn half_open_connections_that_were_reset_do_not_move() {
    const RESET: usize = 10;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let Some(mut remote) = Remote::attach() else {
        return;
    };
    let fleet = Patient::start(V4.any, 2, &[]);
    fleet.listen(0);
    let clients = half_open(&mut remote, V4, &[]);
    let (gone, staying) = clients.split_at(RESET);
    gone.iter().for_each(|&client| remote.reset(client));
    fleet.listen(1);
    fleet.kill(0);
    // The ACKs of those that are gone belong to no connection.
    for &client in &clients {
        remote.send(client, REQUEST);
    }
    fleet.wait_for_queue(1, CLIENTS - RESET as u64);
    remote.wait_for_each(gone, "a reset", |received| received.reset);
    fleet.accept(1);
    assert_answered(&mut remote, staying, &fleet, 1);
    fleet.assert_migrated(CLIENTS - RESET as u64);
    fleet.end();
}

#[test]
fn a_queue_moves_on_to_all_that_are_left_each_time_a_worker_is_killed() {
    const WORKERS: u32 = 5;
    const LAST: u32 = WORKERS - 1;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let fleet = Patient::start(V4.any, WORKERS, &[]);
    fleet.listen(0);
    let connect = |_| {
        let connection = TcpStream::connect(client::address("127.0.0.1:8080"))?;
        client::send(&connection).map(|()| connection)
    };
    let connections: io::Result<Vec<TcpStream>> = (0..CLIENTS).map(connect).collect();
    let connections = connections.expect("there is room in the queue");
    fleet.wait_for_queue(0, CLIENTS);
    (1..WORKERS).for_each(|slot| fleet.listen(slot));

    let mut migrated = 0;
    for victim in 0..LAST {
        let before = fleet.queues();
        fleet.kill(victim);
        let after = fleet.queues();
        let moving = before[&victim];
        migrated += moving;
        fleet.assert_migrated(migrated);
        for slot in victim + 1..WORKERS {
            // What its own turns bring. The victim's fall to others, for the kernel moves the queue
            // before the launcher can install a table without it.
            let least = before[&slot] + moving / u64::from(WORKERS);
            assert!(after[&slot] >= least, "{before:?}, then {after:?}");
        }
        let left = (victim + 1..WORKERS).map(|slot| after[&slot]);
        assert_eq!(left.sum::<u64>(), CLIENTS, "{before:?}, then {after:?}");
    }
    fleet.accept(LAST);
    for connection in connections {
        let response = client::receive(&connection).expect("it was moved, not cut");
        assert_eq!(response.body, fleet.worker(LAST).pid().to_string());
    }
    fleet.end();
}

/// 25 clients that have got a SYN-ACK.
#[track_caller]
fn half_open(remote: &mut Remote, family: Family, data: &[u8]) -> Vec<Client> {
    let server = (family.host, PORT).into();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| remote.syn(server, data)).collect();
    remote.wait_for_each(&clients, "a SYN-ACK", |received| received.syn_acks > 0);
    clients
}

/// Waits for the answers to these clients, which must be those of this slot's worker.
#[track_caller]
fn assert_answered(remote: &mut Remote, clients: &[Client], fleet: &Patient, slot: u32) {
    remote.wait_for_each(clients, "an answer", |received| {
        received.finished || received.reset
    });
    let answer = format!("HTTP/1.0 200 OK\r\n\r\n{}", fleet.worker(slot).pid());
    for &client in clients {
        let received = remote.received(client);
        assert!(!received.reset, "{received:?}");
        assert_eq!(String::from_utf8_lossy(&received.data), answer);
    }
}
