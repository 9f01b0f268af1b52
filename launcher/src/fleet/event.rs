//! The fleet's vocabulary: what it is told ([`Event`]), what it asks for ([`Effect`]), and what it
//! has to say for the log and for `status`. Data only.

use std::{fmt, time::Duration};

use super::{
    request::{Request, Ticket, Unmet},
    worker::State,
};
use crate::worker::WorkerId;

/// Something that happened. Events about workers that are gone, and events told twice, are
/// harmless: both are normal where exits, sockets and cgroups are watched apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Begin: start one worker in every slot that has none. Before it, nothing else is heeded.
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
    /// The worker listens, which may or may not be enough to be ready.
    Listening {
        /// Who listens.
        worker: WorkerId,
    },
    /// The worker can take connections.
    Ready {
        /// Which one.
        worker: WorkerId,
    },
    /// Of a worker in [`State::Draining`]: nothing waits in its accept queues, and none of its
    /// connections is open.
    Drained {
        /// Which one.
        worker: WorkerId,
    },
    /// The health checks of a ready worker have come to another result. It begins healthy.
    Health {
        /// Which one.
        worker: WorkerId,
        /// Whether it is healthy.
        healthy: bool,
    },
    /// The accept queue of a ready worker has got stuck, or moves again.
    Stall {
        /// Which one.
        worker: WorkerId,
        /// Whether it is stuck.
        stalled: bool,
    },
    /// A ready worker is due to be replaced, with no hurry. For [`Recycle::Age`] the fleet sees
    /// to it itself.
    Recycle {
        /// Which one.
        worker: WorkerId,
        /// Why.
        reason: Recycle,
    },
    /// Somebody asks for something.
    Request {
        /// To be named in the answer.
        ticket: Ticket,
        /// What.
        request: Request,
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

/// Which limit a worker that is to be recycled has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recycle {
    /// The connections it was sent.
    Connections,
    /// Its memory.
    Memory,
    /// The time since it became ready.
    Age,
}

impl fmt::Display for Recycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connections => "connections",
            Self::Memory => "memory",
            Self::Age => "age",
        })
    }
}

/// How a main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code, `0..=255`.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody can say: it was the child of a launcher that is gone.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("exit status unknown"),
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
    /// It had not become ready after so long.
    NotReady(Duration),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => status.fmt(f),
            Self::NotSpawned(reason) => f.write_str(reason),
            Self::NotReady(after) => write!(f, "not ready after {} s", after.as_secs_f64()),
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
    /// Answer the request.
    Answer {
        /// Which one.
        ticket: Ticket,
        /// Done, or why not.
        answer: Result<(), Unmet>,
    },
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
        /// When it is tried again to fill its slot, or to replace the slot's worker; `None` where
        /// it won't be: it was asked to end, another worker is there to take its place, the
        /// operation that it was started for fails with it, or the fleet is about to give up.
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
    /// The worker is not ready within the ready timeout, and is stopped.
    NotReady {
        /// Which one.
        worker: WorkerId,
        /// The ready timeout.
        after: Duration,
        /// As in [`Notice::Exited`].
        restart_in: Option<Duration>,
    },
    /// The worker fails its health checks, or passes them again.
    Health {
        /// Which one.
        worker: WorkerId,
        /// Whether it is healthy.
        healthy: bool,
    },
    /// The worker's accept queue has got stuck, or moves again.
    Stall {
        /// Which one.
        worker: WorkerId,
        /// Whether it is stuck.
        stalled: bool,
    },
    /// A worker is started to take another's place.
    Replacing {
        /// The one to be replaced; it may have failed already.
        old: WorkerId,
        /// The one that is started.
        new: WorkerId,
        /// Why.
        reason: Reason,
    },
    /// A worker that leaves has finished its connections and is told to end.
    Drained {
        /// Which one.
        worker: WorkerId,
    },
    /// A worker that leaves has not finished its connections in time, and is told to end.
    DrainTimedOut {
        /// Which one.
        worker: WorkerId,
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

/// Why a worker is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// [`Request::Reload`].
    Reload,
    /// [`Request::Restart`].
    Restart,
    /// It fails its health checks.
    Unhealthy,
    /// It has reached a limit.
    Recycle(Recycle),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.pad("reload"),
            Self::Restart => f.pad("restart"),
            Self::Unhealthy => f.pad("unhealthy"),
            Self::Recycle(recycle) => recycle.fmt(f),
        }
    }
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
    /// Of a leaving worker in [`State::Draining`]: when it is told to end, whatever is open then.
    /// `None` where nothing hurries it.
    pub drain_deadline: Option<Duration>,
    /// Whether it has lost its place in the slot and is on its way out.
    pub leaving: bool,
}
