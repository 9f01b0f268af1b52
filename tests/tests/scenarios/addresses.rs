//! Wildcard against specific addresses: who asks for an address that a group has gets that group, and
//! only others get the wildcard's. Each is a group with a program and a table of its own.

use std::{collections::BTreeMap, net::SocketAddr, process::Command};

use kernel_tests::{
    client::{self, address},
    dns::Transport::{self, Tcp, Udp},
    gate,
    launcher::{Launch, Launcher},
    servers,
    status::Status,
};
use serde_json::Value;

const WORKERS: u64 = 4;
/// How many clients ask at each address; each worker is to get its share.
const ASKED: u64 = 20;

/// Where clients ask, and the group that is to be chosen: with all of them, of both protocols.
const ALL: [(&str, &str); 4] = [
    ("127.0.0.1:8080", "127.0.0.1:8080"),
    ("127.0.0.2:8080", "0.0.0.0:8080"),
    ("[::1]:8080", "[::1]:8080"),
    ("[fd00::1]:8080", "[::]:8080"),
];

/// An address of this machine's that no server binds.
fn add_address() {
    let mut ip = Command::new(gate::path_of("ip"));
    let added = ip.args(["address", "add", "fd00::1/128", "dev", "lo", "nodad"]);
    assert!(
        added.status().is_ok_and(|status| status.success()),
        "{ip:?}"
    );
}

/// A fleet of a server with these sockets, of both protocols, on port 8080. It sets `SO_REUSEPORT`
/// itself: else the kernel would not let one process have both a wildcard and a specific address.
#[track_caller]
fn fleet(addresses: &[&str]) -> Launcher {
    let specs: Vec<String> = ["tcp", "udp"]
        .iter()
        .flat_map(|protocol| {
            let spec = move |address| format!("{protocol},{address},8080,reuseport");
            addresses.iter().map(spec)
        })
        .collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let options = ["--workers", &WORKERS.to_string(), "--steer", "round-robin"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(options)
        .ready();
    launcher.members(WORKERS * specs.len() as u64);
    launcher
}

/// Asks at each address, and checks that all workers have answered, and no other group was asked.
#[track_caller]
fn check(launcher: &Launcher, asked_at: &[(&str, &str)]) {
    let mut expected = BTreeMap::new();
    for transport in [Tcp, Udp] {
        for &(to, bound) in asked_at {
            let served = spread(transport, to);
            let even = served.values().all(|&count| count == ASKED / WORKERS);
            assert!(
                even && served.len() as u64 == WORKERS,
                "{transport} {to}: {served:?}"
            );
            *expected.entry(format!("{transport} {bound}")).or_default() += ASKED;
            assert_eq!(
                selected(&launcher.status()),
                expected,
                "after {transport} {to}"
            );
        }
    }
}

fn spread(transport: Transport, to: &str) -> BTreeMap<String, u64> {
    match transport {
        Tcp => client::spread(address(to), ASKED),
        Udp => {
            let mut counts = BTreeMap::new();
            for _ in 0..ASKED {
                let answer = client::ask_udp(address(to));
                let pid = answer.unwrap_or_else(|error| panic!("udp {to}: {error}"));
                *counts.entry(pid).or_default() += 1;
            }
            counts
        }
    }
}

/// What each group's program has chosen for, where that is anything; nothing must have been left to the
/// kernel's hash.
#[track_caller]
fn selected(status: &Status) -> BTreeMap<String, u64> {
    let group = |group: &Value| {
        assert_eq!(group["fell_through_total"], 0, "{group}");
        let text = |name: &str| group[name].as_str().expect("a text").to_owned();
        let ip = text("address").parse().expect("an address");
        let port = group["port"].as_u64().and_then(|port| port.try_into().ok());
        let at = SocketAddr::new(ip, port.expect("a port"));
        let selected = group["selected_total"].as_u64().expect("it is counted");
        (selected > 0).then(|| (format!("{} {at}", text("protocol")), selected))
    };
    status.groups().iter().filter_map(group).collect()
}

#[test]
fn the_most_specific_group_is_asked() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    add_address();
    // The IPv6 wildcard would take IPv4 clients, too, were nobody else there for them.
    let launcher = fleet(&["::", "0.0.0.0", "127.0.0.1", "::1"]);
    check(&launcher, &ALL);
    launcher.stop_clean();
}

#[test]
fn the_order_of_binding_makes_no_difference() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    add_address();
    let launcher = fleet(&["::1", "127.0.0.1", "0.0.0.0", "::"]);
    check(&launcher, &ALL);
    launcher.stop_clean();
}

#[test]
fn a_dual_stack_wildcard_takes_what_no_other_group_does() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    add_address();
    let launcher = fleet(&["::", "127.0.0.1", "::1"]);
    let asked_at = [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("127.0.0.2:8080", "[::]:8080"),
        ("[::1]:8080", "[::1]:8080"),
        ("[fd00::1]:8080", "[::]:8080"),
    ];
    check(&launcher, &asked_at);
    launcher.stop_clean();
}

#[test]
fn nginx_with_a_wildcard_and_specific_addresses() {
    let Some(_netns) = gate::enter(&["nginx"]) else {
        return;
    };
    add_address();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // With `reuseport`, nginx binds each, instead of finding out behind the wildcard what was meant.
    let servers: String = ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "[::1]:8080"]
        .map(|bound| {
            let flags = if bound == "[::]:8080" {
                "ipv6only=on"
            } else {
                ""
            };
            format!("server {{ listen {bound} reuseport {flags}; return 200 \"{bound} $pid\"; }}\n")
        })
        .concat();
    let copies = u32::try_from(WORKERS).expect("few");
    let launcher = Launch::of(servers::nginx_with(dir.path(), copies, &servers))
        .options(["--workers", &WORKERS.to_string()])
        .ready();
    launcher.members(WORKERS * 4);
    for (to, bound) in ALL {
        let served = client::spread(address(to), ASKED);
        let right = served.iter().all(|(body, &count)| {
            body.starts_with(&format!("{bound} ")) && count == ASKED / WORKERS
        });
        assert!(right && served.len() as u64 == WORKERS, "{to}: {served:?}");
        launcher
            .status()
            .assert_selected_at("tcp", address(bound), ASKED);
    }
    launcher.stop_clean();
}
