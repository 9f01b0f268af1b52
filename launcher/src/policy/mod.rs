//! Compiles a policy into the table that the kernel evaluates: which members, in which sequence.
//!
//! Pure: a table depends on the policy and the members alone.

mod maglev;
mod sequence;
#[cfg(test)]
mod tests;

use std::{fmt, mem, str::FromStr};

use launcher_common::{MEMBERS_MAX, Table};

/// How a member is picked for each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One member after another, each as often as its weight says.
    #[default]
    RoundRobin,
    /// By the 4-tuple's hash; few flows move when members change.
    Hash,
    /// The kernel's own hash: no program selects.
    Kernel,
}

impl Policy {
    /// The names that can be given, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["round-robin", "hash", "kernel"];

    /// The index function that the kernel evaluates; none where its own hash decides.
    #[must_use]
    pub const fn index_function(self) -> Option<launcher_common::Policy> {
        match self {
            Self::RoundRobin => Some(launcher_common::Policy::RoundRobin),
            Self::Hash => Some(launcher_common::Policy::Hash),
            Self::Kernel => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::NAMES[*self as usize])
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        [Self::RoundRobin, Self::Hash, Self::Kernel]
            .into_iter()
            .find(|policy| Self::NAMES[*policy as usize] == name)
            .ok_or(UnknownPolicy)
    }
}

/// No [`Policy`] has the given name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown policy; allowed: {}", Policy::NAMES.join(", "))
    }
}

impl std::error::Error for UnknownPolicy {}

/// A member of a group, as the table builders see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Its index in the group's socket array, below [`MEMBERS_MAX`].
    pub member: u16,
    /// Its share of the connections, relative to the other members'; 0 takes it out of the table.
    pub weight: u32,
    /// What `hash` places it by: flows stay where the identity stays, whatever index it has.
    pub identity: u64,
}

/// Builds the table in which `policy` looks up a member, for a fleet of this many slots, however
/// many of them have members now.
///
/// Only the first of several members with the same index counts, and none whose index the socket
/// array doesn't have. A table without members chooses nobody.
#[must_use]
pub fn compile(policy: launcher_common::Policy, members: &[Weighted], slots: u32) -> Box<Table> {
    let mut known = [false; MEMBERS_MAX];
    let members: Vec<Weighted> = members
        .iter()
        .filter(|member| member.weight > 0)
        .filter(|member| {
            known
                .get_mut(usize::from(member.member))
                .is_some_and(|known| !mem::replace(known, true))
        })
        .copied()
        .collect();
    let entries = match policy {
        launcher_common::Policy::RoundRobin => sequence::build(&members),
        launcher_common::Policy::Hash => maglev::build(&members, slots),
    };
    fill(policy, &entries)
}

/// Copies `entries` into a table, and each member's first occurrence into its list of live ones.
fn fill(policy: launcher_common::Policy, entries: &[u16]) -> Box<Table> {
    let mut table = Box::new(Table::EMPTY);
    table.policy = policy as u32;
    table.entries[..entries.len()].copy_from_slice(entries);
    table.len = entries.len() as u32;
    let mut listed = [false; MEMBERS_MAX];
    for &member in entries {
        if !mem::replace(&mut listed[usize::from(member)], true) {
            table.live[table.live_len as usize] = member;
            table.live_len += 1;
        }
    }
    table
}
