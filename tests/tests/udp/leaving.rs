//! Workers that go: their flows stay with them until they are idle, and new ones go to others.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use kernel_tests::{
    flow::{Flow, used},
    gate,
    launcher::{Launch, Launcher},
    servers,
};
use nix::sys::signal::Signal;

use crate::{BOTH, IDLE, flow_of, sum, v4, v6};

fn echoes(workers: u32, options: &[&str]) -> Launcher {
    let idle = format!("{}s", IDLE.as_secs());
    let launcher = Launch::of(servers::sockets(&BOTH))
        .options(["--workers", &workers.to_string()])
        .options(["--udp-flow-timeout", &idle])
        .options(options)
        .ready();
    launcher.members(2 * u64::from(workers));
    launcher
}

/// Asks on these flows all the while something is done, and returns who answered.
fn talking<T>(flows: &[Flow], action: impl FnOnce() -> T) -> (T, BTreeSet<String>) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut answered = used(flows);
            while !done.load(Ordering::Relaxed) {
                answered.extend(used(flows));
            }
            answered
        });
        let result = action();
        done.store(true, Ordering::Relaxed);
        (result, talk.join().expect("every question is answered"))
    })
}

/// Whether this process is a worker in this state.
fn is(launcher: &Launcher, pid: &str, state: &str) -> bool {
    let status = launcher.status();
    let mut workers = status.workers().iter();
    let pid: u32 = pid.parse().expect("a process id");
    workers.any(|worker| worker["pid"] == pid && worker["state"] == state)
}

#[test]
fn a_drained_worker_keeps_its_flows_until_they_are_idle() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = echoes(2, &[]);
    let drained = launcher.status().pid(0).to_string();
    for to in [v4(), v6()] {
        let flow = [flow_of(to, &drained)];
        let (drain, answered) = talking(&flow, || {
            let drain = launcher.begin(&["drain", "0"]);
            launcher.status_when("the drain", |status| status.state(0) == "draining");
            for _ in 0..2 {
                let new = used(&Flow::many(to, 32));
                assert!(!new.contains(&drained), "{new:?}");
            }
            drain
        });
        assert_eq!(answered, BTreeSet::from([drained.clone()]));
        assert!(is(&launcher, &drained, "draining"));
        assert_eq!(drain.finish().success(), "");
        assert_eq!(launcher.status().state(0), "drained");
        // It was idle by then, or it would not have been drained.
        assert_ne!(flow[0].ask(), drained);
        launcher.ask(&["undrain", "0"]);
    }
    assert_eq!(sum(&launcher, "fell_through_total"), 0);
    launcher.stop_clean();
}

#[test]
fn a_reload_waits_for_flows() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = echoes(2, &["--max-surge", "2"]);
    let before = launcher.status().pids();
    let old: Vec<String> = before.iter().map(ToString::to_string).collect();
    let flows: Vec<Flow> = old.iter().map(|pid| flow_of(v6(), pid)).collect();
    let (reload, answered) = talking(&flows, || {
        let reload = launcher.begin(&["reload"]);
        launcher.status_when("the replacements", |status| {
            status.is_ready(0, 2) && status.is_ready(1, 2)
        });
        launcher.members(8);
        // There is time for this while the old ones drain.
        for to in [v4(), v6()] {
            let new = used(&Flow::many(to, 32));
            assert!(old.iter().all(|pid| !new.contains(pid)), "{new:?}");
        }
        reload
    });
    assert_eq!(answered, old.iter().cloned().collect());
    for pid in &old {
        assert!(is(&launcher, pid, "draining"));
    }
    assert_eq!(reload.finish().success(), "");
    let after = used(&flows);
    assert!(after.iter().all(|pid| !old.contains(pid)), "{after:?}");
    assert_eq!(sum(&launcher, "fell_through_total"), 0);
    launcher.stop_clean();
}

#[test]
fn scaling_down_waits_for_flows_no_longer_than_it_may() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let options = ["--drain-timeout", "1s", "--udp-flow-timeout", "1h"];
    let launcher = Launch::of(servers::sockets(&BOTH))
        .options(["--workers", "2"])
        .options(options)
        .ready();
    launcher.members(4);
    let leaving = launcher.status().pid(1).to_string();
    let flow = flow_of(v4(), &leaving);
    let scale = launcher.begin(&["scale", "1"]);
    launcher.status_when("the drain", |_| is(&launcher, &leaving, "draining"));
    assert_eq!(scale.finish().success(), "");
    assert_eq!(flow.ask(), launcher.status().pid(0).to_string());
    launcher.stop_clean();
}

#[test]
fn a_stop_waits_for_no_flow() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let options = ["--udp-flow-timeout", "1h", "--stop-timeout", "1h"];
    let launcher = Launch::of(servers::sockets(&BOTH))
        .options(["--workers", "2"])
        .options(options)
        .ready();
    launcher.members(4);
    let _used = used(&Flow::many(v4(), 16));
    assert_eq!(sum(&launcher, "flows_now"), 16);
    // It could wait for half an hour.
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}
