//! Workers that ask more of the launcher than it should give: nothing else waits for them, and what
//! they leave is not forgotten.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use kernel_tests::{gate, launcher::Launch, load::OpenLoad, scripts, servers::python_code};
use nix::sys::signal::Signal;

use crate::{
    RATE, address, begin_reload,
    drain::{ask, read_until},
    signal, two_apps,
};

/// Listens, and talks to the launcher without a pause, as its argument says. TERM does not end it.
const FLOOD: &str = "
import os, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(('', 8080))
if sys.argv[1] == 'ipc':
    while True:
        os.write(int(os.environ['NODE_CHANNEL_FD']), b'1\\n' * 30000)
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ['NOTIFY_SOCKET'])
while True:
    manager.send(b'READY=1\\nSTATUS=busy')
";

/// A server on port 8080 that answers with its pid, and closes its listener when it gets USR1.
const CLOSES: &str = "
import http.server, os, signal, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200)
        body = str(os.getpid()).encode()
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
server = http.server.ThreadingHTTPServer(('', 8080), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
signal.sigwait({signal.SIGUSR1})
server.shutdown()
server.socket.close()
while True:
    signal.pause()
";

fn flood(way: &str) -> Vec<String> {
    let mut command = python_code(FLOOD);
    command.push(way.to_owned());
    command
}

#[test]
fn a_worker_that_floods_its_ipc_channel_delays_nothing_and_fills_no_log() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let started = Instant::now();
    let launcher = Launch::of(flood("ipc"))
        .options(["--workers", "2", "--ipc", "node", "--stop-timeout", "1s"])
        .ready();
    for slot in 0..2 {
        let counted = format!(" more messages of worker {slot}.1");
        launcher
            .process
            .wait_for(&counted, |line| line.ends_with(&counted));
    }
    assert_eq!(launcher.status().ready(), 2);
    launcher.scale(3);
    for slot in 0..3 {
        let sent = format!("worker {slot}.1 sent 1");
        let lines = launcher.process.lines();
        let logged = lines.iter().filter(|line| line.text.ends_with(&sent));
        let most = 10 * (started.elapsed().as_secs() + 1);
        assert!(logged.count() as u64 <= most);
    }
    let stop = Instant::now();
    launcher.stop_clean();
    assert!(stop.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_worker_that_floods_its_notification_socket_delays_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(flood("notify"))
        .options(["--workers", "2", "--ready", "notify"])
        .options(["--stop-timeout", "1s"])
        .ready();
    launcher.scale(3);
    let status = launcher.status();
    assert_eq!(status.worker(2)["status_text"], "busy", "{}", status.0);
    let stop = Instant::now();
    launcher.stop_clean();
    assert!(stop.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_connection_outlives_its_listener_in_a_drain() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(python_code(CLOSES))
        .options(["--workers", "2"])
        .ready();
    let mut idle = ask("/");
    read_until(&mut idle, "\r\n\r\n");
    let before = launcher.members(2);
    let pids = [before.pid(0), before.pid(1)];
    let mut answer = [0; 16];
    let length = idle.read(&mut answer).expect("the body");
    let answer = String::from_utf8_lossy(&answer[..length]);
    let slot = pids.iter().position(|pid| answer == pid.to_string());
    let slot = slot.expect("one of the two");

    signal(pids[slot], Signal::SIGUSR1);
    launcher.members(1);
    let reload = begin_reload(&launcher, &[]);
    launcher.status_when("the drain", |status| {
        status.workers().iter().any(|worker| {
            worker["pid"] == pids[slot]
                && worker["state"] == "draining"
                && worker["connections_active"] == 1
        })
    });
    drop(idle);
    assert_eq!(reload.finish().success(), "");
    launcher.stop_clean();
}

#[test]
fn the_state_file_is_written_only_when_something_has_changed() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&[], &[]);
    launcher.members(2);
    let state = format!("{}.state", launcher.site.name());
    let state = launcher.site.runtime_dir().join(state);
    let written = || {
        let file = fs::metadata(&state).expect("a fleet runs");
        (file.ino(), file.mtime(), file.mtime_nsec())
    };
    let before = written();
    // Each is a turn of the launcher's loop, at another fraction of a millisecond.
    for _ in 0..50 {
        assert!(launcher.status().all_ready(2));
    }
    assert_eq!(written(), before);
    launcher.reload();
    assert_ne!(written(), before);
    launcher.stop_clean();
}

#[test]
fn a_probe_that_fails_says_why() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sick = dir.path().join("sick");
    let launcher = Launch::of(scripts::app(&[&format!("sick={}", sick.display())]))
        .options(["--workers", "2", "--ready", "http:/health"])
        .options(["--ready-timeout", "2s", "--health", "http:/health"])
        .options(["--health-interval", "100ms"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    fs::write(&sick, "").expect("a new directory");
    let why = "GET /health was answered with 503";
    let told = |what: &str| {
        launcher
            .process
            .wait_for(what, |line| line.contains(what) && line.contains(why))
    };
    told("fails its health checks");
    told("is not ready 2.0 s after its start");
    launcher.refuses(&["reload"], why);
    fs::remove_file(&sick).expect("it was written");
    launcher.status_when("both to be well", |status| status.all_ready(2));
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}
