//! One worker's life: its phases, and what it remembers. `table` has the ways between them.
//!
//! ```text
//!   Spawning ──runs──▶ Starting ──listens──▶ Listening ──▶ Ready      Ready: may be steered to
//!      │                  │                      ▲           │
//!      │                  └──10 s──▶ Quiet ──────┘           │ its place is taken, or stop
//!      │ stop                                                ▼
//!      ▼                                                 Draining
//!   Recalled ──runs──▶ Signalled ◀──drained, or deadline─────┘
//!                         ▲   │
//!                         │   │ stop timeout, or stop now
//!     Starting, Quiet, ───┘   ▼
//!     Listening: late,      Killed ◀──crash── all phases up to Ready
//!     or stop                 │ 5 s
//!                             ▼
//!                            Gone ◀──nothing is left── any of them
//! ```
//!
//! A worker that has a place in its slot is in one of the phases up to `Ready`; in any later one it
//! is leaving. The way is downhill only, which is why it gets one stop signal and one kill at most.

use std::{fmt, time::Duration};

use super::{
    Settings,
    event::{Recycle, StopMode},
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
    /// It listens, and has yet to say or to show that it is ready.
    Listening,
    /// It takes connections.
    Ready,
    /// It fails its health checks, and takes connections only if no other worker does.
    Unhealthy,
    /// Its accept queue is stuck, and it takes connections only if no other worker does.
    Stalled,
    /// It finishes its connections and takes no other ones.
    Draining,
    /// Its slot is drained and it has no connection open.
    Drained,
    /// It was told to end, or fell, and something of it is left.
    Stopping,
    /// It failed, and its slot waits for the restart.
    Backoff,
}

impl State {
    /// Whether who is in it has become ready, and has not been told to end.
    pub fn has_been_ready(self) -> bool {
        match self {
            Self::Ready | Self::Unhealthy | Self::Stalled | Self::Draining | Self::Drained => true,
            Self::Starting | Self::Listening | Self::Stopping | Self::Backoff => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Listening => "listening",
            Self::Ready => "ready",
            Self::Unhealthy => "unhealthy",
            Self::Stalled => "stalled",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
        })
    }
}

/// The stages of a worker's life, the table's rows. What `status` shows is another cut of it: see
/// [`Worker::refresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Asked for, and no word of it yet.
    Spawning,
    /// It runs.
    Starting,
    /// It runs and has been told to a person for not listening.
    Quiet,
    /// It listens and isn't ready.
    Listening,
    /// It can take connections.
    Ready,
    /// It finishes its connections before it is told to end.
    Draining,
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
    /// What was shown of it last, and since when.
    shown: (State, Duration),
    deadline: Option<Duration>,
    /// Whether it fails when it isn't ready within the ready timeout.
    must_be_ready: bool,
    /// The end of its draining, once it has been told to leave.
    drain_by: Option<Duration>,
    /// When it is killed if it still runs, once it has been told to end.
    kill_by: Option<Duration>,
    healthy_since: Option<Duration>,
    was_ready: bool,
    unhealthy: bool,
    stalled: bool,
    /// It has finished its connections since it was last told to.
    drained: bool,
    /// When it is to be recycled for its age.
    ages_at: Option<Duration>,
    recycle: Option<Recycle>,
    main_exited: bool,
    tree_empty: bool,
}

impl Worker {
    /// A worker that has just been asked for. `must_be_ready`: not to be ready in time is a
    /// failure.
    pub(super) fn new(id: WorkerId, now: Duration, must_be_ready: bool) -> Self {
        Self {
            id,
            phase: Phase::Spawning,
            shown: (State::Starting, now),
            deadline: None,
            must_be_ready,
            drain_by: None,
            kill_by: None,
            healthy_since: None,
            was_ready: false,
            unhealthy: false,
            stalled: false,
            drained: false,
            ages_at: None,
            recycle: None,
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
        if to == from {
            return acts;
        }
        self.phase = to;
        self.deadline = match to {
            Phase::Spawning | Phase::Quiet | Phase::Ready | Phase::Gone => None,
            // It has the ready timeout once, for both.
            Phase::Starting | Phase::Listening if self.must_be_ready => {
                let ready_by = now.saturating_add(settings.ready_timeout);
                Some(self.deadline.unwrap_or(ready_by))
            }
            Phase::Starting => Some(now.saturating_add(settings.listen_warning)),
            Phase::Listening => None,
            Phase::Draining => self.drain_by,
            // The stop runs since it was asked for, however long the start or the drain took.
            Phase::Recalled(StopMode::Graceful) | Phase::Signalled => {
                let kill_by = now.saturating_add(settings.stop_timeout);
                Some(*self.kill_by.get_or_insert(kill_by))
            }
            Phase::Killed if from == Phase::Recalled(StopMode::Now) => self.deadline,
            Phase::Recalled(StopMode::Now) | Phase::Killed => {
                Some(now.saturating_add(KILL_PATIENCE))
            }
        };
        if matches!(to, Phase::Quiet | Phase::Ready) {
            self.healthy_since.get_or_insert(now);
        }
        if to == Phase::Ready {
            self.was_ready = true;
        }
        if to == Phase::Draining {
            self.drained = false;
        }
        acts
    }

    /// Tells it to leave: if it is ready, after it has finished its connections, for which it has
    /// the drain timeout (`None`: for ever). One that leaves already keeps the time it was given.
    pub(super) fn leave(
        &mut self,
        now: Duration,
        drain_timeout: Option<Duration>,
        settings: &Settings,
    ) -> &'static [Act] {
        if !self.is_leaving() {
            self.drain_by = drain_timeout.map(|timeout| now.saturating_add(timeout));
        }
        self.feed(now, Input::Leave, settings)
    }

