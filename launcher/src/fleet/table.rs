//! One worker's life as one visible table: phase × input → next phase, and what to do. Without a
//! wildcard, so that a new phase or input asks about each cell.

use super::{
    Settings,
    event::{Effect, Notice, StopMode},
    worker::Phase,
};
use crate::worker::WorkerId;

/// The table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Its process runs.
    Spawned,
    /// Its process couldn't be started.
    SpawnFailed,
    /// It listens.
    Listening,
    /// It can take connections.
    Ready,
    /// It has finished its connections.
    Drained,
    /// Its main process ended and others are left.
    Exited,
    /// Its main process ended and none is left.
    Vanished,
    /// Let it finish and end.
    Leave,
    /// End it at once.
    Kill,
    /// It isn't ready in time.
    Late,
    /// Its deadline for anything else has passed.
    Overdue,
}

/// The table's entries: what the fleet has to do, or to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Signal,
    Kill,
    Release,
    TellReady,
    TellNotListening,
    TellDrained,
    TellDrainTimedOut,
    TellLeftProcesses,
    TellStopTimedOut,
    TellUnkillable,
}

impl Act {
    /// The act, for this worker.
    pub(super) fn effect(self, worker: WorkerId, settings: &Settings) -> Effect {
        match self {
            Self::Signal => Effect::Signal(worker),
            Self::Kill => Effect::Kill(worker),
            Self::Release => Effect::Release(worker),
            Self::TellReady => Effect::Notice(Notice::Ready { worker }),
            Self::TellNotListening => {
                let after = settings.listen_warning;
                Effect::Notice(Notice::NotListening { worker, after })
            }
            Self::TellDrained => Effect::Notice(Notice::Drained { worker }),
            Self::TellDrainTimedOut => Effect::Notice(Notice::DrainTimedOut { worker }),
            Self::TellLeftProcesses => Effect::Notice(Notice::LeftProcesses { worker }),
            Self::TellStopTimedOut => Effect::Notice(Notice::StopTimedOut { worker }),
            Self::TellUnkillable => Effect::Notice(Notice::Unkillable { worker }),
        }
    }
}

