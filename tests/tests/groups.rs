//! Groups: the sockets that share protocol, address and port, whatever these are.

use std::{collections::BTreeMap, net::TcpStream};

use kernel_tests::{
    client::{self, address},
    eventually, gate,
    launcher::{Launch, Launcher},
    scripts, servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

#[test]
fn one_server_with_many_ports_and_families() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = [
        "tcp,0.0.0.0,8080",
        "tcp,127.0.0.1,8081",
        "tcp,::1,8082",
        "tcp,::,8083",
    ];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(["--workers", "4"])
        .ready();
    launcher.members(16);

    for (to, asked) in [
        ("127.0.0.1:8080", 40),
        ("127.0.0.1:8081", 40),
        ("[::1]:8082", 40),
        // Two kinds of clients of one dual-stack socket.
        ("[::1]:8083", 20),
        ("127.0.0.1:8083", 20),
    ] {
        let answers = client::spread(address(to), asked);
        assert!(
            answers.len() == 4 && answers.values().all(|count| count.abs_diff(asked / 4) <= 1),
            "{to} is uneven: {answers:?}"
        );
    }
    let status = launcher.status();
    for port in 8080..=8083 {
        status.assert_selected(port, 40);
    }
}

#[test]
fn two_families_on_one_port_are_two_groups() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["tcp,0.0.0.0,8080", "tcp,::,8080,v6only"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(["--workers", "2"])
        .ready();
    launcher.members(4);

    for (to, asked) in [("127.0.0.1:8080", 10), ("[::1]:8080", 20)] {
        let answers = client::spread(address(to), asked);
        assert!(
            answers.values().all(|&count| count == asked / 2),
            "{to}: {answers:?}"
        );
    }
    let status = launcher.status();
    let selected = |address: &str| {
        let group = status
            .groups()
            .iter()
            .find(|group| group["address"] == address);
        group.map(|group| {
            (
                group["selected_total"].as_u64(),
                group["fell_through_total"].as_u64(),
            )
        })
    };
    assert_eq!(selected("0.0.0.0"), Some((Some(10), Some(0))));
    assert_eq!(selected("::"), Some((Some(20), Some(0))));
}

#[test]
fn only_the_named_port_is_captured() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["tcp,0.0.0.0,8080", "tcp,0.0.0.0,8081", "udp,0.0.0.0,8080"];
    let options = ["--workers", "1", "--port", "8080/tcp"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(options)
        .ready();
    nth_line(&launcher, "opened", 1);

    client::spread(address("127.0.0.1:8080"), 10);
    client::spread(address("127.0.0.1:8081"), 10);

    let status = launcher.status();
    assert_eq!(status.groups().len(), 1, "{:?}", status.groups());
    status.assert_selected(8080, 10);
    assert!(binds_beside(Type::STREAM, "127.0.0.1:8080"));
    assert!(!binds_beside(Type::STREAM, "127.0.0.1:8081"));
    assert!(!binds_beside(Type::DGRAM, "127.0.0.1:8080"));
}

/// Whether a socket with `SO_REUSEPORT` can be bound here: not where a socket without it is.
fn binds_beside(kind: Type, to: &str) -> bool {
    let socket = Socket::new(Domain::IPV4, kind, None).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.bind(&address(to).into()).is_ok()
}

#[test]
fn a_port_chosen_by_the_kernel_is_left_alone() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["tcp,0.0.0.0,8080", "tcp,0.0.0.0,0"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(["--workers", "4"])
        .ready();
    nth_line(&launcher, "opened", 4);
    let status = launcher.status();
    assert_eq!(status.groups().len(), 1, "{:?}", status.groups());
    assert_eq!(status.counter(8080, "members"), 4);
}

