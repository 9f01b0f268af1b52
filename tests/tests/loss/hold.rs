//! No worker at all: connections wait in the launcher's own socket, unless that is not wanted.

use std::fs;

use kernel_tests::{
    client, eventually, gate,
    launcher::{Launch, Launcher},
    load::{Kind, OpenLoad},
    scripts,
};

use crate::{PORT, RATE, address, crash, watched};

/// One application that takes a while to listen.
#[track_caller]
fn one_slow_app(options: &[&str]) -> Launcher {
    Launch::of(scripts::app(&["after=1"]))
        .options(["--workers", "1"])
        .options(options)
        .ready()
}

#[test]
fn acceptance_8_connections_wait_while_the_only_worker_boots() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = one_slow_app(&[]);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    let before = launcher.status();
    assert_eq!(before.0["hold"], true);
    assert_eq!(before.counter(PORT, "held_total"), 0);
    let accepted = crash(&launcher, 0);
    let waiting = launcher.status_when("connections to wait", |status| {
        status.counter(PORT, "held_now") > 10
    });
    let held = waiting.counter(PORT, "held_total");
    assert!(held >= waiting.counter(PORT, "held_now"), "{}", waiting.0);
    launcher.replaced(0, 2);
    load.wait_for(RATE.into());
    let report = load.stop();
    report.assert_lost_only_of(&accepted);
    let after = launcher.status();
    // A second's worth, roughly.
    assert!(
        after.counter(PORT, "held_total") >= u64::from(RATE) / 2,
        "{}",
        after.0
    );
    assert_eq!(after.counter(PORT, "held_now"), 0, "{}", after.0);
    assert_eq!(after.counter(PORT, "refused_total"), 0, "{}", after.0);
    launcher.stop_clean();
}

#[test]
fn acceptance_8_connections_wait_when_all_workers_crash_at_once() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&["after=1"]))
        .options(["--workers", "3"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    let accepted: Vec<_> = (0..3).flat_map(|slot| crash(&launcher, slot)).collect();
    launcher.status_when("connections to wait", |status| {
        status.counter(PORT, "held_now") > 10
    });
    let status = launcher.status_when("all replacements", |status| status.all_ready(3));
    assert_eq!(status.counter(PORT, "held_now"), 0, "{}", status.0);
    load.stop()
        .assert_lost_only_of(&accepted.into_iter().collect());
    launcher.stop_clean();
    // Those that were held wait out their minute. They don't keep others from the port.
    std::net::TcpListener::bind(address()).expect("the port is free");
}

#[test]
fn acceptance_8_connections_wait_for_workers_of_another_user() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // A member of another user could not join the group.
    let launcher = one_slow_app(&["--user", "nobody", "--group", "nogroup"]);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    let accepted = crash(&launcher, 0);
    launcher.replaced(0, 2);
    load.wait_for(RATE.into());
    load.stop().assert_lost_only_of(&accepted);
    assert!(launcher.status().counter(PORT, "held_total") > 0);
    launcher.stop_clean();
}

#[test]
fn acceptance_8_connections_wait_at_the_first_start_after_an_earlier_run() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = one_slow_app(&[]);
    let site = launcher.site.clone();
    assert_eq!(launcher.stop(), 0);

    let launcher = Launch::of(scripts::app(&["after=1"]))
        .options(["--workers", "1"])
        .at(&site)
        .start();
    // It waits from the first moment on at which it is not refused, which is before the server
    // listens.
    let waiting = eventually("the holding socket", || {
        std::net::TcpStream::connect(address()).ok()
    });
    let listening = launcher.process.lines();
    assert!(
        !listening.iter().any(|line| line.text == "0 listening"),
        "{listening:?}"
    );
    client::send(&waiting).expect("it is connected");
    let answer = client::receive(&waiting).expect("it is handed over");
    launcher.ready();
    assert_eq!(answer.body, launcher.status().pid(0).to_string());
    launcher.stop_clean();
}

#[test]
fn no_more_wait_than_the_backlog_allows() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // The limit of every backlog in this network namespace, which is that of the thread.
    fs::write("/proc/sys/net/core/somaxconn", "16").expect("the namespace is ours");
    let launcher = one_slow_app(&[]);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    assert_eq!(launcher.status().counter(PORT, "hold_backlog"), 16);
    let (accepted, seen) = watched(&launcher, || {
        let accepted = crash(&launcher, 0);
        launcher.replaced(0, 2);
        accepted
    });
    let most = seen
        .iter()
        .map(|status| status.counter(PORT, "held_now"))
        .max();
    // The kernel lets one more in than the backlog says.
    assert!(
        most.is_some_and(|most| (10..=17).contains(&most)),
        "{most:?}"
    );
    // Those that found no place tried again, and none was refused.
    load.stop().assert_lost_only_of(&accepted);
    launcher.stop_clean();
}

#[test]
fn without_a_holding_socket_connections_are_refused_while_no_worker_is_up() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = one_slow_app(&["--no-hold"]);
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(10);
    let status = launcher.status();
    assert_eq!(status.0["hold"], false);
    for nothing in ["held_total", "held_now", "hold_backlog"] {
        assert!(status.group(PORT)[nothing].is_null(), "{}", status.0);
    }
    crash(&launcher, 0);
    eventually("refusals", || (load.lost() > 10).then_some(()));
    launcher.replaced(0, 2);
    load.wait_for(10);
    let report = load.stop();
    assert!(report.count(Kind::Refused) > 10, "{report}");
    // What waited in the queue of the only worker had nowhere to go.
    assert_eq!(report.count(Kind::Timeout), 0, "{report}");
    launcher.stop_clean();
}
