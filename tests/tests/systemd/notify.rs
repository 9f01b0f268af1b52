//! What the service manager is told of a fleet of real servers.

use std::fs;

use kernel_tests::{gate, launcher::Launch, manager::Manager, servers};
use nix::sys::signal::Signal;

fn fleet(manager: &Manager) -> Launch {
    manager.of(Launch::of(servers::node(8080)).options(["--workers", "2"]))
}

/// The variables that a process was started with.
#[track_caller]
fn environment(pid: u64) -> String {
    let bytes = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    String::from_utf8_lossy(&bytes).replace('\0', "\n")
}

#[test]
fn it_is_told_of_the_start_reloads_and_the_stop() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let manager = Manager::of_file();
    let launcher = fleet(&manager).start();
    manager.told([
        "STATUS=0 of 2 workers ready",
        "STATUS=2 of 2 workers ready",
        "READY=1",
    ]);

    let before = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    launcher.process.signal(Signal::SIGHUP);
    let [_, begun, ..] = manager.told([
        "RELOADING=1",
        "MONOTONIC_USEC=",
        "STATUS=2 of 2 workers ready, reload: ",
        "READY=1",
    ]);
    let begun: i64 = begun["MONOTONIC_USEC=".len()..].parse().expect("a number");
    assert!(
        begun >= before.tv_sec * 1_000_000 + before.tv_nsec / 1000,
        "{begun}"
    );

    launcher.reload();
    manager.told(["RELOADING=1", "READY=1"]);
    launcher.scale(1);
    manager.told(["STATUS=1 of 1 worker ready"]);

    launcher.stop_clean();
    manager.told(["STOPPING=1"]);
    let heard = manager.heard();
    let count = |line: &str| heard.iter().filter(|heard| *heard == line).count();
    assert_eq!(count("READY=1"), 3, "{heard:#?}");
    assert_eq!(count("RELOADING=1"), 2, "{heard:#?}");
    assert_eq!(count("STOPPING=1"), 1, "{heard:#?}");
    assert!(!heard.iter().any(|line| line.starts_with("WATCHDOG")));
}

#[test]
fn a_reload_that_fails_ends_for_it_as_well() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("env");
    fs::write(&file, "A=1\n").expect("written");
    let manager = Manager::of_file();
    let launcher = fleet(&manager)
        .options(["--env-file".as_ref(), file.as_os_str()])
        .start();
    manager.told(["READY=1"]);
    fs::write(&file, "this is no variable\n").expect("written");
    launcher.process.signal(Signal::SIGHUP);
    manager.told(["RELOADING=1", "MONOTONIC_USEC=", "READY=1"]);
    launcher
        .process
        .wait_for("the error", |line| line.contains("cannot reload"));
    launcher.stop_clean();
}

#[test]
fn workers_know_nothing_of_it() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    for manager in [Manager::of_file(), Manager::of_name()] {
        let launcher = fleet(&manager).env("WATCHDOG_USEC", "3000000").start();
        manager.told(["READY=1"]);
        let status = launcher.status();
        let pids = status.0["workers"].as_array().expect("a list").iter();
        let pids: Vec<u64> = pids.filter_map(|worker| worker["pid"].as_u64()).collect();
        assert_eq!(pids.len(), 2);
        for pid in pids {
            let environment = environment(pid);
            for ours in ["NOTIFY_SOCKET", "WATCHDOG", manager.name()] {
                assert!(!environment.contains(ours), "{ours} in {environment}");
            }
        }
        launcher.stop_clean();
    }
}

#[test]
fn the_watchdog_hears_from_the_event_loop_for_as_long_as_it_goes_round() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let manager = Manager::of_name();
    let launcher = fleet(&manager).env("WATCHDOG_USEC", "100000").start();
    manager.told(["READY=1"]);
    for _ in 0..5 {
        manager.told(["WATCHDOG=1"]);
    }
    launcher.process.signal(Signal::SIGHUP);
    // Also while it is busy with something else.
    manager.told(["RELOADING=1", "WATCHDOG=1", "READY=1", "WATCHDOG=1"]);
    launcher.stop_clean();
}

#[test]
fn a_watchdog_that_waits_for_another_process_hears_nothing() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let manager = Manager::of_file();
    let launcher = fleet(&manager)
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1")
        .start();
    manager.told(["READY=1"]);
    launcher.reload();
    launcher.stop_clean();
    let heard = manager.heard();
    assert!(
        !heard.iter().any(|line| line.starts_with("WATCHDOG")),
        "{heard:#?}"
    );
}

#[test]
fn after_an_upgrade_it_is_told_which_process_goes_on() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let manager = Manager::of_file();
    let launcher = fleet(&manager).env("WATCHDOG_USEC", "3000000").start();
    manager.told(["READY=1"]);
    launcher.process.signal(Signal::SIGUSR2);
    let main = format!("MAINPID={}", launcher.process.pid());
    manager.told([
        "WATCHDOG=1",
        "STATUS=2 of 2 workers ready",
        "READY=1",
        &main,
    ]);
    launcher.process.signal(Signal::SIGHUP);
    manager.told(["RELOADING=1", "READY=1"]);
    launcher.stop_clean();
}

#[test]
fn an_address_that_is_none_is_told_and_no_hindrance() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(servers::node(8080))
        .options(["--workers", "1"])
        .env("NOTIFY_SOCKET", "vsock:2:1")
        .ready();
    launcher.process.wait_for("a warning", |line| {
        line.contains("NOTIFY_SOCKET: it is neither")
    });
    launcher.stop_clean();
}
