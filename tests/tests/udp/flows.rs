//! Where flows stay, and where they do not.

use std::{
    collections::BTreeSet,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use kernel_tests::{
    client::address,
    flow::{Flow, answers, used},
    gate,
    launcher::{Launch, Launcher},
    procfs::Handle,
    servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{BOTH, flow_of, sum, v4, v6};

fn echoes(specs: &[&str], workers: u32, options: &[&str]) -> Launcher {
    let launcher = Launch::of(servers::sockets(specs))
        .options(["--workers", &workers.to_string()])
        .options(options)
        .ready();
    launcher.members(u64::from(workers) * specs.len() as u64);
    launcher
}

#[test]
fn flows_stay_where_they_are_while_workers_are_added() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = echoes(&BOTH, 2, &[]);
    let flows: Vec<Flow> = [v4(), v6()]
        .into_iter()
        .flat_map(|to| Flow::many(to, 64))
        .collect();
    let before = answers(&flows);

    launcher.scale(6);
    launcher.members(12);
    assert_eq!(answers(&flows), before);
    // The table sends two in three elsewhere: see what becomes of new flows.
    for to in [v4(), v6()] {
        let new = used(&Flow::many(to, 128));
        assert_eq!(new.len(), 6, "not every worker is used for {to}: {new:?}");
    }
    assert_eq!(sum(&launcher, "selected_total"), 2 * 128 + 2 * 128);
    assert_eq!(sum(&launcher, "fell_through_total"), 0);
    assert_eq!(sum(&launcher, "flows_now"), 128 + 2 * 128);
    assert_eq!(sum(&launcher, "flows_max"), 2 * 65_536);
    assert_eq!(sum(&launcher, "flows_evicted_total"), 0);
    launcher.stop_clean();
}

#[test]
fn an_unmodified_echo_server_keeps_its_clients() {
    for (spec, to) in [
        ("UDP4-RECVFROM:5353,fork", v4()),
        ("UDP6-RECVFROM:5353,fork,ipv6only", v6()),
    ] {
        let Some(_netns) = gate::enter(&["socat"]) else {
            return;
        };
        let launcher = Launch::of(servers::socat(spec))
            .options(["--workers", "2", "--steer", "source"])
            .ready();
        launcher.members(2);
        // One client: to this policy its flows belong together.
        let flows = Flow::many(to, 8);
        let before = used(&flows);
        assert_eq!(before.len(), 1, "{before:?}");
        launcher.scale(4);
        launcher.members(4);
        assert_eq!(used(&flows), before);
        launcher.status().assert_selected(5353, 16);
        assert_eq!(sum(&launcher, "flows_now"), 8);
        launcher.stop_clean();
    }
}

#[test]
fn without_a_time_out_datagrams_follow_the_table() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    for off in ["off", "0"] {
        let launcher = echoes(&["udp,0.0.0.0,5353"], 2, &["--udp-flow-timeout", off]);
        let flows = Flow::many(v4(), 64);
        let before = answers(&flows);
        launcher.scale(6);
        launcher.members(6);
        assert_ne!(answers(&flows), before);
        let status = launcher.status();
        for nothing in ["flows_now", "flows_max", "flows_evicted_total"] {
            assert!(status.group(5353)[nothing].is_null(), "{}", status.0);
        }
        launcher.stop_clean();
    }
}

#[test]
fn the_flows_of_a_killed_worker_go_to_others_and_stay_there() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = echoes(&BOTH, 3, &[]);
    let victim = Handle::of(launcher.status().pid(1));
    let moved: Vec<Flow> = [v4(), v6()]
        .into_iter()
        .map(|to| flow_of(to, &victim.pid().to_string()))
        .collect();
    victim.kill();
    victim.wait();
    let after = answers(&moved);
    assert!(!after.contains(&victim.pid().to_string()));
    // The replacement does not take them back.
    launcher.replaced(1, 2);
    launcher.members(6);
    assert_eq!(answers(&moved), after);
    launcher.stop_clean();
}