/// The table. A cell that stays is for an input that comes too late, twice, or can't come.
/// `Spawning` and `Recalled` take any sign of life for [`Input::Spawned`].
pub(super) fn table(phase: Phase, input: Input) -> (Phase, &'static [Act]) {
    use Act::*;
    use Input as I;
    use Phase as P;
    use StopMode::{Graceful, Now};

    let stay: (Phase, &'static [Act]) = (phase, &[]);
    match (phase, input) {
        // The phases of a worker that has its place. Each of them can end in a crash.
        (P::Spawning | P::Starting | P::Quiet | P::Listening | P::Ready, I::Vanished) => {
            (P::Gone, &[Release])
        }
        (P::Spawning | P::Starting | P::Quiet | P::Listening | P::Ready, I::Exited) => {
            (P::Killed, &[Kill, TellLeftProcesses])
        }

        (P::Spawning, I::Spawned) => (P::Starting, &[]),
        (P::Spawning, I::SpawnFailed) => (P::Gone, &[Release]),
        (P::Spawning, I::Listening) => (P::Listening, &[]),
        (P::Spawning, I::Ready) => (P::Ready, &[TellReady]),
        (P::Spawning, I::Leave) => (P::Recalled(Graceful), &[]),
        (P::Spawning, I::Kill) => (P::Recalled(Now), &[]),
        (P::Spawning, I::Drained | I::Late | I::Overdue) => stay,

        (P::Starting, I::Listening) => (P::Listening, &[]),
        (P::Starting, I::Ready) => (P::Ready, &[TellReady]),
        (P::Starting, I::Leave | I::Late) => (P::Signalled, &[Signal]),
        (P::Starting, I::Kill) => (P::Killed, &[Kill]),
        (P::Starting, I::Overdue) => (P::Quiet, &[TellNotListening]),
        (P::Starting, I::Spawned | I::SpawnFailed | I::Drained) => stay,

        (P::Quiet, I::Listening) => (P::Listening, &[]),
        (P::Quiet, I::Ready) => (P::Ready, &[TellReady]),
        (P::Quiet, I::Leave | I::Late) => (P::Signalled, &[Signal]),
        (P::Quiet, I::Kill) => (P::Killed, &[Kill]),
        (P::Quiet, I::Spawned | I::SpawnFailed | I::Drained | I::Overdue) => stay,

        (P::Listening, I::Ready) => (P::Ready, &[TellReady]),
        (P::Listening, I::Leave | I::Late) => (P::Signalled, &[Signal]),
        (P::Listening, I::Kill) => (P::Killed, &[Kill]),
        (P::Listening, I::Spawned | I::SpawnFailed | I::Listening) => stay,
        (P::Listening, I::Drained | I::Overdue) => stay,

        (P::Ready, I::Leave) => (P::Draining, &[]),
        (P::Ready, I::Kill) => (P::Killed, &[Kill]),
        (P::Ready, I::Spawned | I::SpawnFailed | I::Listening | I::Ready) => stay,
        (P::Ready, I::Drained | I::Late | I::Overdue) => stay,

        // The phases of a leaving worker.
        (P::Draining, I::Drained) => (P::Signalled, &[Signal, TellDrained]),
        (P::Draining, I::Overdue) => (P::Signalled, &[Signal, TellDrainTimedOut]),
        (P::Draining, I::Exited) => (P::Signalled, &[Signal]),
        (P::Draining, I::Vanished) => (P::Gone, &[Release]),
        (P::Draining, I::Kill) => (P::Killed, &[Kill]),
        (P::Draining, I::Spawned | I::SpawnFailed | I::Listening | I::Ready) => stay,
        (P::Draining, I::Leave | I::Late) => stay,

        (P::Recalled(Graceful), I::Spawned | I::Listening | I::Ready | I::Exited) => {
            (P::Signalled, &[Signal])
        }
        (P::Recalled(Graceful), I::SpawnFailed | I::Vanished) => (P::Gone, &[Release]),
        (P::Recalled(Graceful), I::Kill | I::Overdue) => (P::Recalled(Now), &[]),
        (P::Recalled(Graceful), I::Drained | I::Leave | I::Late) => stay,

        (P::Recalled(Now), I::Spawned | I::Listening | I::Ready | I::Exited) => {
            (P::Killed, &[Kill])
        }
        (P::Recalled(Now), I::SpawnFailed | I::Vanished) => (P::Gone, &[Release]),
        (P::Recalled(Now), I::Overdue) => (P::Gone, &[TellUnkillable, Release]),
        (P::Recalled(Now), I::Drained | I::Leave | I::Kill | I::Late) => stay,

        (P::Signalled, I::Vanished) => (P::Gone, &[Release]),
        (P::Signalled, I::Kill) => (P::Killed, &[Kill]),
        (P::Signalled, I::Overdue) => (P::Killed, &[Kill, TellStopTimedOut]),
        (P::Signalled, I::Spawned | I::SpawnFailed | I::Listening | I::Ready) => stay,
        (P::Signalled, I::Drained | I::Exited | I::Leave | I::Late) => stay,

        (P::Killed, I::Vanished) => (P::Gone, &[Release]),
        (P::Killed, I::Overdue) => (P::Gone, &[TellUnkillable, Release]),
        (P::Killed, I::Spawned | I::SpawnFailed | I::Listening | I::Ready) => stay,
        (P::Killed, I::Drained | I::Exited | I::Leave | I::Kill | I::Late) => stay,

        (P::Gone, I::Spawned | I::SpawnFailed | I::Listening | I::Ready) => stay,
        (P::Gone, I::Drained | I::Exited | I::Vanished | I::Leave) => stay,
        (P::Gone, I::Kill | I::Late | I::Overdue) => stay,
    }
}
