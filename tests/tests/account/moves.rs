//! Connections that move while they wait, and others that are never accepted.

use std::{io, net::TcpStream};

use kernel_tests::{
    client, gate, netns,
    patient::{PORT, Patient},
    procfs::Handle,
    tun::{Client, HOST_V4, Remote},
};
use rustix::process::Signal;

use crate::{LEAST, active, active_when, all_closed};

const WAITING: u64 = 30;

/// The verb that begins the counting.
const LEAST_FROM_NOW: [&str; 2] = ["steer", "least-conn"];

/// Servers that do what they are told, under `least-conn`.
#[track_caller]
fn patient(workers: u32) -> Patient {
    let [steer, least] = LEAST;
    Patient::start("0.0.0.0", workers, &[steer, least, "--verbose"])
}

/// Has a worker listen, and waits until what moves from it is counted for those to whom it moves.
#[track_caller]
fn listen(fleet: &Patient, slot: u32) {
    fleet.listen(slot);
    counted(fleet, slot, 1);
}

#[track_caller]
fn counted(fleet: &Patient, slot: u32, generation: u32) {
    let wanted = format!("all connections of worker {slot}.{generation} on");
    fleet
        .launcher
        .process
        .wait_for("it to be counted", |line| line.contains(&wanted));
}

#[track_caller]
fn connect(count: u64) -> Vec<TcpStream> {
    let connect = |_| {
        let connection = TcpStream::connect(client::address("127.0.0.1:8080"))?;
        client::send(&connection).map(|()| connection)
    };
    let connections: io::Result<Vec<TcpStream>> = (0..count).map(connect).collect();
    connections.expect("there is room in the queues")
}

/// Has all of these served (`why` they must be), and ends the fleet when no connection is counted
/// any more.
#[track_caller]
fn served(fleet: Patient, connections: Vec<TcpStream>, why: &str) {
    for connection in connections {
        client::receive(&connection).expect(why);
    }
    all_closed(&fleet.launcher);
    fleet.end();
}

#[test]
fn connections_that_move_count_for_those_to_whom_they_move() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let fleet = patient(3);
    (0..3).for_each(|slot| listen(&fleet, slot));
    let connections = connect(WAITING);
    active_when(&fleet.launcher, "equal queues", |active| {
        *active == [(0, 10), (1, 10), (2, 10)].into()
    });

    fleet.kill(0);
    active_when(&fleet.launcher, "the queue to move", |active| {
        active.get(&1) == Some(&15) && active.get(&2) == Some(&15)
    });
    // Some move for the second time.
    fleet.kill(1);
    active_when(&fleet.launcher, "the queue to move", |active| {
        active.get(&2) == Some(&WAITING)
    });

    fleet.accept(2);
    served(fleet, connections, "it was moved, not cut");
}

#[test]
fn what_was_held_counts_for_those_to_whom_it_is_handed_over() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let fleet = patient(2);
    (0..2).for_each(|slot| listen(&fleet, slot));
    let mut connections = connect(WAITING);
    fleet.kill(0);
    fleet.kill(1);
    fleet.launcher.status_when("all to be held", |status| {
        status.group(PORT)["held_now"] == WAITING
    });
    connections.extend(connect(WAITING));
    fleet.launcher.status_when("all to be held", |status| {
        status.group(PORT)["held_now"] == 2 * WAITING
    });

    let next = Handle::of(fleet.launcher.status().pid(0));
    next.signal(Signal::USR1);
    active_when(&fleet.launcher, "all to be handed over", |active| {
        active.get(&0) == Some(&(2 * WAITING))
    });
    next.signal(Signal::USR2);
    served(fleet, connections, "it was held, not cut");
}

#[test]
fn connections_older_than_the_count_are_counted_nowhere_wherever_they_move() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let fleet = Patient::start("0.0.0.0", 3, &["--verbose"]);
    fleet.listen(0);
    let connections = connect(WAITING);
    fleet.wait_for_queue(0, WAITING);
    fleet.launcher.ask(&LEAST_FROM_NOW);
    listen(&fleet, 1);
    fleet.kill(0);
    fleet.wait_for_queue(1, WAITING);
    // The second time from a listener whose own connections are counted, all of them.
    listen(&fleet, 2);
    fleet.kill(1);
    fleet.wait_for_queue(2, WAITING);
    all_closed(&fleet.launcher);

    fleet.accept(2);
    served(fleet, connections, "it was moved, not cut");
}

