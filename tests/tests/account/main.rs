//! `least-conn`: what the kernel counts as open connections of each worker.

mod even;
mod moves;
mod passed_on;
mod switched;

use std::{
    collections::BTreeMap,
    net::{Shutdown, TcpStream},
};

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, Launcher},
    procfs::Handle,
    servers,
    status::Status,
};
use rustix::process::Signal;

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

#[test]
fn a_worker_is_as_busy_as_all_of_its_listeners() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::sockets(&["tcp,0.0.0.0,8080", "tcp,0.0.0.0,8081"]))
        .options(LEAST)
        .options(["--workers", "2"])
        .ready();
    let connect = |port: u16| {
        let to = address(&format!("127.0.0.1:{port}"));
        TcpStream::connect_timeout(&to, client::TIMEOUT).expect("a worker listens")
    };
    // Each port's turns begin with the same worker.
    for _ in 0..5 {
        let connections = [connect(8080), connect(8081)];
        active_when(&launcher, "each worker to have one", |active| {
            *active == [(0, 1), (1, 1)].into()
        });
        drop(connections);
        all_closed(&launcher);
    }
    launcher.stop_clean();
}

#[test]
fn what_is_open_is_known_under_other_policies_too() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    for policy in ["round-robin", "kernel"] {
        let launcher = Launch::of(servers::node(8080))
            .options(["--workers", "2", "--steer", policy])
            .ready();
        let to = address("127.0.0.1:8080");
        let connect =
            |_| TcpStream::connect_timeout(&to, client::TIMEOUT).expect("a worker listens");
        let connections: Vec<TcpStream> = (0..20).map(connect).collect();
        let status = active_when(&launcher, "all to be open", |active| {
            active.values().sum::<u64>() == 20
        });
        if policy == "round-robin" {
            assert_eq!(active(&status), [(0, 10), (1, 10)].into());
            // What waits at a worker that is killed moves, and is still told by the cgroup of that one.
            let [stuck, other] = [0, 1].map(|slot| Handle::of(status.pid(slot)));
            stuck.signal(Signal::STOP);
            let waiting: Vec<TcpStream> = (0..10).map(connect).collect();
            active_when(&launcher, "those that wait to be among them", |active| {
                *active == [(0, 15), (1, 15)].into()
            });
            stuck.kill();
            active_when(&launcher, "the queue to move", |active| {
                *active == [(0, 0), (1, 20)].into()
            });
            drop(waiting);
            assert_eq!(launcher.status().pid(1), other.pid());
        }
        drop(connections);
        all_closed(&launcher);
        launcher.stop_clean();
    }
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
