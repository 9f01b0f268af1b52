//! How busy a member is: what `least-conn` compares.
//!
//! Connections that are established are counted exactly, from their establishment to their close.
//! Handshakes are counted too: on a long path many begin before the first is established, and all
//! would go to the same member. Some never end, so they are counted by epochs, and forgotten after
//! two.

use crate::MEMBERS_MAX;

/// How long an epoch is: 2³¹ ns, a little more than 2 s. A handshake counts for one or two of them.
const EPOCH_SHIFT: u32 = 31;

/// The bits of one count of handshakes; the epoch's number has the rest of a word.
const COUNT_BITS: u32 = 22;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const EPOCH_MAX: u64 = (1 << (64 - 2 * COUNT_BITS)) - 1;

/// How many connections of a fleet that have moved to another worker are told apart at a time. Of more,
/// the rest is counted for the workers at which they began.
pub const MOVED_MAX: usize = 65_536;

/// How many connections of a group that have moved without being counted for the worker that they moved to
/// are known at a time; of more, those that moved last.
pub const STRAYS_MAX: usize = 4096;

/// What one worker has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Load {
    /// Its established connections, accepted or not, on whatever port.
    pub active: u64,
    /// The handshakes in flight: [`Handshakes`] as a number, so that it can be exchanged whole.
    pub handshakes: u64,
}

impl Load {
    /// Nothing to do.
    pub const NONE: Self = Self {
        active: 0,
        handshakes: 0,
    };

    /// All that it has to do, at the time of this epoch.
    #[inline(always)]
    #[must_use]
    pub fn total(&self, epoch: u64) -> u32 {
        (self.active as u32).wrapping_add(Handshakes(self.handshakes).count(epoch))
    }
}

/// The loads of a fleet's workers. The holding sockets have none: what waits there is no load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Loads {
    /// By their seats: numbers of workers that run, of whatever slot and generation.
    pub seats: [Load; MEMBERS_MAX],
    /// How many established connections have moved to another worker, ever: while it is 0 none has to
    /// be looked up when it closes.
    pub moved: u64,
}

const _: () = assert!(size_of::<Loads>() == 16 * MEMBERS_MAX + 8);

/// The epoch of a time of the monotonic clock, in ns.
#[inline(always)]
#[must_use]
pub const fn epoch(now: u64) -> u64 {
    (now >> EPOCH_SHIFT) & EPOCH_MAX
}

/// Handshakes in flight: the epoch's number, how many began in the one before, and in this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes(pub u64);

impl Handshakes {
    #[inline(always)]
    const fn of(epoch: u64, before: u64, now: u64) -> Self {
        Self(epoch << (2 * COUNT_BITS) | before << COUNT_BITS | now)
    }

    #[inline(always)]
    const fn before(self) -> u64 {
        (self.0 >> COUNT_BITS) & COUNT_MAX
    }

    #[inline(always)]
    const fn now(self) -> u64 {
        self.0 & COUNT_MAX
    }

    /// How many epochs ago it was counted.
    #[inline(always)]
    const fn age(self, epoch: u64) -> u64 {
        epoch.wrapping_sub(self.0 >> (2 * COUNT_BITS)) & EPOCH_MAX
    }

    /// The same at the time of this epoch: those that began more than one epoch before are forgotten.
    #[inline(always)]
    const fn at(self, epoch: u64) -> Self {
        let age = self.age(epoch);
        if age == 0 {
            self
        } else if age == 1 {
            Self::of(epoch, self.now(), 0)
        } else {
            Self::of(epoch, 0, 0)
        }
    }

    /// How many are in flight.
    #[inline(always)]
    #[must_use]
    pub const fn count(self, epoch: u64) -> u32 {
        // How far it is behind is left in place of its epoch: for most, nothing.
        let behind = Self(self.0.wrapping_sub(epoch << (2 * COUNT_BITS)));
        match behind.0 >> (2 * COUNT_BITS) {
            0 => (behind.before() + behind.now()) as u32,
            EPOCH_MAX => behind.now() as u32,
            _ => 0,
        }
    }

    /// One more has begun.
    #[inline(always)]
    #[must_use]
    pub const fn begun(self, epoch: u64) -> Self {
        let at = self.at(epoch);
        if at.now() == COUNT_MAX {
            at
        } else {
            Self(at.0 + 1)
        }
    }

    /// One has been completed: the oldest, because it doesn't matter which.
    #[inline(always)]
    #[must_use]
    pub const fn completed(self, epoch: u64) -> Self {
        let at = self.at(epoch);
        if at.before() > 0 {
            Self(at.0 - (1 << COUNT_BITS))
        } else if at.now() > 0 {
            Self(at.0 - 1)
        } else {
            // It began too long ago, or before anybody counted.
            at
        }
    }
}
