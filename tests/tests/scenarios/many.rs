//! Many workers, and many ports.

use std::{collections::BTreeMap, fs};

use kernel_tests::{
    client::{self, address},
    dns, gate,
    launcher::Launch,
    servers,
};

use crate::groups;

/// The most that a fleet can have.
const MANY: u64 = 256;

#[test]
fn each_of_256_name_servers_takes_its_turn_in_each_of_four_groups() {
    const ROUNDS: u64 = 2;
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let options = ["--workers", &MANY.to_string(), "--steer", "round-robin"];
    let launcher = Launch::of(servers::dnsmasq(53)).options(options).start();
    launcher.members(4 * MANY);
    launcher.ready();
    for (transport, bound, to) in groups() {
        let served = dns::spread(transport, to, ROUNDS * MANY);
        let even: BTreeMap<u64, u64> = (0..MANY).map(|slot| (slot, ROUNDS)).collect();
        assert_eq!(served, even, "{transport} {to}");
        let status = launcher.status();
        status.assert_selected_at(&transport.to_string(), bound, ROUNDS * MANY);
    }
    launcher.stop_clean();
}

#[test]
fn the_hash_reaches_each_of_256_web_servers() {
    // That one of 256 gets none of these has a probability of 256 × (255/256)^5000, below 10^-6,
    // were the table's shares equal; they are within two percent of that.
    const ASKED: u64 = 5000;
    let Some(_netns) = gate::enter(&["busybox"]) else {
        return;
    };
    // Each serves a directory of its own, with its slot in it.
    let dir = tempfile::tempdir().expect("a temporary directory");
    for slot in 0..MANY {
        let own = dir.path().join(slot.to_string());
        fs::create_dir(&own).expect("a new temporary directory");
        fs::write(own.join("index.html"), slot.to_string()).expect("a new directory");
    }
    let options = ["--workers", &MANY.to_string(), "--steer", "hash"];
    let launcher = Launch::of(servers::busybox_in(8080, dir.path()))
        .options(options)
        .start();
    launcher.members(MANY);
    launcher.ready();
    let served = client::spread(address("127.0.0.1:8080"), ASKED);
    let slots: Vec<u64> = (0..MANY).collect();
    let mut reached: Vec<u64> = served.keys().filter_map(|body| body.parse().ok()).collect();
    reached.sort_unstable();
    assert_eq!(reached, slots, "{served:?}");
    launcher.status().assert_selected(8080, ASKED);
    launcher.stop_clean();
}

#[test]
fn twenty_ports_of_one_server_are_twenty_groups() {
    const WORKERS: u32 = 4;
    const PORTS: std::ops::Range<u16> = 8080..8100;
    const ROUNDS: u64 = 3;
    let Some(_netns) = gate::enter(&["nginx"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let servers: String = PORTS
        .map(|port| format!("server {{ listen {port}; return 200 \"{port} $pid\"; }}\n"))
        .collect();
    let launcher = Launch::of(servers::nginx_with(dir.path(), WORKERS, &servers))
        .options(["--workers", &WORKERS.to_string(), "--steer", "round-robin"])
        .ready();
    let members = u64::from(WORKERS) * PORTS.len() as u64;
    launcher.members(members);
    let count = ROUNDS * u64::from(WORKERS);
    for asked in 1..=2 {
        for port in PORTS {
            let served = client::spread(([127, 0, 0, 1], port).into(), count);
            let right = served
                .iter()
                .all(|(body, &count)| body.starts_with(&format!("{port} ")) && count == ROUNDS);
            assert!(
                right && served.len() == WORKERS as usize,
                "{port}: {served:?}"
            );
            launcher.status().assert_selected(port, asked * count);
        }
        if asked == 1 {
            // All of them have other members then.
            launcher.reload();
            launcher.members(members);
        }
    }
    launcher.stop_clean();
}

#[test]
fn a_full_group_says_so_and_serves_on() {
    const WORKERS: u64 = 5;
    const SOCKETS: u64 = 206;
    // The table's limit: 1024 members.
    const MEMBERS: u64 = 1024;
    const _: () = assert!(WORKERS * SOCKETS > MEMBERS);
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let specs = vec!["tcp,0.0.0.0,8080,reuseport"; SOCKETS as usize];
    let options = ["--workers", &WORKERS.to_string(), "--steer", "round-robin"];
    let launcher = Launch::of(servers::sockets(&specs))
        .options(options)
        .ready();
    launcher
        .process
        .wait_until("a warning for each socket beyond", |lines| {
            let warned = "on tcp 0.0.0.0:8080: the group has its 1024 members already";
            let warnings = lines.iter().filter(|line| line.text.contains(warned));
            (warnings.count() as u64 == WORKERS * SOCKETS - MEMBERS).then_some(())
        });
    launcher.members(MEMBERS);
    // One turn of each member.
    let served = client::spread(address("127.0.0.1:8080"), MEMBERS);
    let left_out: u64 = served.values().map(|&count| SOCKETS - count).sum();
    assert_eq!(left_out, WORKERS * SOCKETS - MEMBERS, "{served:?}");
    launcher.status().assert_selected(8080, MEMBERS);
    launcher.stop_clean();
}
