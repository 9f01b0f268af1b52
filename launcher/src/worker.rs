//! What a worker is called, everywhere.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One running copy of the command: a slot and a generation. Shown as `slot.generation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkerId {
    /// `0..workers`; stable across restarts.
    pub slot: u32,
    /// Grows by one with each replacement, from 1.
    pub generation: u64,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}
