//! How even `least-conn` is.

use std::{
    collections::BTreeMap,
    net::{IpAddr, TcpStream},
    thread,
};

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, Launcher},
    servers,
    tun::{Client, HOST_V4, Remote},
};

use crate::{LEAST, active, active_when, all_closed};

/// Workers of each test.
const WORKERS: u64 = 8;

#[track_caller]
fn node() -> Launcher {
    Launch::of(servers::node(8080))
        .options(LEAST)
        .options(["--workers", &WORKERS.to_string()])
        .ready()
}

#[test]
fn a_thousand_handshakes_at_once_are_dealt_out_evenly() {
    const CLIENTS: u64 = 1000;
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let Some(mut remote) = Remote::attach() else {
        return;
    };
    let launcher = node();
    let server = (IpAddr::from(HOST_V4), 8080).into();
    // The first is complete when the last has begun, as on a long path.
    let clients: Vec<Client> = (0..CLIENTS).map(|_| remote.syn(server, &[])).collect();
    remote.wait_for_each(&clients, "a SYN-ACK", |received| received.syn_acks > 0);
    clients.iter().for_each(|&client| remote.ack(client));
    let status = active_when(&launcher, "all to be established", |active| {
        active.values().sum::<u64>() == CLIENTS
    });
    let active = active(&status);
    let most = active.values().max().copied().unwrap_or_default();
    assert!(most * WORKERS * 100 <= CLIENTS * 115, "{active:?}");
    clients.iter().for_each(|&client| remote.reset(client));
    all_closed(&launcher);
    assert_eq!(launcher.status().counter(8080, "fell_through_total"), 0);
    launcher.stop_clean();
}

/// Long connections, in all.
const LONG: usize = 200;
/// Short ones.
const SHORT: usize = 5000;

#[test]
fn long_and_short_connections_together_leave_all_workers_with_as_many() {
    // Two of the short ones at most are being dealt out, or have ended, since the others were compared.
    long_and_short(2, |sum, count| {
        (count * WORKERS).abs_diff(sum) <= 2 * WORKERS
    });
}

#[test]
fn many_clients_at_once_leave_no_worker_with_more() {
    // With fewer there may be one: several that it has may end at the same time.
    long_and_short(8, |sum, count| count * WORKERS <= sum + 2 * WORKERS);
}

/// Has so many clients open long and short connections at once, and asserts at each look that each
/// worker's count is as it may be, given the sum of all.
#[track_caller]
fn long_and_short(clients: usize, even: impl Fn(u64, u64) -> bool) {
    let assert_even = |active: &BTreeMap<u64, u64>| {
        assert_eq!(active.len() as u64, WORKERS, "{active:?}");
        let sum: u64 = active.values().sum();
        assert!(active.values().all(|&count| even(sum, count)), "{active:?}");
    };
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = node();
    let to = address("127.0.0.1:8080");
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            thread::spawn(move || {
                let mut long = Vec::new();
                for _ in 0..LONG / clients {
                    long.push(TcpStream::connect_timeout(&to, client::TIMEOUT).expect("a worker"));
                    client::spread(to, (SHORT / LONG) as u64);
                }
                long
            })
        })
        .collect();
    // While they arrive, too.
    let mut looks = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        assert_even(&active(&launcher.status()));
        looks += 1;
    }
    assert!(looks > 0);
    let long: Vec<TcpStream> = clients
        .into_iter()
        .flat_map(|client| client.join().expect("every request is answered"))
        .collect();
    let status = active_when(&launcher, "the short ones to end", |active| {
        active.values().sum::<u64>() == LONG as u64
    });
    assert_even(&active(&status));
    let sent: u64 = status.connections().values().sum();
    assert_eq!(sent, (LONG + SHORT) as u64);
    drop(long);
    all_closed(&launcher);
    launcher.stop_clean();
}
