//! Groups: the sockets that share protocol, address and port, whatever these are; and how each
//! policy deals out what comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, UdpSocket},
    thread,
};

use kernel_tests::{
    client::{self, address},
    eventually, gate,
    launcher::{Launch, Launcher},
    servers,
    status::Status,
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
    let launcher = started(servers::sockets(&specs), &["--workers", "4"]);
    assert_eq!(launcher.status().groups().len(), specs.len());

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
        assert_selected(&status, port, 40);
    }
}

#[test]
fn two_families_on_one_port_are_two_groups() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["tcp,0.0.0.0,8080", "tcp,::,8080,v6only"];
    let launcher = started(servers::sockets(&specs), &["--workers", "2"]);

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
    let launcher = started(servers::sockets(&specs), &options);

    client::spread(address("127.0.0.1:8080"), 10);
    client::spread(address("127.0.0.1:8081"), 10);

    let status = launcher.status();
    assert_eq!(status.groups().len(), 1, "{:?}", status.groups());
    assert_selected(&status, 8080, 10);
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
    let launcher = started(servers::sockets(&specs), &["--workers", "4"]);
    let status = launcher.status();
    assert_eq!(status.groups().len(), 1, "{:?}", status.groups());
    assert_eq!(status.counter(8080, "members"), 4);
}

#[test]
fn a_server_closes_and_listens_again() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = started(servers::sockets(&["tcp,0.0.0.0,8080"]), &["--workers", "2"]);
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
    assert_selected(&launcher.status(), 8080, sent + 20);
}

#[test]
fn the_only_server_closes_and_listens_again() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = started(servers::sockets(&["tcp,0.0.0.0,8080"]), &["--workers", "1"]);
    let to = address("127.0.0.1:8080");
    let pid = launcher.status().pid(0);
    client::spread(to, 5);

    // The group ends with its last socket, and the kernel forgets its program.
    order(pid, Signal::SIGUSR1);
    nth_line(&launcher, "closed", 1);
    let refused = client::get(to).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    order(pid, Signal::SIGUSR2);
    nth_line(&launcher, "opened", 2);
    let mut sent = 0;
    eventually("the new socket to be steered to", || {
        sent += 1;
        client::spread(to, 1);
        (launcher.status().counter(8080, "selected_total") > 5).then_some(())
    });
    let selected = launcher.status().counter(8080, "selected_total");
    client::spread(to, 20);
    assert_selected(&launcher.status(), 8080, selected + 20);
}

#[test]
fn round_robin_is_exact_for_concurrent_clients() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = started(servers::node(8080), &["--workers", "4"]);
    let clients: Vec<_> = (0..8)
        .map(|_| thread::spawn(|| client::spread(address("127.0.0.1:8080"), 50)))
        .collect();
    for client in clients {
        client.join().expect("every request is answered");
    }
    let status = launcher.status();
    assert_eq!(
        status.connections(),
        (0..4).map(|slot| (slot, 100)).collect()
    );
    assert_selected(&status, 8080, 400);
}

#[test]
fn hash_keeps_a_tcp_flow_with_its_worker() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let options = ["--workers", "4", "--steer", "hash"];
    let launcher = started(servers::node(8080), &options);
    let to = address("127.0.0.1:8080");

    let mut before = launcher.status().connections();
    for port in 20_000..20_010 {
        for _ in 0..3 {
            connect_and_reset(to, port);
        }
        let after = launcher.status().connections();
        let got: Vec<u64> = after
            .iter()
            .map(|(slot, total)| total - before[slot])
            .filter(|&new| new > 0)
            .collect();
        assert_eq!(
            got,
            [3],
            "connections from port {port} go to different workers"
        );
        before = after;
    }

    // Each of these has a port of its own.
    let answers = client::spread(to, 200);
    assert_eq!(answers.len(), 4, "not every worker is used: {answers:?}");
    assert_selected(&launcher.status(), 8080, 230);
}

