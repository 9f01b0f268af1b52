//! The fleet's vocabulary: what it is told ([`Event`]), what it asks for ([`Effect`]), and what it
//! has to say for the log and for `status`. Data only.

use std::{fmt, time::Duration};

use super::worker::State;
use crate::worker::WorkerId;

/// Something that happened. Events about workers that are gone, and events told twice, are
/// harmless: both are normal where exits, sockets and cgroups are watched apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin: start one worker in every slot.
    Start,
    /// The process asked for by [`Effect::Spawn`] runs.
    Spawned {
        /// Whose process.
        worker: WorkerId,
    },
    /// The process asked for by [`Effect::Spawn`] couldn't be started.
    SpawnFailed {
        /// Whose process.
        worker: WorkerId,
        /// Why, for a person.
        reason: String,
    },
    /// The worker's first socket was adopted: it is ready.
    Listening {
        /// Who listens.
        worker: WorkerId,
    },
    /// The worker's main process ended. Where the cgroup is known to be empty too, tell
    /// [`Event::Emptied`] first: what is left after this event counts as left behind.
    Exited {
        /// Whose process.
        worker: WorkerId,
        /// How it ended.
        status: ExitStatus,
    },
    /// No process is left in the worker's cgroup.
    Emptied {
        /// Whose cgroup.
        worker: WorkerId,
    },
    /// Stop everything and end.
    Stop(StopMode),
    /// Going on would be wrong: stop everything gracefully and end with [`Outcome::Fatal`].
    Fatal {
        /// Why, for a person.
        reason: String,
    },
    /// Time has passed. Told at [`super::Fleet::next_deadline`]; at any other time it does nothing.
    Tick,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// The stop signal, and a kill once the stop timeout has passed.
    Graceful,
    /// A kill at once.
    Now,
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code, `0..=255`.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a worker counts as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its main process ended unasked, with whatever status.
    Exited(ExitStatus),
    /// It couldn't be started, for this reason.
    NotSpawned(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => status.fmt(f),
            Self::NotSpawned(reason) => f.write_str(reason),
        }
    }
}

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start this worker; answer with [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn(WorkerId),
    /// The complete set of workers that take new connections, sorted. Only when it changed, and
    /// before anything else of the same step.
    Steer(Vec<WorkerId>),
    /// Send the stop signal to every process of this worker; at most once in a worker's life.
    Signal(WorkerId),
    /// Kill every process of this worker; at most once in a worker's life.
    Kill(WorkerId),
    /// Forget this worker and remove its cgroup: nothing of it is left, or nothing can be done
    /// about what is.
    Release(WorkerId),
    /// Tell a person.
    Notice(Notice),
    /// The last effect ever.
    Quit(Outcome),
}

/// Something a person wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The worker takes connections.
    Ready {
        /// Which one.
        worker: WorkerId,
    },
    /// Every slot is ready, for the first time.
    AllReady,
    /// The worker's main process ended, asked or unasked.
    Exited {
        /// Which one.
        worker: WorkerId,
        /// How.
        status: ExitStatus,
        /// When its slot is tried again; `None` where it won't be: the fleet stops, or is about
        /// to give up.
        restart_in: Option<Duration>,
        /// Whether it had become ready.
        was_ready: bool,
    },
    /// The worker couldn't be started.
    SpawnFailed {
        /// Which one.
        worker: WorkerId,
        /// Why.
        reason: String,
        /// As in [`Notice::Exited`].
        restart_in: Option<Duration>,
    },
    /// The worker runs, but doesn't listen. It is left alone: it may have no need to.
    NotListening {
        /// Which one.
        worker: WorkerId,
        /// For how long it has been running.
        after: Duration,
    },
    /// The worker crashed and left processes behind, which are killed: one of them may hold a
    /// listening socket that nobody serves.
    LeftProcesses {
        /// Which one.
        worker: WorkerId,
    },
    /// The worker didn't end within the stop timeout and is killed.
    StopTimedOut {
        /// Which one.
        worker: WorkerId,
    },
    /// Processes of the worker outlived their kill and are given up.
    Unkillable {
        /// Which one.
        worker: WorkerId,
    },
}

/// How it all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Stopped,
    /// No worker ever became healthy, and one slot failed again and again.
    GaveUp {
        /// The last worker of that slot.
        worker: WorkerId,
        /// How often in a row the slot failed.
        failures: u32,
        /// What it failed of last.
        last: Cause,
    },
    /// Because of [`Event::Fatal`].
    Fatal {
        /// Why.
        reason: String,
    },
}

/// One worker, or one slot that waits for its restart, as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Which worker; in [`State::Backoff`] the one that failed.
    pub worker: WorkerId,
    /// What it is doing.
    pub state: State,
    /// Since when, on the fleet's clock.
    pub since: Duration,
    /// How often the slot was restarted after a failure.
    pub restarts: u64,
    /// In [`State::Backoff`]: when the slot is tried again, unless the fleet is about to give up.
    pub restart_at: Option<Duration>,
}