#[test]
fn a_server_closes_and_listens_again() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::sockets(&["tcp,0.0.0.0,8080"]))
        .options(["--workers", "2"])
        .ready();
    let to = address("127.0.0.1:8080");
    let pids = [0, 1].map(|slot| launcher.status().pid(slot));
    client::spread(to, 10);
    assert_eq!(
        launcher.status().connections(),
        BTreeMap::from([(0, 5), (1, 5)])
    );

    // While it does not listen, the other worker gets everything.
    order(pids[0], Signal::SIGUSR1);
    nth_line(&launcher, "closed", 1);
    let answers = client::spread(to, 10);
    assert_eq!(answers, BTreeMap::from([(pids[1].to_string(), 10)]));
    assert_eq!(
        launcher.status().connections(),
        BTreeMap::from([(0, 5), (1, 15)])
    );

    order(pids[0], Signal::SIGUSR2);
    nth_line(&launcher, "opened", 3);
    let mut sent = 20;
    eventually("the new socket to get connections", || {
        sent += 2;
        client::spread(to, 2)
            .contains_key(&pids[0].to_string())
            .then_some(())
    });
    let answers = client::spread(to, 20);
    assert_eq!(answers, pids.map(|pid| (pid.to_string(), 10)).into());
    launcher.status().assert_selected(8080, sent + 20);
}

#[test]
fn the_only_server_closes_and_listens_again() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::sockets(&["tcp,0.0.0.0,8080"]))
        .options(["--workers", "1"])
        .ready();
    let to = address("127.0.0.1:8080");
    let pid = launcher.status().pid(0);
    client::spread(to, 5);

    // Who comes meanwhile waits.
    order(pid, Signal::SIGUSR1);
    nth_line(&launcher, "closed", 1);
    let waiting = TcpStream::connect(to).expect("the launcher's own socket listens");
    client::send(&waiting).expect("it is connected");
    order(pid, Signal::SIGUSR2);
    nth_line(&launcher, "opened", 2);
    let answer = client::receive(&waiting).expect("it is handed over");
    assert_eq!(answer.body, pid.to_string());

    let before = launcher.status();
    assert_eq!(before.counter(8080, "held_total"), 1);
    client::spread(to, 20);
    let selected = before.counter(8080, "selected_total");
    launcher.status().assert_selected(8080, selected + 20);
}

#[test]
fn listening_sockets_that_close_at_once_do_no_harm() {
    outlives_passing_sockets("tcp", 20);
}

#[test]
fn udp_sockets_on_many_ports_do_no_harm() {
    outlives_passing_sockets("udp", 60);
}

/// Runs ready workers of which one opens and closes so many sockets, one after the other.
#[track_caller]
fn outlives_passing_sockets(protocol: &str, count: u32) {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::passing(protocol, count))
        .options(["--workers", "2"])
        .ready();
    let pids = [0, 1].map(|slot| launcher.status().pid(slot));
    order(pids[0], Signal::SIGUSR1);
    // What the launcher is told it is told in order: it knows of the others by then.
    let status = launcher.status_when("the socket that stays", |status| {
        let mut groups = status.groups().iter();
        groups.any(|group| group["port"] == 8081 && group["members"] == 1)
    });
    for (slot, pid) in (0..).zip(pids) {
        let worker = status.worker(slot);
        assert_eq!(worker["state"], "ready", "{worker}");
        assert_eq!(status.pid(slot), pid);
    }
    let answers = client::spread(address("127.0.0.1:8080"), 20);
    assert_eq!(answers, pids.map(|pid| (pid.to_string(), 10)).into());
    launcher.status().assert_selected(8080, 20);
    assert_eq!(launcher.stop(), 0);
}

fn order(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("the worker runs");
}

/// Waits until a line of just this word was written `count` times by all workers together.
#[track_caller]
fn nth_line(launcher: &Launcher, word: &str, count: usize) {
    launcher.process.wait_until(word, |lines| {
        let seen = lines.iter().filter(|line| line.text == word).count();
        (seen >= count).then_some(())
    });
}
