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
    /// Its main process ended and others are left.
    Exited,
    /// Its main process ended and none is left.
    Vanished,
    /// Stop it.
    Stop(StopMode),
    /// Its deadline has passed.
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
        // The phases of a current worker. Each of them can end in a crash.
        (P::Spawning | P::Starting | P::Quiet | P::Ready, I::Vanished) => (P::Gone, &[Release]),
        (P::Spawning | P::Starting | P::Quiet | P::Ready, I::Exited) => {
            (P::Killed, &[Kill, TellLeftProcesses])
        }

        (P::Spawning, I::Spawned) => (P::Starting, &[]),
        (P::Spawning, I::SpawnFailed) => (P::Gone, &[Release]),
        (P::Spawning, I::Listening) => (P::Ready, &[TellReady]),
        (P::Spawning, I::Stop(mode)) => (P::Recalled(mode), &[]),
        (P::Spawning, I::Overdue) => stay,

        (P::Starting, I::Listening) => (P::Ready, &[TellReady]),
        (P::Starting, I::Stop(Graceful)) => (P::Signalled, &[Signal]),
        (P::Starting, I::Stop(Now)) => (P::Killed, &[Kill]),
        (P::Starting, I::Overdue) => (P::Quiet, &[TellNotListening]),
        (P::Starting, I::Spawned | I::SpawnFailed) => stay,

        (P::Quiet, I::Listening) => (P::Ready, &[TellReady]),
        (P::Quiet, I::Stop(Graceful)) => (P::Signalled, &[Signal]),
        (P::Quiet, I::Stop(Now)) => (P::Killed, &[Kill]),
        (P::Quiet, I::Spawned | I::SpawnFailed | I::Overdue) => stay,

        (P::Ready, I::Stop(Graceful)) => (P::Signalled, &[Signal]),
        (P::Ready, I::Stop(Now)) => (P::Killed, &[Kill]),
        (P::Ready, I::Spawned | I::SpawnFailed | I::Listening | I::Overdue) => stay,

        // The phases of a leaving worker.
        (P::Recalled(Graceful), I::Spawned | I::Listening | I::Exited) => (P::Signalled, &[Signal]),
        (P::Recalled(Graceful), I::SpawnFailed | I::Vanished) => (P::Gone, &[Release]),
        (P::Recalled(Graceful), I::Stop(Now) | I::Overdue) => (P::Recalled(Now), &[]),
        (P::Recalled(Graceful), I::Stop(Graceful)) => stay,

        (P::Recalled(Now), I::Spawned | I::Listening | I::Exited) => (P::Killed, &[Kill]),
        (P::Recalled(Now), I::SpawnFailed | I::Vanished) => (P::Gone, &[Release]),
        (P::Recalled(Now), I::Overdue) => (P::Gone, &[TellUnkillable, Release]),
        (P::Recalled(Now), I::Stop(Graceful | Now)) => stay,

        (P::Signalled, I::Vanished) => (P::Gone, &[Release]),
        (P::Signalled, I::Stop(Now)) => (P::Killed, &[Kill]),
        (P::Signalled, I::Overdue) => (P::Killed, &[Kill, TellStopTimedOut]),
        (P::Signalled, I::Spawned | I::SpawnFailed | I::Listening | I::Exited) => stay,
        (P::Signalled, I::Stop(Graceful)) => stay,

        (P::Killed, I::Vanished) => (P::Gone, &[Release]),
        (P::Killed, I::Overdue) => (P::Gone, &[TellUnkillable, Release]),
        (P::Killed, I::Spawned | I::SpawnFailed | I::Listening | I::Exited) => stay,
        (P::Killed, I::Stop(Graceful | Now)) => stay,

        (P::Gone, I::Spawned | I::SpawnFailed | I::Listening | I::Exited) => stay,
        (P::Gone, I::Vanished | I::Stop(Graceful | Now) | I::Overdue) => stay,
    }
}
