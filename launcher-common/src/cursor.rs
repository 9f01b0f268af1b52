//! How several CPUs take turns: all from one counter, each from a cursor of its own, or from its own
//! only where it is busy.

#[cfg(feature = "user")]
use aya::Pod;

/// How many turns a CPU takes from the shared counter in one tick (of 1 to 10 ms) before it goes on
/// with its own.
pub const QUIET_MAX: u64 = 64;

/// What one CPU knows of the turns it has taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CpuCursor {
    /// Its own next turn. CPUs start at different ones, or all would begin with the same member.
    pub next: u64,
    /// The tick in which it last took a turn.
    pub tick: u64,
    /// How many it has taken in that tick.
    pub taken: u64,
}

const _: () = assert!(size_of::<CpuCursor>() == 24);

impl CpuCursor {
    /// That of a CPU which has taken none; `cpu` is its number.
    #[must_use]
    pub const fn of(cpu: u64) -> Self {
        Self {
            next: cpu,
            tick: 0,
            taken: 0,
        }
    }

    /// Its own next turn: no other CPU's has anything to do with it.
    #[inline(always)]
    pub fn own(&mut self) -> u64 {
        let turn = self.next;
        self.next = turn.wrapping_add(1);
        turn
    }

    /// The next turn of the `shared` counter, unless this CPU is busy: then its own.
    #[inline(always)]
    pub fn shared_while_quiet(&mut self, tick: u64, shared: impl FnOnce() -> u64) -> u64 {
        if self.tick != tick {
            self.tick = tick;
            self.taken = 0;
        }
        self.taken += 1;
        if self.taken > QUIET_MAX {
            self.own()
        } else {
            shared()
        }
    }
}

// SAFETY: plain integers without padding (asserted above), so every byte pattern is valid and every
// byte is initialised.
#[cfg(feature = "user")]
unsafe impl Pod for CpuCursor {}