#[test]
fn the_flows_of_a_stalled_worker_go_to_others_at_once() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = echoes(
        &["tcp,0.0.0.0,8080", "udp,0.0.0.0,5353"],
        2,
        &["--stall-timeout", "500ms"],
    );
    let status = launcher.status();
    let [stuck, other] = [0, 1].map(|slot| status.pid(slot));
    let flow = flow_of(v4(), &stuck.to_string());
    let stuck = Pid::from_raw(stuck.cast_signed());
    kill(stuck, Signal::SIGSTOP).expect("the worker runs");
    // In turn, so one of them waits.
    let waiting = [(); 2].map(|()| TcpStream::connect(address("127.0.0.1:8080")));
    launcher.status_when("the stall", |status| status.state(0) == "stalled");
    assert_eq!(flow.ask(), other.to_string());
    drop(waiting);
    kill(stuck, Signal::SIGCONT).expect("the worker runs");
    launcher.status_when("the end of it", |status| status.all_ready(2));
    // It has a new home.
    assert_eq!(flow.ask(), other.to_string());
    launcher.stop_clean();
}

#[test]
fn a_full_flow_table_makes_room_and_says_so() {
    const FLOWS: u64 = 4_096;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let options = ["--udp-flows", "1024", "--udp-flow-timeout", "1h"];
    let launcher = echoes(&BOTH[1..], 2, &options);
    // A port that the kernel chooses may come again.
    for port in 20_000..20_000 + FLOWS {
        let client = address(&format!("[::1]:{port}"));
        Flow::from(client, v6()).ask();
    }
    launcher.status().assert_selected(5353, FLOWS);
    let status = launcher.status();
    let [now, max, evicted] = ["flows_now", "flows_max", "flows_evicted_total"]
        .map(|counter| status.counter(5353, counter));
    assert_eq!((now + evicted, max), (FLOWS, 1_024), "{}", status.0);
    assert!(now > 0 && now <= max, "{}", status.0);
    launcher.stop_clean();
}

#[test]
fn flows_outlive_the_launcher() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = echoes(&BOTH, 2, &[]);
    let flows: Vec<Flow> = [v4(), v6()]
        .into_iter()
        .flat_map(|to| Flow::many(to, 64))
        .collect();
    let before = answers(&flows);
    first.scale(6);
    first.members(12);
    first.process.signal(Signal::SIGKILL);
    first.process.wait();
    assert_eq!(answers(&flows), before);

    let second = Launch::of(servers::sockets(&BOTH))
        .options(["--workers", "6"])
        .at(&first.site)
        .ready();
    assert_eq!(answers(&flows), before);
    assert_eq!(sum(&second, "flows_now"), 128);
    // Twice: the second time from one that was gone over to.
    for _ in 0..2 {
        second.ask(&["upgrade"]);
        assert_eq!(answers(&flows), before);
    }
    assert_eq!(sum(&second, "flows_now"), 128);
    assert_eq!(sum(&second, "flows_evicted_total"), 0);
    assert_eq!(sum(&second, "fell_through_total"), 0);
    second.stop_clean();
}

/// The table changes 64 times while four clients ask: each question is answered.
#[test]
fn no_datagram_is_lost_when_tables_change() {
    const CLIENTS: u64 = 4;
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // So that flows follow each change.
    let launcher = echoes(&BOTH, 3, &["--udp-flow-timeout", "off"]);
    let done = AtomicBool::new(false);
    let (asked, homes) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let to = if number % 2 == 0 { v4() } else { v6() };
                let done = &done;
                scope.spawn(move || {
                    let flow = Flow::to(to);
                    let (mut asked, mut homes) = (0, BTreeSet::new());
                    while !done.load(Ordering::Relaxed) {
                        homes.insert(flow.ask());
                        asked += 1;
                    }
                    (asked, homes)
                })
            })
            .collect();
        for flip in 0..32 {
            let slot = (flip % 3).to_string();
            launcher.ask(&["drain", &slot]);
            launcher.ask(&["undrain", &slot]);
        }
        done.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .map(|client| client.join().expect("every question is answered"))
            .fold((0, 0), |(asked, homes), (more, by)| {
                (asked + more, homes.max(by.len()))
            })
    });
    assert!(homes > 1, "no flow ever moved");
    assert!(asked > 64, "hardly anything was asked");
    assert_eq!(sum(&launcher, "selected_total"), asked);
    for nothing in ["fell_through_total", "refused_total", "missed_total"] {
        assert_eq!(sum(&launcher, nothing), 0, "{nothing}");
    }
    launcher.stop_clean();
}
