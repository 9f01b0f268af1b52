//! The state file: what the next launcher of this name needs to go on with this one's workers,
//! should this one be killed, or replace itself.

use std::{os::fd::RawFd, path::PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::{failed, launcher::Launcher};
use crate::{
    config::Plan,
    failure::Failure,
    fleet::State as Stage,
    ipc::Pending,
    steer::Remembered,
    sys::{
        listeners::Endpoint,
        runtime::{Name, RuntimeDir, State},
    },
    worker::WorkerId,
};

/// What is written for a fleet that runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fleet {
    /// How many slots there are.
    pub(super) slots: u32,
    /// Whether the program steers, or the kernel by itself.
    pub(super) program: bool,
    pub(super) workers: Vec<Worker>,
    /// Slots, and the latest generations that they had.
    pub(super) generations: Vec<(u32, u64)>,
    pub(super) steering: Remembered,
    /// What is passed on open, by a launcher that replaces itself.
    pub(super) handed: Option<Handed>,
}

/// A worker that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) worker: WorkerId,
    pub(super) pid: u32,
    pub(super) ready: bool,
    pub(super) parked: bool,
    /// Whether it is on its way out.
    pub(super) leaving: bool,
    pub(super) restarts: u64,
    /// `CLOCK_MONOTONIC`, in milliseconds.
    pub(super) started: u64,
    pub(super) status: Option<String>,
}

/// Descriptors that survive the exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handed {
    pub(super) lock: RawFd,
    pub(super) cgroup: RawFd,
    pub(super) control: RawFd,
    pub(super) channels: Vec<(WorkerId, RawFd, Pending)>,
    pub(super) holding: Vec<(Endpoint, RawFd)>,
}

/// Where workers have listened, for the next run: see [`Listened::read`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listened {
    /// The addresses, with the owners of the sockets.
    pub(super) endpoints: Vec<(Endpoint, u32)>,
    /// As whom the workers were to run.
    pub(super) user: Option<u32>,
}

/// The state file of this launcher; removed on drop, when no worker is left.
#[derive(Debug)]
pub(super) struct StateFile {
    directory: RuntimeDir,
    name: Name,
    written: Option<State<Fleet>>,
}

impl StateFile {
    pub(super) fn new(directory: &RuntimeDir, name: &Name) -> Self {
        Self {
            directory: directory.clone(),
            name: name.clone(),
            written: None,
        }
    }

    /// Writes what has changed.
    pub(super) fn write(&mut self, state: State<Fleet>) -> Result<(), Failure> {
        if self.written.as_ref() != Some(&state) {
            state
                .write(&self.directory, &self.name)
                .map_err(|error| failed("write the state file", &error))?;
            self.written = Some(state);
        }
        Ok(())
    }
}

impl Drop for StateFile {
    fn drop(&mut self) {
        if let Err(error) = State::<Fleet>::remove(&self.directory, &self.name) {
            warn!("the state file could not be removed: {error}");
        }
    }
}

impl Launcher {
    /// Brings the state file up to date. What can't be written is told once: the workers have
    /// nothing to suffer from it.
    pub(super) fn save(&mut self) {
        let state = self.state(None);
        if let Err(failure) = self.state_file.write(state)
            && !std::mem::replace(&mut self.unsaved_told, true)
        {
            warn!(
                "{}: {}; a launcher that takes over might miss a worker",
                failure.what, failure.why
            );
        }
    }

    /// What the next launcher needs to know.
    pub(super) fn state(&self, handed: Option<Handed>) -> State<Fleet> {
        let views = self.fleet.views();
        let workers = views
            .iter()
            .filter_map(|view| {
                let running = self.running.get(&view.worker)?;
                Some(Worker {
                    worker: view.worker,
                    pid: running.pid.filter(|_| !running.ended)?,
                    ready: matches!(
                        view.state,
                        Stage::Ready
                            | Stage::Unhealthy
                            | Stage::Stalled
                            | Stage::Draining
                            | Stage::Drained
                    ),
                    parked: !view.leaving && matches!(view.state, Stage::Draining | Stage::Drained),
                    leaving: view.leaving,
                    restarts: view.restarts,
                    started: monotonic(running.started),
                    status: running.status_text.clone(),
                })
            })
            .collect();
        State {
            pid: std::process::id(),
            cgroup: self.cgroup_path.clone(),
            started_at: self.started_at.clone(),
            name: self.plan.name.to_string(),
            fleet: Fleet {
                slots: self.fleet.workers_wanted(),
                program: self.steering.migrates().is_some(),
                workers,
                generations: self.fleet.generations(),
                steering: self.steering.remember(),
                handed,
            },
        }
    }
}

/// A moment on the clock that all processes share.
pub(super) fn monotonic(moment: Instant) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000;
    let ago = moment.elapsed().as_millis();
    now.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX))
}

/// The moment that [`monotonic`] has made a number of.
pub(super) fn moment(milliseconds: u64) -> Instant {
    let now = Instant::now();
    let ago = monotonic(now).saturating_sub(milliseconds);
    now.checked_sub(std::time::Duration::from_millis(ago))
        .unwrap_or(now)
}

impl Listened {
    /// What a fleet leaves.
    pub(super) fn new(plan: &Plan, steering: &Remembered) -> Self {
        Self {
            endpoints: steering
                .groups
                .iter()
                .map(|group| (group.endpoint.clone(), group.uid))
                .collect(),
            user: user(plan),
        }
    }

    /// Where connections are held for the first workers. Not where sockets had another owner than
    /// those workers will have: they could not join the holding socket.
    pub(super) fn to_hold<'a>(&'a self, plan: &Plan) -> impl Iterator<Item = &'a (Endpoint, u32)> {
        let same = self.user == user(plan);
        self.endpoints.iter().filter(move |_| same)
    }

    /// Where the workers of the last run under this name listened. Nothing is lost if nobody knows.
    pub(super) fn read(directory: &RuntimeDir, name: &Name) -> Self {
        let text = std::fs::read(Self::path(directory, name)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Leaves it for the next run.
    pub(super) fn write(&self, directory: &RuntimeDir, name: &Name) {
        let path = Self::path(directory, name);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&path, text));
        if let Err(error) = written {
            warn!("{} could not be written: {error}", path.display());
        }
    }

    fn path(directory: &RuntimeDir, name: &Name) -> PathBuf {
        directory.path().join(format!("{name}.listened"))
    }
}

fn user(plan: &Plan) -> Option<u32> {
    plan.identity.as_ref().map(|identity| identity.owner().0)
}
