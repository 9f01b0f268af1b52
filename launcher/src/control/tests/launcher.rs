//! A launcher of nothing but a control socket.

use std::path::PathBuf;

use tokio::{runtime::Runtime, sync::mpsc, task::JoinHandle};

use crate::{
    control::{
        protocol::{Request, Response},
        server::{Call, Server},
    },
    observe::{Snapshot, Steering},
    sys::runtime::{Name, RuntimeDir, State},
};

/// A current-thread runtime, as the launcher uses.
pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub(super) fn directory() -> (tempfile::TempDir, RuntimeDir) {
    let root = tempfile::tempdir().unwrap();
    let directory = RuntimeDir::locate(Some(&root.path().join("run"))).unwrap();
    directory.prepare().unwrap();
    (root, directory)
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn snapshot(name: &str) -> Snapshot {
    Snapshot {
        name: name.into(),
        version: "0.1.0".into(),
        pid: std::process::id(),
        command: vec!["./server".into()],
        started_at: "2026-11-21T05:57:00Z".into(),
        capture: "cgroup".into(),
        steering: Steering {
            backend: "ebpf".into(),
            policy: "hash".into(),
            policy_udp: "hash".into(),
            migration: true,
        },
        hold: true,
        operation: None,
        groups: vec![],
        workers: vec![],
    }
}

/// A launcher that answers every request at once.
pub(super) struct Launcher {
    _server: Server,
    answering: JoinHandle<()>,
}

impl Launcher {
    /// Must be called within a runtime.
    pub(super) fn start(directory: &RuntimeDir, name: &Name) -> Self {
        let (calls, mut requests) = mpsc::channel::<Call>(1);
        let server = Server::bind(&directory.socket(name), calls).unwrap();
        let name = name.to_string();
        let answering = tokio::spawn(async move {
            while let Some(Call { request, reply }) = requests.recv().await {
                // A client that has gone is no concern of the launcher.
                let _ = reply.send(match request {
                    Request::Status {} => Response::Status(Box::new(snapshot(&name))),
                    _ => Response::Done,
                });
            }
        });
        Self {
            _server: server,
            answering,
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Leaves the socket of a launcher that was killed.
pub(super) fn leave_stale_socket(directory: &RuntimeDir, name: &Name) -> PathBuf {
    let path = directory.socket(name);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    path
}

/// Writes the state of a launcher with that pid.
pub(super) fn write_state(directory: &RuntimeDir, name: &Name, pid: u32) {
    let state = State {
        pid,
        cgroup: String::new(),
        started_at: "2026-11-21T05:57:00Z".into(),
        name: name.to_string(),
        fleet: (),
    };
    state.write(directory, name).unwrap();
}
