//! Counts that outlive the launcher, and workers that are replaced.

use std::net::TcpStream;

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, binary},
    procfs::Handle,
    servers,
};
use nix::sys::signal::Signal;

use crate::{LEAST, active_when, all_closed};

fn node() -> Launch {
    Launch::of(servers::node(8080))
        .options(LEAST)
        .options(["--workers", "4"])
}

fn connect(count: usize) -> Vec<TcpStream> {
    let to = address("127.0.0.1:8080");
    let connect = |_| TcpStream::connect_timeout(&to, client::TIMEOUT).expect("a worker listens");
    (0..count).map(connect).collect()
}

#[test]
fn it_is_counted_while_there_is_no_launcher() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let mut first = node().ready();
    let mut connections = connect(40);
    active_when(&first, "each worker has its share", |active| {
        active.values().all(|&count| count == 10)
    });
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    // Some end, and some begin.
    drop(connections.split_off(20));
    connections.extend(connect(8));

    let second = node().at(&first.site).ready();
    active_when(&second, "what is open", |active| {
        active.len() == 4 && active.values().sum::<u64>() == 28
    });
    connections.extend(connect(12));
    active_when(&second, "each worker has its share again", |active| {
        active.values().all(|&count| count == 10)
    });
    drop(connections);
    all_closed(&second);
    second.stop_clean();
}

#[test]
fn it_is_counted_across_upgrades_and_reloads() {
    let Some(_netns) = gate::enter(&["node", "install"]) else {
        return;
    };
    let launcher = node().executable(binary()).ready();
    let mut connections = connect(20);
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 5)
    });
    launcher.ask(&["upgrade"]);
    drop(connections.split_off(12));
    active_when(&launcher, "some to have ended", |active| {
        active.values().sum::<u64>() == 12
    });
    connections.extend(connect(8));
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 5)
    });
    let reload = launcher.begin(&["reload"]);
    drop(connections);
    assert_eq!(reload.finish().success(), "");
    let connections = connect(20);
    active_when(&launcher, "each worker has its share", |active| {
        active.len() == 4 && active.values().all(|&count| count == 5)
    });
    drop(connections);
    all_closed(&launcher);
    launcher.stop_clean();
}

#[test]
fn a_launcher_with_another_policy_counts_what_ends_and_nothing_that_begins() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let mut first = node().ready();
    let mut counted = connect(16);
    active_when(&first, "each worker has its share", |active| {
        active.values().all(|&count| count == 4)
    });
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    let other = Launch::of(servers::node(8080)).options(["--workers", "4"]);
    let mut second = other.at(&first.site).ready();
    let between = connect(8);
    active_when(&second, "all to be open, whoever counts", |active| {
        active.values().sum::<u64>() == 24
    });
    drop(counted.split_off(12));
    second.process.signal(Signal::SIGKILL);
    second.process.wait();
    drop(counted.split_off(8));
    let third = node().at(&first.site).ready();
    active_when(&third, "what was counted, and is open", |active| {
        active.values().sum::<u64>() == 8
    });
    let connections = connect(8);
    active_when(&third, "each worker has its share", |active| {
        active.values().all(|&count| count == 4)
    });
    drop(between);
    drop(counted);
    active_when(&third, "what it has counted itself", |active| {
        active.values().sum::<u64>() == 8
    });
    drop(connections);
    all_closed(&third);
    third.stop_clean();
}

#[test]
fn what_begins_while_another_launcher_counts_nothing_moves_without_a_trace() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let two = |policy| {
        Launch::of(servers::node(8080)).options(["--workers", "2", "--steer", policy, "--verbose"])
    };
    let mut first = two("least-conn").ready();
    for slot in 0..2 {
        let wanted = format!("all connections of worker {slot}.1 on");
        let told = |line: &str| line.contains(&wanted);
        first.process.wait_for("its listener to be known", told);
    }
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    let second = two("round-robin").at(&first.site).ready();
    let stuck = Handle::of(second.status().pid(0));
    stuck.signal(rustix::process::Signal::STOP);
    let waiting = connect(10);
    active_when(&second, "all to be open", |active| {
        *active == [(0, 5), (1, 5)].into()
    });
    second.ask(&["steer", "least-conn"]);
    all_closed(&second);
    stuck.kill();
    second.replaced(0, 2);
    all_closed(&second);
    let connections = connect(8);
    active_when(&second, "each worker has its share", |active| {
        *active == [(0, 4), (1, 4)].into()
    });
    drop((waiting, connections));
    all_closed(&second);
    second.stop_clean();
}
