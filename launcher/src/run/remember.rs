//! The state file: what the next launcher of this name needs to go on with this one's workers,
//! should this one be killed, or replace itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::LazyLock,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::{failed, handed::Handed, launcher::Launcher};
use crate::{
    config::Plan,
    failure::Failure,
    fleet::State as Stage,
    metrics::Tallies,
    policy::{self, Policy},
    steer::{Remembered, Steering},
    sys::{
        listeners::{Endpoint, Protocol, list},
        runtime::{Name, RuntimeDir, State},
    },
    worker::WorkerId,
};

/// What is written for a fleet that runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Fleet {
    /// How many slots there are.
    pub(super) slots: u32,
    /// How many workers the configuration says; versions that did not know of one left none.
    #[serde(default)]
    pub(super) workers_given: Option<u32>,
    /// How the command line said that it is steered.
    #[serde(default)]
    pub(super) policies_given: Policies,
    /// How it is steered: another way, where it was changed since.
    #[serde(default)]
    pub(super) policies: Policies,
    /// The weights of the slots that have another one than 1.
    #[serde(default)]
    pub(super) weights: BTreeMap<u32, u16>,
    /// Whether some worker has ever been ready.
    pub(super) ever_ready: bool,
    /// What the workers run: see [`command`].
    pub(super) command: Vec<String>,
    pub(super) workers: Vec<Worker>,
    /// Slots, and the latest generations that they had.
    pub(super) generations: Vec<(u32, u64)>,
    pub(super) steering: Remembered,
    /// What the page of metrics counts.
    #[serde(default)]
    pub(super) tallies: Tallies,
    /// Where its maps and links are.
    #[serde(default)]
    pub(super) pins: Option<PathBuf>,
    /// What is passed on open, by a launcher that replaces itself.
    pub(super) handed: Option<Handed>,
}

/// The policies of a fleet, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policies {
    all: Option<String>,
    datagrams: Option<String>,
}

impl From<policy::Policies> for Policies {
    fn from(policies: policy::Policies) -> Self {
        let name = |policy: Option<Policy>| Some(policy?.to_string());
        Self {
            all: name(policies.all),
            datagrams: name(policies.datagrams),
        }
    }
}

impl Policies {
    /// What they stand for; a name that only another version knows, for none.
    pub(super) fn known(&self) -> policy::Policies {
        let policy = |name: &Option<String>| name.as_ref()?.parse().ok();
        policy::Policies {
            all: policy(&self.all),
            datagrams: policy(&self.datagrams),
        }
    }
}

/// A worker that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) worker: WorkerId,
    pub(super) pid: u32,
    pub(super) ready: bool,
    /// Whether it has said that it is, which counts once it listens.
    pub(super) said_ready: bool,
    pub(super) parked: bool,
    /// Whether it is on its way out.
    pub(super) leaving: bool,
    pub(super) restarts: u64,
    /// `CLOCK_MONOTONIC`, in milliseconds.
    pub(super) started: u64,
    pub(super) status: Option<String>,
    /// Every TCP port that it has listened on.
    #[serde(default)]
    pub(super) ports: BTreeSet<u16>,
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
                    ready: view.state.has_been_ready(),
                    said_ready: running.said_ready,
                    parked: !view.leaving && matches!(view.state, Stage::Draining | Stage::Drained),
                    leaving: view.leaving,
                    restarts: view.restarts,
                    started: monotonic(running.started),
                    status: running.status_text.clone(),
                    ports: running.ports.clone(),
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
                workers_given: Some(self.plan.workers),
                policies_given: self.plan.policies.into(),
                policies: self.steering.policies().into(),
                weights: self.fleet.weights(),
                ever_ready: self.fleet.ever_healthy(),
                command: command(&self.plan),
                workers,
                generations: self.fleet.generations(),
                steering: self.steering.remember(),
                tallies: self.tallies.clone(),
                pins: self.pins.as_ref().map(|pins| pins.path().to_owned()),
                handed,
            },
        }
    }
}

/// A plan's command, for comparing only: JSON has no words that are not UTF-8.
pub(super) fn command(plan: &Plan) -> Vec<String> {
    let words = plan.command.iter();
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// One moment on both clocks. Only one, so that a moment is the same number whenever it is asked for.
static ANCHOR: LazyLock<(Instant, u64)> = LazyLock::new(|| {
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000;
    (Instant::now(), now)
});

/// A moment on the clock that all processes share, `CLOCK_MONOTONIC`, in milliseconds.
fn monotonic(moment: Instant) -> u64 {
    let (anchor, at) = *ANCHOR;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let before = milliseconds(anchor.saturating_duration_since(moment));
    let after = milliseconds(moment.saturating_duration_since(anchor));
    at.saturating_sub(before).saturating_add(after)
}

/// The moment that [`monotonic`] has made a number of; the present, if that is yet to come.
pub(super) fn moment(milliseconds: u64) -> Instant {
    let (anchor, at) = *ANCHOR;
    let after = Duration::from_millis(milliseconds.saturating_sub(at));
    let before = Duration::from_millis(at.saturating_sub(milliseconds));
    let now = Instant::now();
    let moment = anchor.checked_add(after);
    let moment = moment.and_then(|moment| moment.checked_sub(before));
    moment.map_or(now, |moment| moment.min(now))
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

    /// Has connections held there for the first workers. Not where sockets had another owner than
    /// those workers will have: they could not join the holding socket. And not where somebody else
    /// listens: with the same owner, and his consent to share, our program would get his sockets.
    pub(super) fn hold(&self, plan: &Plan, steering: &mut Steering) -> Result<(), Failure> {
        let others = list(Protocol::Tcp).unwrap_or_default();
        for (endpoint, uid) in &self.endpoints {
            let free = others.iter().all(|other| !other.overlaps(endpoint));
            let joinable = user(plan).is_none_or(|user| user == *uid);
            if self.user == user(plan) && joinable && free {
                steering.hold_early(endpoint, *uid)?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_always_the_same_number() {
        let start = Instant::now();
        let number = monotonic(start);
        while start.elapsed() < Duration::from_millis(5) {
            assert_eq!(monotonic(start), number);
        }
        assert_eq!(monotonic(moment(number)), number);
        let earlier = number.saturating_sub(3_600_000);
        assert_eq!(monotonic(moment(earlier)), earlier);
        assert!(moment(u64::MAX) <= Instant::now());
    }
}
