//! One worker: its handles, its start, and its release.

use std::{collections::BTreeSet, io, os::fd::OwnedFd};

use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    launcher::Launcher,
    news::{Chatter, Ipc, Memory, Notify, Task},
};
use crate::{
    config::Ready,
    failure::Failure,
    fleet::Event,
    ipc::Channel,
    sys::{
        cgroup::WorkerCgroup,
        notify::NotifySocket,
        process::{self, Launch},
    },
    worker::WorkerId,
};

/// A worker's handles, and what is known of it.
pub(super) struct Running {
    pub(super) cgroup: WorkerCgroup,
    /// Its main process; `None` when that could not be started.
    pub(super) pid: Option<u32>,
    /// The number of the signal that asks it to stop: of the configuration that it was started by.
    pub(super) stop_signal: i32,
    pub(super) started: Instant,
    /// Whether its main process has ended.
    pub(super) ended: bool,
    /// The address it could not have, if it met one.
    pub(super) taken: Option<Failure>,
    /// Whether it has a member.
    pub(super) listens: bool,
    /// When it is ready though it does not listen everywhere where the one that it replaces does.
    pub(super) ready_at: Option<Instant>,
    /// Every TCP port that it has ever listened on: connections outlive the listener.
    pub(super) ports: BTreeSet<u16>,
    /// Whether it has said that it is ready.
    pub(super) said_ready: bool,
    /// Why the last question whether it is ready, or healthy, was not answered well.
    pub(super) last_refusal: Option<String>,
    /// Whether it was told that it will be told to end.
    shutdown_told: bool,
    /// What it says of itself.
    pub(super) status_text: Option<String>,
    pub(super) notify: Option<Notify>,
    /// Where the kernel tells when it uses too much memory.
    pub(super) memory: Option<Memory>,
    /// Whether it did.
    pub(super) memory_exceeded: bool,
    pub(super) ipc: Option<Ipc>,
    /// Whether it has said more than was read.
    pub(super) unread: bool,
    pub(super) chatter: Chatter,
    /// The handle of a main process that is not our child, and what waits for its end.
    pub(super) stranger: Option<(OwnedFd, Task)>,
}

impl Running {
    pub(super) fn new(cgroup: WorkerCgroup, pid: Option<u32>, stop_signal: i32) -> Self {
        Self {
            cgroup,
            pid,
            stop_signal,
            started: Instant::now(),
            ended: false,
            taken: None,
            listens: false,
            ready_at: None,
            ports: BTreeSet::new(),
            said_ready: false,
            last_refusal: None,
            shutdown_told: false,
            status_text: None,
            notify: None,
            memory: None,
            memory_exceeded: false,
            ipc: None,
            unread: false,
            chatter: Chatter::default(),
            stranger: None,
        }
    }
}

impl Launcher {
    /// Starts a worker.
    pub(super) fn spawn(&mut self, worker: WorkerId) -> Result<(), String> {
        let cgroup = self
            .cgroup
            .create_worker(worker)
            .map_err(|error| format!("creating its cgroup failed: {error}"))?;
        self.capture.watch(worker, &cgroup);
        let mut running = Running::new(cgroup, None, self.plan.stop_signal);
        let started = self.launch(worker, &mut running);
        if let Ok(pid) = started {
            debug!("worker {worker} is pid {pid}");
            if let Err(error) = running.cgroup.started(pid) {
                warn!("the processes of worker {worker} can't be told from others: {error}");
            }
            running.pid = Some(pid);
        }
        self.running.insert(worker, running);
        started.map(|_| ())
    }