    /// Tells it to leave because everything stops: half of the stop timeout is for its
    /// connections, and when all of it has passed it is killed.
    pub(super) fn stop(&mut self, now: Duration, settings: &Settings) -> &'static [Act] {
        let drain_by = now.saturating_add(settings.stop_timeout / 2);
        let kill_by = now.saturating_add(settings.stop_timeout);
        self.kill_by.get_or_insert(kill_by);
        let drain_by = self.drain_by.map_or(drain_by, |by| by.min(drain_by));
        self.drain_by = Some(drain_by);
        if self.phase == Phase::Draining {
            self.deadline = self.drain_by;
        }
        self.feed(now, Input::Leave, settings)
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
            | Phase::Listening
            | Phase::Ready
            | Phase::Draining
            | Phase::Signalled
            | Phase::Killed
            | Phase::Gone => {
                self.tree_empty = true;
                self.main_exited.then_some(Input::Vanished)
            }
        }
    }

    /// Notes that it has finished its connections.
    pub(super) fn set_drained(&mut self, drained: bool) {
        self.drained = drained;
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Notes the result of its health checks. Returns whether that is a change.
    pub(super) fn set_healthy(&mut self, healthy: bool) -> bool {
        let changed = self.is_ready() && self.unhealthy == healthy;
        self.unhealthy ^= changed;
        changed
    }

    /// Notes whether its accept queue is stuck. Returns whether that is a change.
    pub(super) fn set_stalled(&mut self, stalled: bool) -> bool {
        let changed = self.is_ready() && self.stalled != stalled;
        self.stalled ^= changed;
        changed
    }

    pub(super) fn is_unhealthy(&self) -> bool {
        self.unhealthy
    }

    /// Whether there is a reason not to send connections to it while it is ready.
    pub(super) fn is_ailing(&self) -> bool {
        self.unhealthy || self.stalled
    }

    /// Asks for its replacement, for the first reason there is.
    pub(super) fn set_recycle(&mut self, reason: Recycle) {
        if self.is_ready() {
            self.recycle.get_or_insert(reason);
        }
    }

    /// Why it is to be recycled, if it is.
    pub(super) fn recycle(&self) -> Option<Recycle> {
        self.recycle
    }

    /// Sets when it is to be recycled for its age.
    pub(super) fn set_age_limit(&mut self, at: Duration) {
        self.ages_at = Some(at);
    }

    /// Lets it age: a limit that has been reached becomes a reason.
    pub(super) fn grow_old(&mut self, now: Duration) {
        if self.ages_at.take_if(|at| *at <= now).is_some() {
            self.set_recycle(Recycle::Age);
        }
    }

    pub(super) fn id(&self) -> WorkerId {
        self.id
    }

    /// When it wants to be asked for what is [`Worker::overdue`], or to grow old.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let ages_at = self.ages_at.filter(|_| self.is_ready());
        self.deadline.into_iter().chain(ages_at).min()
    }

    /// What its deadline means, if it has passed.
    pub(super) fn overdue(&self, now: Duration) -> Option<Input> {
        let late = self.must_be_ready && matches!(self.phase, Phase::Starting | Phase::Listening);
        let input = if late { Input::Late } else { Input::Overdue };
        self.deadline.filter(|at| *at <= now).map(|_| input)
    }

    /// When its draining ends at the latest, while it drains.
    pub(super) fn drain_deadline(&self) -> Option<Duration> {
        self.deadline.filter(|_| self.phase == Phase::Draining)
    }

    /// How long it has been ready, or running past the warning that it doesn't listen.
    pub(super) fn healthy_for(&self, now: Duration) -> Option<Duration> {
        self.healthy_since.map(|since| now.saturating_sub(since))
    }

    pub(super) fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(super) fn is_draining(&self) -> bool {
        self.phase == Phase::Draining
    }

    pub(super) fn is_leaving(&self) -> bool {
        match self.phase {
            Phase::Spawning | Phase::Starting | Phase::Quiet | Phase::Listening | Phase::Ready => {
                false
            }
            Phase::Draining
            | Phase::Recalled(_)
            | Phase::Signalled
            | Phase::Killed
            | Phase::Gone => true,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// What to show of it and since when that holds, as of the last [`Worker::refresh`].
    pub(super) fn shown(&self) -> (State, Duration) {
        self.shown
    }

    /// Notes what to show of it, given whether its slot is drained. A worker that is gone isn't
    /// shown any more.
    pub(super) fn refresh(&mut self, now: Duration, parked: bool) {
        let state = match self.phase {
            Phase::Spawning | Phase::Starting | Phase::Quiet => State::Starting,
            Phase::Listening => State::Listening,
            Phase::Ready if parked && self.drained => State::Drained,
            Phase::Ready if parked => State::Draining,
            Phase::Ready if self.unhealthy => State::Unhealthy,
            Phase::Ready if self.stalled => State::Stalled,
            Phase::Ready => State::Ready,
            Phase::Draining => State::Draining,
            Phase::Recalled(_) | Phase::Signalled | Phase::Killed | Phase::Gone => State::Stopping,
        };
        if state != self.shown.0 {
            self.shown = (state, now);
        }
    }
}
