//! What a policy that was changed outlives.

use kernel_tests::{client, gate, launcher::Launcher, load::OpenLoad, procfs::Handle};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{PORT, address, nodes};

#[track_caller]
fn assert_policy(launcher: &Launcher, policy: &str) {
    let status = launcher.status_when("two workers", |status| status.all_ready(2));
    assert_eq!(status.0["steering"]["policy"], policy);
    let selected =
        |status: &kernel_tests::status::Status| status.group(PORT)["selected_total"].as_u64();
    let before = selected(&status);
    client::spread(address(), 10);
    let after = selected(&launcher.status());
    match policy {
        "kernel" => assert_eq!((before, after), (None, None)),
        _ => assert!(
            after >= before.map(|before| before + 10),
            "{before:?} {after:?}"
        ),
    }
}

fn kill(launcher: &mut Launcher) {
    launcher.process.signal(Signal::SIGKILL);
    launcher.process.wait();
}

#[test]
fn a_policy_outlives_everything_but_the_fleet() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    for policy in ["source:24/56", "least-conn", "kernel"] {
        let mut first = nodes(2, &[]).ready();
        // The kernel's own hash sends connections to a worker until it closes, and loses them then.
        let load = (policy != "kernel").then(|| OpenLoad::start(address(), 50));
        first.ask(&["steer", policy]);
        assert_policy(&first, policy);
        first.reload();
        assert_policy(&first, policy);
        first.ask(&["upgrade"]);
        assert_policy(&first, policy);
        let pids = first.status().pids();
        kill(&mut first);
        let mut second = nodes(2, &[]).at(&first.site).ready();
        assert_policy(&second, policy);
        assert_eq!(second.status().pids(), pids);
        // And back, with what the other launcher has left.
        second.ask(&["steer", "hash"]);
        assert_policy(&second, "hash");
        if let Some(load) = load {
            load.stop().assert_nothing_lost();
        }
        Handle::of(second.status().pid(1)).kill();
        second.status_when("the restart", |status| {
            status.all_ready(2) && status.pids() != pids
        });
        assert_policy(&second, "hash");

        // Another command line has the last word.
        kill(&mut second);
        let third = nodes(2, &["--steer", "random"]).at(&second.site).ready();
        assert_policy(&third, "random");
        let site = std::sync::Arc::clone(&third.site);
        third.ask(&["steer", "source"]);
        third.stop_clean();
        let fourth = nodes(2, &["--steer", "random"]).at(&site).ready();
        assert_policy(&fourth, "random");
        assert_eq!(
            fourth.status().group(PORT)["fell_through_total"],
            Value::from(0)
        );
        fourth.stop_clean();
    }
}