    fn launch(&mut self, worker: WorkerId, running: &mut Running) -> Result<u32, String> {
        let shorten = |failure: Failure| format!("{}: {}", failure.what, failure.why);
        let workers = self.fleet.workers_wanted();
        let mut environment = self
            .plan
            .environment(worker, workers, std::env::vars_os())
            .map_err(shorten)?;
        self.steering
            .watch(worker, &running.cgroup, true)
            .map_err(shorten)?;
        self.watch_memory(worker, running);
        running.notify = self
            .notify_socket(worker)
            .map_err(|error| format!("making its notification socket failed: {error}"))?;
        if running.notify.is_some() {
            let path = self.runtime_dir.notify(&self.plan.name, worker);
            environment.push(("NOTIFY_SOCKET".into(), path.into()));
        }
        if self.steering.takes_hints() {
            let path = self.runtime_dir.socket(&self.plan.name);
            environment.push(("REUSEPORT_LAUNCH_CONTROL".into(), path.into()));
        }
        let ipc = if self.plan.ipc_node {
            let channel = Channel::pair()
                .and_then(|(ours, theirs)| Ok((Ipc::new(&self.news, worker, ours)?, theirs)));
            let (ours, theirs) =
                channel.map_err(|error| format!("making its IPC channel failed: {error}"))?;
            running.ipc = Some(ours);
            Some(theirs)
        } else {
            None
        };
        let arguments = self.plan.arguments(worker);
        let directory = &self.plan.directory;
        let program = self.plan.program(worker, &environment).map_err(shorten)?;
        let (stdout, stderr) = self
            .output
            .open(worker)
            .map_err(|error| format!("opening its output failed: {error}"))?;
        let cpus = self.plan.pinning.cpus_for(worker.slot, &self.plan.cpus);
        process::spawn(Launch {
            program: &program,
            arguments: &arguments,
            environment: &environment,
            directory,
            cgroup: &running.cgroup,
            cpus: cpus.as_deref(),
            identity: self.plan.identity.as_ref(),
            file_limit: self.file_limit,
            stdout,
            stderr,
            ipc,
        })
        .map_err(|error| error.to_string())
    }

    /// Has the kernel tell when a worker uses more memory than it may, where it can. Elsewhere it is
    /// looked at again and again.
    pub(super) fn watch_memory(&self, worker: WorkerId, running: &mut Running) {
        let Some(limit) = self.plan.recycle.max_memory else {
            return;
        };
        let watch = running.cgroup.watch_memory(limit).and_then(|watch| {
            watch
                .map(|watch| Memory::new(&self.news, worker, watch))
                .transpose()
        });
        running.memory = watch.unwrap_or_else(|error| {
            debug!("the kernel does not tell of worker {worker}'s memory: {error}");
            None
        });
    }

    /// A worker's notification socket, where that is how it says that it is ready.
    pub(super) fn notify_socket(&self, worker: WorkerId) -> io::Result<Option<Notify>> {
        if self.plan.ready != Ready::Notify {
            return Ok(None);
        }
        let path = self.runtime_dir.notify(&self.plan.name, worker);
        let owner = self.plan.identity.as_ref().map(|identity| identity.owner());
        let socket = NotifySocket::bind(&path, owner)?;
        Notify::new(&self.news, worker, socket).map(Some)
    }

    /// Tells a worker, in Node's way, that it will be told to end: when it takes no connections any
    /// more, so that it may end by itself when it has finished those that it has.
    pub(super) fn announce_shutdown(&mut self, worker: WorkerId) {
        let running = self.running.get_mut(&worker);
        let told = |running: &mut Running| std::mem::replace(&mut running.shutdown_told, true);
        if let Some(running) = running
            && !told(running)
            && let Some(ipc) = running.ipc.as_mut()
            && let Err(failure) = ipc.channel.send(&Value::from("shutdown"))
        {
            debug!(
                "worker {worker} is not told of its shutdown: {}",
                failure.why
            );
        }
    }

    /// Forgets a worker that is gone.
    pub(super) fn release(&mut self, worker: WorkerId) -> Option<Event> {
        self.count_last(worker);
        if let Some(running) = self.running.remove(&worker)
            && let Err(error) = running.cgroup.remove()
        {
            warn!("the cgroup of worker {worker} could not be removed: {error}");
        }
        self.capture.forget(worker);
        self.looks.forget(worker);
        self.probing.forget(worker);
        self.output.close(worker);
        let failure = self.steering.forget(worker).err()?;
        self.fail_unless(self.is_serving(), failure)
    }
}