/// Makes a connection from this port, and ends it so that the same can be made again at once.
fn connect_and_reset(to: SocketAddr, from_port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], from_port)).into())
        .expect("the port is free in this namespace");
    socket
        .connect_timeout(&to.into(), client::TIMEOUT)
        .expect("a worker listens");
    socket
        .set_linger(Some(std::time::Duration::ZERO))
        .expect("SO_LINGER");
}

#[test]
fn the_kernels_own_hash_counts_nothing() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let options = ["--workers", "4", "--steer", "kernel"];
    let launcher = started(servers::node(8080), &options);
    let answers = client::spread(address("127.0.0.1:8080"), 200);
    assert_eq!(answers.len(), 4, "not every worker is used: {answers:?}");

    let status = launcher.status();
    assert_eq!(status.0["steering"]["policy"], "kernel");
    assert_eq!(status.group(8080)["members"], 4);
    for counter in ["selected_total", "migrated_total", "fell_through_total"] {
        assert!(status.group(8080)[counter].is_null(), "{}", status.0);
    }
    for worker in status.workers() {
        assert!(worker["connections_total"].is_null(), "{worker}");
    }
}

#[test]
fn udp_flows_stay_with_their_workers_by_default() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["udp,0.0.0.0,5353", "udp,::1,5354"];
    let launcher = started(servers::sockets(&specs), &["--workers", "4"]);
    for (from, to) in [("127.0.0.1:0", "127.0.0.1:5353"), ("[::1]:0", "[::1]:5354")] {
        let mut used = BTreeSet::new();
        for _ in 0..64 {
            let flow = UdpFlow::new(from, to);
            let answers: BTreeSet<String> = (0..5).map(|_| flow.ask()).collect();
            assert_eq!(
                answers.len(),
                1,
                "a flow to {to} was torn apart: {answers:?}"
            );
            used.extend(answers);
        }
        assert_eq!(used.len(), 4, "not every worker is used");
    }
    let status = launcher.status();
    assert_selected(&status, 5353, 320);
    assert_selected(&status, 5354, 320);
    assert_eq!(status.group(5353)["protocol"], "udp");
}

#[test]
fn round_robin_deals_out_datagrams_one_by_one() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let options = ["--workers", "4", "--steer", "round-robin"];
    let launcher = started(servers::sockets(&["udp,0.0.0.0,5353"]), &options);
    let flow = UdpFlow::new("127.0.0.1:0", "127.0.0.1:5353");
    let answers: Vec<String> = (0..16).map(|_| flow.ask()).collect();
    let (first, rest) = answers.split_at(4);
    let different: BTreeSet<_> = first.iter().collect();
    assert_eq!(different.len(), 4, "{answers:?}");
    assert!(
        rest.chunks(4).all(|round| round == first),
        "not in turn: {answers:?}"
    );
    assert_selected(&launcher.status(), 5353, 16);
}

/// A client's socket that talks to one server.
struct UdpFlow(UdpSocket);

impl UdpFlow {
    fn new(from: &str, to: &str) -> Self {
        let socket = UdpSocket::bind(from).expect("loopback");
        socket.connect(to).expect("loopback");
        socket
            .set_read_timeout(Some(client::TIMEOUT))
            .expect("a timeout");
        Self(socket)
    }

    fn ask(&self) -> String {
        let mut answer = [0; 64];
        self.0.send(b"?").expect("loopback");
        let length = self
            .0
            .recv(&mut answer)
            .expect("loopback loses nothing this small");
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}

/// Starts a launcher and waits until all its workers are ready.
#[track_caller]
fn started(command: Vec<String>, options: &[&str]) -> Launcher {
    let launcher = Launch::of(command).options(options).start();
    launcher.ready();
    launcher
}

/// The program, and nothing else, chose for `expected` connections or datagrams in all.
#[track_caller]
fn assert_selected(status: &Status, port: u16, expected: u64) {
    assert_eq!(
        status.counter(port, "selected_total"),
        expected,
        "{}",
        status.0
    );
    assert_eq!(
        status.counter(port, "fell_through_total"),
        0,
        "{}",
        status.0
    );
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
