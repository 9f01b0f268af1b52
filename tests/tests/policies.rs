//! Policies: how connections and datagrams are dealt out, and what becomes of those that wait at a
//! worker that dies.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use kernel_tests::{
    client::{self, address},
    eventually,
    flow::Flow,
    gate,
    launcher::Launch,
    servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

#[test]
fn round_robin_is_exact_for_concurrent_clients() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(servers::node(8080))
        .options(["--workers", "4"])
        .ready();
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
    status.assert_selected(8080, 400);
}

#[test]
fn hash_keeps_a_tcp_flow_with_its_worker() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let options = ["--workers", "4", "--steer", "hash"];
    let launcher = Launch::of(servers::node(8080)).options(options).ready();
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
    launcher.status().assert_selected(8080, 230);
}

/// Makes a connection from this port, and ends it so that the same can be made again at once.
fn connect_and_reset(to: SocketAddr, from_port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let from = SocketAddr::from(([127, 0, 0, 1], from_port)).into();
    // A process that another test's thread has forked has the last socket open until its exec.
    eventually("the port to be free again", || socket.bind(&from).ok());
    socket
        .connect_timeout(&to.into(), client::TIMEOUT)
        .expect("a worker listens");
    socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
}

#[test]
fn the_kernels_own_hash_counts_nothing() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let options = ["--workers", "4", "--steer", "kernel"];
    let launcher = Launch::of(servers::node(8080)).options(options).ready();
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
fn connections_that_wait_at_a_killed_worker_move() {
    const WAITING: u64 = 10;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let command = servers::sockets(&["tcp,0.0.0.0,8080"]);
    let launcher = Launch::of(command).options(["--workers", "2"]).ready();
    let to = address("127.0.0.1:8080");
    let status = launcher.status();
    let [stuck, survivor] = [0, 1].map(|slot| Pid::from_raw(status.pid(slot).cast_signed()));

    // Both stand still, so that the kernel alone accepts: each gets half.
    for worker in [stuck, survivor] {
        kill(worker, Signal::SIGSTOP).expect("the worker runs");
    }
    let connect = |_| {
        let connection =
            TcpStream::connect_timeout(&to, client::TIMEOUT).expect("the kernel accepts");
        client::send(&connection).expect("the kernel takes it");
        connection
    };
    let waiting: Vec<TcpStream> = (0..WAITING).map(connect).collect();
    assert_eq!(launcher.status().connections(), [(0, 5), (1, 5)].into());

    kill(stuck, Signal::SIGKILL).expect("the worker runs");
    launcher.status_when("the queue to move", |status| {
        status.counter(8080, "migrated_total") == WAITING / 2
    });
    kill(survivor, Signal::SIGCONT).expect("the worker runs");
    // Kernels without the fix of CVE-2026-46015 do not wake the survivor for what has moved.
    client::spread(to, 4);
    for connection in waiting {
        let response = client::receive(&connection).expect("the survivor answers");
        assert_eq!(response.body, survivor.to_string());
    }
    assert_eq!(launcher.status().counter(8080, "fell_through_total"), 0);
}

#[test]
fn udp_flows_stay_with_their_workers_by_default() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = ["udp,0.0.0.0,5353", "udp,::1,5354"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(["--workers", "4"])
        .ready();
    launcher.members(8);
    for to in ["127.0.0.1:5353", "[::1]:5354"] {
        let mut used = BTreeSet::new();
        for _ in 0..64 {
            let flow = Flow::to(address(to));
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
    status.assert_selected(5353, 320);
    status.assert_selected(5354, 320);
    assert_eq!(status.group(5353)["protocol"], "udp");
}

#[test]
fn round_robin_deals_out_datagrams_one_by_one() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let options = ["--workers", "4", "--steer", "round-robin"];
    let launcher = Launch::of(servers::sockets(&["udp,0.0.0.0,5353"]))
        .options(options)
        .ready();
    let flow = Flow::to(address("127.0.0.1:5353"));
    let answers: Vec<String> = (0..16).map(|_| flow.ask()).collect();
    let (first, rest) = answers.split_at(4);
    let different: BTreeSet<_> = first.iter().collect();
    assert_eq!(different.len(), 4, "{answers:?}");
    assert!(
        rest.chunks(4).all(|round| round == first),
        "not in turn: {answers:?}"
    );
    launcher.status().assert_selected(5353, 16);
}