#[test]
fn connections_that_come_before_their_listener_is_known_are_counted() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let fleet = patient(2);
    let process = &fleet.launcher.process;
    process.signal(nix::sys::signal::Signal::SIGSTOP);
    fleet.worker(0).signal(Signal::USR1);
    process.wait_for("it to listen", |line| line == "0 listening");
    let connections = connect(WAITING);
    process.signal(nix::sys::signal::Signal::SIGCONT);
    active_when(&fleet.launcher, "those that wait to be counted", |active| {
        active.get(&0) == Some(&WAITING)
    });
    listen(&fleet, 1);
    fleet.kill(0);
    active_when(&fleet.launcher, "the queue to move", |active| {
        active.get(&1) == Some(&WAITING)
    });
    fleet.accept(1);
    served(fleet, connections, "it was moved, not cut");
}

#[test]
fn connections_that_move_while_nobody_compares_end_where_they_were_counted() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let fleet = patient(2);
    listen(&fleet, 0);
    let mut connections = connect(WAITING);
    active_when(&fleet.launcher, "those that wait to be counted", |active| {
        active.get(&0) == Some(&WAITING)
    });
    fleet.launcher.ask(&["steer", "round-robin"]);
    fleet.listen(1);
    fleet.kill(0);
    fleet.wait_for_queue(1, WAITING);
    fleet.launcher.ask(&LEAST_FROM_NOW);
    all_closed(&fleet.launcher);
    connections.extend(connect(10));
    active_when(&fleet.launcher, "the new ones alone", |active| {
        active.get(&1) == Some(&10)
    });
    // The old ones are served first, and end for the worker that had them then.
    fleet.accept(1);
    served(fleet, connections, "it was moved, not cut");
}

#[test]
fn connections_that_nobody_accepts_are_counted_until_they_are_reset() {
    const EACH: usize = 20;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // For servers, without a cookie, and without their asking (the kernel's ip-sysctl.rst).
    netns::set("tcp_fastopen", 0x2 | 0x200 | 0x400);
    let Some(mut remote) = Remote::attach() else {
        return;
    };
    let fleet = patient(2);
    (0..2).for_each(|slot| listen(&fleet, slot));
    let server = (HOST_V4, PORT).into();
    let begin = |remote: &mut Remote, data: &[u8]| -> Vec<Client> {
        let clients: Vec<Client> = (0..EACH).map(|_| remote.syn(server, data)).collect();
        remote.wait_for_each(&clients, "a SYN-ACK", |received| received.syn_acks > 0);
        clients
    };
    // Half open for ever, half open and reset, established, and open from the SYN on.
    let _silent = begin(&mut remote, &[]);
    for client in begin(&mut remote, &[]) {
        remote.reset(client);
    }
    let established = begin(&mut remote, &[]);
    established.iter().for_each(|&client| remote.ack(client));
    let fast = begin(&mut remote, b"GET / HTTP/1.0\r\n\r\n");
    active_when(&fleet.launcher, "what is established", |active| {
        active.values().sum::<u64>() == 2 * EACH as u64
    });
    // In their queue they move, all but the silent ones.
    fleet.kill(0);
    active_when(&fleet.launcher, "the queue to move", |active| {
        active.get(&1) == Some(&(2 * EACH as u64))
    });
    let (finished, reset) = established.split_at(EACH / 2);
    for &client in reset.iter().chain(&fast) {
        remote.reset(client);
    }
    active_when(&fleet.launcher, "those that were reset to end", |active| {
        active.get(&1) == Some(&(finished.len() as u64))
    });
    // They are cut in the queue: there is nobody left to move them to.
    let (launcher, pid) = (&fleet.launcher, fleet.worker(1).pid());
    assert_eq!(launcher.status().pid(1), pid);
    finished
        .iter()
        .for_each(|&client| remote.send(client, b"GET / HTTP/1.0\r\n\r\n"));
    fleet.accept(1);
    remote.wait_for_each(finished, "an answer", |received| received.finished);
    all_closed(launcher);
    assert_eq!(active(&launcher.status()).values().sum::<u64>(), 0);
    fleet.end();
}
