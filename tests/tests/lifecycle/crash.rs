//! Sudden deaths of workers that had been serving.

use std::process::Command;

use kernel_tests::{
    cgroup, client, eventually, gate,
    launcher::Launch,
    procfs::{self, Handle},
    scripts, servers,
};
use nix::sys::signal::Signal;

use crate::count;

const PORT: u16 = 8080;

#[test]
fn a_killed_worker_is_replaced_while_the_others_serve() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let address = client::address("127.0.0.1:8080");
    let launcher = Launch::of(servers::node(PORT))
        .options(["--workers", "4"])
        .ready();
    let before = launcher.status();
    let victim = Handle::of(before.pid(1));
    victim.kill();

    // The kernel has taken its socket out of the group; the launcher may not even know yet.
    let meanwhile = client::spread(address, 40);
    assert!(!meanwhile.contains_key(&victim.pid().to_string()));
    let after = launcher.status_when("the replacement", |status| status.is_ready(1, 2));
    for slot in 0..4 {
        let (old, new) = (before.worker(slot), after.worker(slot));
        let restarts = u64::from(slot == 1);
        assert_eq!(new["restarts"], restarts, "{new}");
        assert_eq!(new["generation"], 1 + restarts, "{new}");
        assert_eq!(new["pid"] == old["pid"], slot != 1, "{old} {new}");
        assert_eq!(new["state"], "ready", "{new}");
    }

    let settled = client::spread(address, 40);
    let pids: Vec<String> = (0..4).map(|slot| after.pid(slot).to_string()).collect();
    for pid in &pids {
        let served = settled.get(pid).copied().unwrap_or_default();
        assert!((9..=11).contains(&served), "{settled:?} of {pids:?}");
    }
    let end = launcher.status();
    let grown = |name| end.counter(PORT, name) - before.counter(PORT, name);
    assert_eq!(grown("selected_total"), 80);
    assert_eq!(grown("fell_through_total"), 0);
    assert_eq!(grown("refused_total"), 0);
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_worker_killed_by_a_real_time_signal_is_replaced_as_well() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let launcher = Launch::of(servers::python(PORT))
        .options(["--workers", "2"])
        .ready();
    let victim = Handle::of(launcher.status().pid(0));
    let killed = Command::new(gate::path_of("sh"))
        .args(["-c", "kill -40 \"$0\"", &victim.pid().to_string()])
        .status();
    assert!(killed.is_ok_and(|status| status.success()));
    victim.wait();
    launcher
        .process
        .wait_for("the word on it", |line| line.contains("signal 40"));
    launcher.status_when("the replacement", |status| status.is_ready(0, 2));
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}

#[test]
fn processes_that_a_killed_master_leaves_are_killed() {
    let Some(_netns) = gate::enter(&["nginx"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let launcher = Launch::of(servers::nginx(dir.path(), 2))
        .options(["--workers", "2"])
        .ready();
    let fleet = launcher.site.cgroup().expect("the launcher has found it");
    let master = Handle::of(launcher.status().pid(0));
    // They hold the listening socket, and would go on serving without a master.
    let children: Vec<Handle> = cgroup::processes(&fleet.join("0.1"))
        .into_iter()
        .filter(|&pid| pid != master.pid())
        .map(Handle::of)
        .collect();
    assert_eq!(children.len(), 2);
    master.kill();
    launcher.process.wait_for("the word on them", |line| {
        line.contains("worker 0.1 left processes behind")
    });
    children.iter().for_each(Handle::wait);
    launcher.status_when("the replacement", |status| status.is_ready(0, 2));
    let served = client::spread(client::address("127.0.0.1:8080"), 20);
    let of_slot = |worker: &str| {
        let pids = cgroup::processes(&fleet.join(worker));
        let served = pids.iter().filter_map(|pid| served.get(&pid.to_string()));
        served.copied().reduce(|sum, count| sum + count)
    };
    assert_eq!(
        [of_slot("0.2"), of_slot("1.1")],
        [Some(10), Some(10)],
        "{served:?}"
    );
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn orphans_are_adopted_and_reaped() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::orphans())
        .options(["--workers", "2"])
        .start();
    launcher.process.wait_until("40 orphans", |lines| {
        (count(lines, |line| line == "adopted") == 40).then_some(())
    });
    let pid = launcher.process.pid();
    eventually("the launcher to reap them", || {
        let children = procfs::children(pid);
        let zombies = children
            .iter()
            .filter(|&&child| procfs::status(child, "State").starts_with('Z'));
        (zombies.count() == 0).then_some(())
    });
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}
