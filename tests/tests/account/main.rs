//! `least-conn`: what the kernel counts as open connections of each worker.

mod even;
mod moves;
mod passed_on;

use std::{
    collections::BTreeMap,
    net::{Shutdown, TcpStream},
};

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, Launcher},
    servers,
    status::Status,
};

const LEAST: [&str; 2] = ["--steer", "least-conn"];

#[test]
fn open_connections_are_counted_from_their_beginning_to_their_end() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(servers::node(8080))
        .options(LEAST)
        .options(["--workers", "4"])
        .ready();
    let to = address("127.0.0.1:8080");
    let connect = |_| TcpStream::connect_timeout(&to, client::TIMEOUT).expect("a worker listens");
    let mut connections: Vec<TcpStream> = (0..40).map(connect).collect();
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 10)
    });
    drop(connections.split_off(20));
    for connection in &connections {
        connection.shutdown(Shutdown::Write).expect("connected");
    }
    all_closed(&launcher);
    assert_eq!(launcher.status().counter(8080, "fell_through_total"), 0);
    launcher.stop_clean();
}

/// How many open connections each slot's newest worker has.
fn active(status: &Status) -> BTreeMap<u64, u64> {
    let workers = status.workers().iter();
    let counts = workers.filter_map(|worker| {
        let count = worker["connections_active"].as_u64()?;
        Some((worker["slot"].as_u64()?, count))
    });
    counts.collect()
}

#[track_caller]
fn active_when(
    launcher: &Launcher,
    what: &str,
    wanted: impl Fn(&BTreeMap<u64, u64>) -> bool,
) -> Status {
    launcher.status_when(what, |status| {
        let active = active(status);
        !active.is_empty() && wanted(&active)
    })
}

/// Waits until no worker has a connection open, as the kernel counts.
#[track_caller]
fn all_closed(launcher: &Launcher) {
    active_when(launcher, "every count to be 0", |active| {
        active.values().all(|&count| count == 0)
    });
}
