//! Unmodified servers, none of which sets `SO_REUSEPORT`: 4 copies share a port, and each gets its
//! exact share, because the eBPF program chose for every connection.

use std::{collections::BTreeMap, fs};

use kernel_tests::{client, gate, launcher::Launch, say, servers};

const WORKERS: u64 = 4;
const REQUESTS: u64 = 400;
const PORT: u16 = 8080;

#[test]
fn node() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let answers = shares("node", servers::node(PORT), "[::1]:8080");
    assert_even(answers.into_iter(), "the answers");
}

#[test]
fn node_for_ipv4_clients_of_its_dual_stack_socket() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let answers = shares("node (IPv4 clients)", servers::node(PORT), "127.0.0.1:8080");
    assert_even(answers.into_iter(), "the answers");
}

#[test]
fn python() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    shares(
        "python3 -m http.server",
        servers::python(PORT),
        "127.0.0.1:8080",
    );
}

#[test]
fn nginx() {
    let Some(_netns) = gate::enter(&["nginx"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    shares(
        "nginx",
        servers::nginx(dir.path(), WORKERS as u32),
        "127.0.0.1:8080",
    );
}

#[test]
fn gunicorn() {
    let Some(_netns) = gate::enter(&["gunicorn"]) else {
        return;
    };
    let answers = shares("gunicorn", servers::gunicorn(PORT), "127.0.0.1:8080");
    assert_even(answers.into_iter(), "the answers");
}

#[test]
fn a_statically_linked_server() {
    let Some(_netns) = gate::enter(&["busybox"]) else {
        return;
    };
    let command = servers::busybox(PORT);
    let file = fs::read(&command[0]).expect("it can be executed, so it can be read by root");
    assert!(
        !has_interpreter(&file),
        "{} is dynamically linked",
        command[0]
    );
    shares("busybox httpd (static)", command, "127.0.0.1:8080");
}

/// Runs 4 workers, sends 400 requests and checks who got them. Returns how often each answer came.
#[track_caller]
fn shares(name: &str, command: Vec<String>, to: &str) -> BTreeMap<String, u64> {
    let workers = WORKERS.to_string();
    let launcher = Launch::of(command).options(["--workers", &workers]).start();
    launcher.ready();
    let before = launcher.status();
    assert_eq!(before.counter(PORT, "members"), WORKERS);

    let answers = client::spread(client::address(to), REQUESTS);

    let after = launcher.status();
    let grown = |counter| after.counter(PORT, counter) - before.counter(PORT, counter);
    let shares: Vec<u64> = after.connections().into_values().collect();
    say(&format!(
        "{name}: {WORKERS} workers, {REQUESTS} connections: {shares:?} (eBPF selected {}, fell through {})",
        grown("selected_total"),
        grown("fell_through_total"),
    ));
    assert_eq!(grown("selected_total"), REQUESTS);
    for counter in [
        "fell_through_total",
        "refused_total",
        "missed_total",
        "migrated_total",
    ] {
        assert_eq!(after.counter(PORT, counter), 0, "{counter}");
    }
    assert_even(
        after.connections().into_iter(),
        "the connections that the kernel counted",
    );
    assert_eq!(launcher.stop(), 0);
    answers
}

#[track_caller]
fn assert_even<K: std::fmt::Debug>(shares: impl Iterator<Item = (K, u64)>, what: &str) {
    let shares: Vec<(K, u64)> = shares.collect();
    let fair = REQUESTS / WORKERS;
    let even = shares.iter().all(|(_, share)| share.abs_diff(fair) <= 1);
    assert!(
        even && shares.len() as u64 == WORKERS,
        "{what} are uneven: {shares:?}"
    );
}

/// Whether an ELF file asks for a dynamic linker (`PT_INTERP`; elf(5), 64-bit little-endian).
fn has_interpreter(file: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let bytes = |at: usize, length: usize| file.get(at..at + length).unwrap_or_default();
    let number = |at, length| {
        bytes(at, length)
            .iter()
            .rev()
            .fold(0u64, |number, &byte| number << 8 | u64::from(byte))
    };
    assert_eq!(bytes(0, 5), b"\x7fELF\x02", "not a 64-bit ELF file");
    let [table, size, count] = [number(0x20, 8), number(0x36, 2), number(0x38, 2)];
    (0..count).any(|entry| number((table + entry * size) as usize, 4) == u64::from(PT_INTERP))
}
