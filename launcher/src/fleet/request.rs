//! What a person can ask of a fleet, and why it may not get it. Data only.

use std::{fmt, time::Duration};

use super::{event::Cause, placement::WORKERS_MAX};
use crate::worker::WorkerId;

/// Names a request in its answer. The caller makes sure that no two open requests share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Something that is asked for. Each request is answered once, with
/// [`super::Effect::Answer`], unless the fleet has already ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Replace every worker; done when the old ones are gone.
    Reload {
        /// For how long the old workers may finish their connections (`None`: for ever), instead
        /// of the fleet's drain timeout.
        drain_timeout: Option<Option<Duration>>,
    },
    /// Have so many slots, `1..=WORKERS_MAX`. Done when the added ones are ready, or the removed
    /// ones are gone.
    Scale(u32),
    /// Have so many slots more (or less).
    ScaleBy(i32),
    /// Replace the worker of this slot; done when the old one is gone.
    Restart(u32),
    /// Let the worker of this slot finish its connections and take no other ones, nor those that
    /// replace it; done when none is open.
    Drain(u32),
    /// Let this slot take connections again. Done at once.
    Undrain(u32),
    /// Give this slot such a share of the connections, relative to the others'. Done at once.
    Weigh {
        /// Which one.
        slot: u32,
        /// 0: no new ones.
        weight: u16,
    },
}

/// The requests of which only one is carried out at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// [`Request::Reload`].
    Reload,
    /// [`Request::Scale`] and [`Request::ScaleBy`].
    Scale,
    /// [`Request::Restart`].
    Restart,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reload => "reload",
            Self::Scale => "scale",
            Self::Restart => "restart",
        })
    }
}

/// What is being carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was asked for.
    pub verb: Verb,
    /// The slots that are done.
    pub done: u32,
    /// The slots that it is about.
    pub of: u32,
}

/// Why a request was not met, or not in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// Nothing was done.
    Refused(Refusal),
    /// A worker that was to take its place failed. What was done until then stays done.
    Failed {
        /// How far it had come.
        operation: Operation,
        /// Which worker.
        worker: WorkerId,
        /// What it failed of.
        cause: Cause,
    },
    /// The drain timeout has passed and the worker still has connections open. It goes on
    /// serving them.
    StillOpen {
        /// Whose connections.
        worker: WorkerId,
        /// The drain timeout.
        after: Duration,
    },
    /// The worker that was to finish its connections ended, or was told to.
    Ended {
        /// Which one.
        worker: WorkerId,
    },
    /// Somebody else asked for the opposite.
    Undrained {
        /// Which slot takes connections again.
        slot: u32,
    },
    /// The fleet was stopped in the meantime.
    Stopped,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The fleet stops, or hasn't started.
    NotRunning,
    /// Something else is being carried out.
    Busy(Operation),
    /// There is no such slot.
    NoSuchSlot {
        /// The one asked for.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// A fleet has at least one slot.
    NoSlots,
    /// A fleet has at most [`WORKERS_MAX`] slots.
    TooManySlots,
    /// No worker would be left that takes connections.
    LastWorker,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed {
                operation: Operation { done, of, .. },
                worker,
                cause,
            } => write!(f, "worker {worker}: {cause} ({done} of {of} slots done)"),
            Self::StillOpen { worker, after } => write!(
                f,
                "worker {worker} still has connections open after {} s",
                after.as_secs_f64()
            ),
            Self::Ended { worker } => {
                write!(f, "worker {worker} ended before its connections did")
            }
            Self::Undrained { slot } => write!(f, "slot {slot} was told to take connections again"),
            Self::Stopped => f.write_str("the launcher was stopped meanwhile"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("the launcher is starting or stopping"),
            Self::Busy(operation) => {
                let Operation { verb, done, of } = operation;
                write!(f, "a {verb} is under way ({done} of {of})")
            }
            Self::NoSuchSlot { slot, slots: 1 } => {
                write!(f, "no slot {slot}: there is slot 0 only")
            }
            Self::NoSuchSlot { slot, slots } => {
                let last = slots.saturating_sub(1);
                write!(f, "no slot {slot}: there are 0 to {last}")
            }
            Self::NoSlots => f.write_str("at least one worker is needed"),
            Self::TooManySlots => write!(f, "at most {WORKERS_MAX} workers are possible"),
            Self::LastWorker => f.write_str("no worker would be left that takes connections"),
        }
    }
}
