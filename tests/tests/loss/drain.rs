//! Drains: a worker that is replaced finishes what it has begun, and no longer than it may.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use kernel_tests::{
    client, gate,
    launcher::Launch,
    load::{CLIENT_TIMEOUT, OpenLoad},
    procfs::Handle,
    scripts,
};

use crate::{PORT, RATE, address, begin_reload, two_apps};

/// Asks for `path` on a new connection that is not to be closed.
#[track_caller]
pub(crate) fn ask(path: &str) -> TcpStream {
    let mut connection = TcpStream::connect(address()).expect("a worker listens");
    connection
        .set_read_timeout(Some(client::TIMEOUT))
        .expect("a timeout may be set");
    ask_again(&mut connection, path);
    connection
}

#[track_caller]
fn ask_again(connection: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .expect("it is connected");
}

/// Reads from a connection until what came ends with `end`.
#[track_caller]
pub(crate) fn read_until(connection: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        connection
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push(char::from(byte[0]));
    }
    text
}

/// Asserts that this worker has one connection open, and serves it.
#[track_caller]
fn assert_serves(connection: &mut TcpStream, pid: u32) {
    ask_again(connection, "/");
    read_until(connection, &format!("\r\n\r\n{pid}"));
}

#[test]
fn acceptance_3_a_long_answer_is_finished_before_its_worker_is_stopped() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // It ends at once when it is signalled.
    let launcher = two_apps(&[], &[]);
    let load = OpenLoad::with(address(), 20, "/slow", CLIENT_TIMEOUT);
    load.wait_for(1);
    for _ in 0..2 {
        launcher.reload();
    }
    load.wait_for(1);
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn acceptance_5_a_worker_gets_no_connection_once_it_is_signalled() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // It would go on serving, and say so.
    let launcher = two_apps(&["stubborn"], &["--stop-timeout", "500ms"]);
    let load = OpenLoad::start(address(), RATE);
    for _ in 0..3 {
        launcher.reload();
    }
    let report = load.stop();
    report.assert_nothing_lost();
    let late = report
        .answers
        .keys()
        .filter(|body| body.starts_with("late"));
    assert_eq!(late.count(), 0, "{:?}", report.answers);
    let signals = launcher.process.lines();
    let signals = signals.iter().filter(|line| line.text.ends_with("SIGTERM"));
    assert_eq!(signals.count(), 6, "each that was replaced had one");
    launcher.stop_clean();
}

#[test]
fn acceptance_6_the_queue_of_a_worker_that_goes_moves_to_the_others() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::late())
        .options(["--workers", "2", "--drain-timeout", "0s"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    for _ in 0..10 {
        launcher.reload();
    }
    load.stop().assert_nothing_lost();
    let status = launcher.status();
    assert!(status.counter(PORT, "migrated_total") > 0, "{}", status.0);
    launcher.stop_clean();
}

#[test]
fn acceptance_13_an_idle_connection_holds_a_worker_until_the_deadline_and_is_shown() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "1"])
        .ready();
    let old = launcher.status().pid(0);
    let mut idle = ask("/");
    read_until(&mut idle, &old.to_string());
    let reload = begin_reload(&launcher, &["--drain-timeout", "1500ms"]);
    launcher.status_when("the drain", |status| {
        status.workers().iter().any(|worker| {
            worker["pid"] == old
                && worker["state"] == "draining"
                && worker["connections_active"] == 1
        })
    });
    // Meanwhile it is served.
    assert_serves(&mut idle, old);
    assert_eq!(reload.finish().success(), "");
    let mut rest = Vec::new();
    let ended = idle.read_to_end(&mut rest);
    assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
    assert!(launcher.status().is_ready(0, 2));
    launcher.stop_clean();
}

#[test]
fn acceptance_14_a_reload_without_a_deadline_waits_for_the_last_connection() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "1", "--drain-timeout", "200ms"])
        .ready();
    let old = launcher.status().pid(0);
    let mut long = ask("/");
    read_until(&mut long, &old.to_string());
    let reload = begin_reload(&launcher, &["--drain-timeout", "infinite"]);
    // Two seconds, ten times the time that reloads have otherwise.
    ask_again(&mut long, "/slow");
    read_until(&mut long, &".".repeat(20));
    assert_serves(&mut long, old);
    let draining = Handle::of(old);
    drop(long);
    assert_eq!(reload.finish().success(), "");
    assert!(draining.ended());
    launcher.stop_clean();
}
