//! What a later launcher has to know to go on with the steering of this one.

use serde::{Deserialize, Serialize};

use crate::{sys::listeners::Endpoint, worker::WorkerId};

/// The steering of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The groups.
    pub groups: Vec<RememberedGroup>,
    /// What members that have closed had been sent, by worker.
    pub past: Vec<(WorkerId, u64)>,
}

impl Remembered {
    /// The first number that no group has for its pins, `gNUMBER`.
    pub(super) fn next_pins(&self) -> u32 {
        let used = self.groups.iter().filter_map(|group| {
            let number = group.pins.as_deref()?.strip_prefix('g')?;
            number.parse::<u32>().ok()
        });
        used.max().map_or(0, |last| last + 1)
    }
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedGroup {
    /// What its members are bound to.
    pub endpoint: Endpoint,
    /// The name of the directory with its maps, among the fleet's pins.
    pub pins: Option<String>,
    /// The owner of its members' sockets.
    pub uid: u32,
    /// One more than the highest index that a member ever had.
    pub places: u16,
    /// What had been held when its holding socket was opened.
    pub held_before: u64,
    /// Its members.
    pub members: Vec<RememberedMember>,
}

/// A member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedMember {
    /// Its place in the socket array.
    pub index: u16,
    /// Whose it is.
    pub worker: WorkerId,
    /// The socket's cookie.
    pub cookie: u64,
    /// What its place had been sent before it came.
    pub before: u64,
}
