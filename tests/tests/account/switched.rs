//! Counting that ends and begins again, by the verb `steer`, while connections are open.

use std::{fs, net::TcpStream};

use kernel_tests::{
    client::{self, address},
    eventually, gate,
    launcher::{Launch, Launcher},
    servers,
};

use crate::{LEAST, active, active_when, all_closed};

fn connect(count: usize) -> Vec<TcpStream> {
    let to = address("127.0.0.1:8080");
    let connect = |_| TcpStream::connect_timeout(&to, client::TIMEOUT).expect("a worker listens");
    (0..count).map(connect).collect()
}

#[track_caller]
fn node() -> Launcher {
    Launch::of(servers::node(8080))
        .options(LEAST)
        .options(["--workers", "4"])
        .ready()
}

/// Whether anything is pinned for the counting.
fn is_pinned(launcher: &Launcher) -> bool {
    let entries = launcher.site.pins().into_iter().flat_map(fs::read_dir);
    entries.flatten().flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str()
            .is_some_and(|name| name.starts_with("account"))
    })
}

#[test]
fn what_was_counted_ends_once_and_what_was_not_is_never_counted() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = node();
    let mut first = connect(20);
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 5)
    });
    launcher.ask(&["steer", "hash"]);
    let mut between = connect(20);
    drop(first.split_off(12));
    active_when(&launcher, "all that are open, whoever counts", |active| {
        active.values().sum::<u64>() == 32
    });
    launcher.ask(&["steer", "least-conn"]);
    assert_eq!(active(&launcher.status()).values().sum::<u64>(), 12);
    let second = connect(8);
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 5)
    });
    drop(between.split_off(10));
    drop(first);
    active_when(&launcher, "what began at last", |active| {
        active.values().sum::<u64>() == 8
    });
    drop(between);
    drop(second);
    all_closed(&launcher);
    // And nobody has less than nothing.
    let connections = connect(20);
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 5)
    });
    drop(connections);
    all_closed(&launcher);
    launcher.stop_clean();
}

#[test]
fn the_program_stays_until_what_it_has_counted_is_closed() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = node();
    let connections = connect(20);
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 5)
    });
    launcher.ask(&["steer", "round-robin"]);
    assert!(is_pinned(&launcher), "it counts what ends");
    let others = connect(4);
    drop(connections);
    eventually("the program to go", || {
        (!is_pinned(&launcher)).then_some(())
    });
    // The next one begins with nothing, and those of the time between are none of its.
    launcher.ask(&["steer", "least-conn"]);
    let connections = connect(12);
    active_when(&launcher, "each worker has its share", |active| {
        active.values().all(|&count| count == 3)
    });
    drop(others);
    drop(connections);
    all_closed(&launcher);
    launcher.stop_clean();
}
