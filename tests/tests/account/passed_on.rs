//! Counts that outlive the launcher, and workers that are replaced.

use std::net::TcpStream;

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, binary},
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
fn a_launcher_with_another_policy_counts_no_more_and_one_after_it_begins_anew() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let mut first = node().ready();
    let connections = connect(8);
    active_when(&first, "each worker has its share", |active| {
        active.values().all(|&count| count == 2)
    });
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    let other = Launch::of(servers::node(8080)).options(["--workers", "4"]);
    let mut second = other.at(&first.site).ready();
    second.process.signal(Signal::SIGKILL);
    second.process.wait();
    // Nobody counts that they end.
    drop(connections);
    let third = node().at(&first.site).ready();
    all_closed(&third);
    let connections = connect(8);
    active_when(&third, "each worker has its share", |active| {
        active.values().all(|&count| count == 2)
    });
    drop(connections);
    all_closed(&third);
    third.stop_clean();
}
