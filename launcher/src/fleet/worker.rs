//! One worker's life: its phases, and what it remembers. `table` has the ways between them.
//!
//! ```text
//!   Spawning ──runs──▶ Starting ──listens──▶ Ready          Ready: in the steer set
//!      │                  │                    ▲
//!      │                  └──10 s──▶ Quiet ────┘ listens
//!      │ stop
//!      ▼
//!   Recalled ──runs──▶ Signalled ◀──stop── Starting, Quiet, Ready
//!                         │ stop timeout, or stop now
//!                         ▼
//!                       Killed ◀──crash── Spawning, Starting, Quiet, Ready
//!                         │ 5 s
//!                         ▼
//!                        Gone ◀──nothing is left── any of them
//! ```
//!
//! A slot's current worker is in one of the phases up to `Ready`; in any later one it is leaving.
//! The way is downhill only, which is why it gets one stop signal and one kill at most.

use std::{fmt, time::Duration};

use super::{
    Settings,
    event::StopMode,
    table::{Act, Input, table},
};
use crate::worker::WorkerId;

/// How long killed processes may take to vanish before they are given up.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What `status` calls the stage a worker or its slot is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It doesn't listen yet.
    Starting,
    /// It takes connections.
    Ready,
    /// It was told to end, or fell, and something of it is left.
    Stopping,
    /// It failed, and its slot waits for the restart.
    Backoff,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
        })
    }
}

/// The stages of a worker's life, the table's rows. More than [`State`] has, because what to do
/// differs where what is seen doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Asked for, and no word of it yet.
    Spawning,
    /// It runs.
    Starting,
    /// It runs and has been told to a person for not listening.
    Quiet,
    /// It listens.
    Ready,
    /// Asked for, and to be stopped like this as soon as it runs.
    Recalled(StopMode),
    /// It has had its stop signal.
    Signalled,
    /// It has been killed.
    Killed,
    /// Nothing of it is left.
    Gone,
}

/// One worker: where it stands in the table, and since when.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    id: WorkerId,
    phase: Phase,
    since: Duration,
    deadline: Option<Duration>,
    healthy_since: Option<Duration>,
    was_ready: bool,
    main_exited: bool,
    tree_empty: bool,
}

impl Worker {
    /// A worker that has just been asked for.
    pub(super) fn new(id: WorkerId, now: Duration) -> Self {
        Self {
            id,
            phase: Phase::Spawning,
            since: now,
            deadline: None,
            healthy_since: None,
            was_ready: false,
            main_exited: false,
            tree_empty: false,
        }
    }

    /// Moves on, and returns what there is to do.
    pub(super) fn feed(
        &mut self,
        now: Duration,
        input: Input,
        settings: &Settings,
    ) -> &'static [Act] {
        let from = self.phase;
        let (to, acts) = table(from, input);
        if to != from {
            let shown = self.state();
            self.phase = to;
            if self.state() != shown {
                self.since = now;
            }
            self.deadline = match (from, to) {
                // The stop runs since the recall, however long the start took.
                (Phase::Recalled(StopMode::Graceful), Phase::Signalled)
                | (Phase::Recalled(StopMode::Now), Phase::Killed) => self.deadline,
                (_, Phase::Spawning | Phase::Quiet | Phase::Ready | Phase::Gone) => None,
                (_, Phase::Starting) => Some(now.saturating_add(settings.listen_warning)),
                (_, Phase::Recalled(StopMode::Graceful) | Phase::Signalled) => {
                    Some(now.saturating_add(settings.stop_timeout))
                }
                (_, Phase::Recalled(StopMode::Now) | Phase::Killed) => {
                    Some(now.saturating_add(KILL_PATIENCE))
                }
            };
            if matches!(to, Phase::Quiet | Phase::Ready) {
                self.healthy_since.get_or_insert(now);
            }
            self.was_ready |= to == Phase::Ready;
        }
        acts
    }

    /// Notes that the main process ended. `None` if that was known.
    pub(super) fn main_exited(&mut self) -> Option<Input> {
        if self.main_exited {
            return None;
        }
        self.main_exited = true;
        Some(if self.tree_empty {
            Input::Vanished
        } else {
            Input::Exited
        })
    }

    /// Notes that the cgroup is empty. `None` where that changes nothing yet.
    pub(super) fn tree_emptied(&mut self) -> Option<Input> {
        match self.phase {
            // A cgroup that nothing has entered yet is empty too.
            Phase::Spawning | Phase::Recalled(_) => None,
            Phase::Starting
            | Phase::Quiet
            | Phase::Ready
            | Phase::Signalled
            | Phase::Killed
            | Phase::Gone => {
                self.tree_empty = true;
                self.main_exited.then_some(Input::Vanished)
            }
        }
    }

    pub(super) fn id(&self) -> WorkerId {
        self.id
    }

    /// When it wants [`Input::Overdue`].
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(super) fn is_overdue(&self, now: Duration) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// How long it has been ready, or running past the warning that it doesn't listen.
    pub(super) fn healthy_for(&self, now: Duration) -> Option<Duration> {
        self.healthy_since.map(|since| now.saturating_sub(since))
    }

    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.state() == State::Stopping
    }

    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// What to show, and since when it holds. A worker that is gone isn't shown any more.
    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Spawning | Phase::Starting | Phase::Quiet => State::Starting,
            Phase::Ready => State::Ready,
            Phase::Recalled(_) | Phase::Signalled | Phase::Killed | Phase::Gone => State::Stopping,
        }
    }

    pub(super) fn since(&self) -> Duration {
        self.since
    }
}
