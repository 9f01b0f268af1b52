//! Node's messages between master and workers, without a master.

use kernel_tests::{
    gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    scripts,
};
use nix::sys::signal::Signal;

use crate::{PORT, RATE, address, signal};

#[track_caller]
fn start(options: &[&str]) -> Launcher {
    Launch::of(scripts::node_ipc())
        .options(["--workers", "2"])
        .options(options)
        .start()
}

/// Waits for what the worker of a slot tells.
#[track_caller]
fn told(launcher: &Launcher, slot: u32, what: &str) {
    let line = format!("{slot} {what}");
    launcher.process.wait_for(&line, |told| told == line);
}

#[test]
fn a_node_worker_is_ready_when_it_says_so_to_its_master() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = start(&["--ready", "node"]);
    told(&launcher, 0, "listening");
    told(&launcher, 1, "listening");
    let listening = launcher.status_when("both to listen", |status| {
        status.workers().len() == 2 && (0..2).all(|slot| status.state(slot) == "listening")
    });
    let load = OpenLoad::start(address(), RATE);
    launcher.status_when("connections to wait", |status| {
        status.counter(PORT, "held_now") > 10
    });
    signal(listening.pid(1), Signal::SIGUSR2);
    launcher.replaced(1, 1);
    load.wait_for(RATE.into());
    assert_eq!(launcher.status().state(0), "listening");
    load.stop().assert_nothing_lost();
    signal(listening.pid(0), Signal::SIGUSR2);
    launcher.ready();
    launcher.stop_clean();
}

#[test]
fn messages_reach_one_worker_or_all_and_shutdown_comes_before_the_stop_signal() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = start(&["--ipc", "node"]);
    launcher.ready();
    launcher.refuses(&["send", "7", "1"], "slot 7");
    launcher.ask(&["send", "1", r#"{"for":"one"}"#]);
    told(&launcher, 1, r#"{"for":"one"}"#);
    launcher.ask(&["send", "all", r#"["for all",2]"#]);
    told(&launcher, 0, r#"["for all",2]"#);
    told(&launcher, 1, r#"["for all",2]"#);
    // They go on after an upgrade, and reach who came later.
    launcher.ask(&["upgrade"]);
    launcher.scale(3);
    launcher.ask(&["send", "all", "3"]);
    for slot in 0..3 {
        told(&launcher, slot, "3");
    }
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    for slot in 0..3 {
        for what in ["\"shutdown\"", "SIGTERM"] {
            let line = format!("{slot} {what}\n");
            let times = finished.stdout.matches(&line).count();
            assert_eq!(times, 1, "{line}: {}", finished.stdout);
        }
    }
    let ones = finished.stdout.matches("for\":\"one").count();
    assert_eq!(ones, 1, "{}", finished.stdout);
    site.assert_nothing_left();
}
