//! Compiles a policy into the table that the kernel evaluates: which members, in which sequence.
//!
//! Pure: a table depends on the policy and the members alone.

mod cpu;
mod maglev;
mod sequence;
#[cfg(test)]
mod tests;

use std::{fmt, mem, str::FromStr};

use launcher_common::{MEMBERS_MAX, SCAN_MAX, Share, Table};

pub use self::cpu::Cpu;

/// How a member is picked for each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// One member after another, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The one with the fewest open connections for its weight.
    LeastConn,
    /// By the 4-tuple's hash; few flows move when members change.
    Hash,
    /// By the client's address; few clients move when members change.
    Source(Prefixes),
    /// By the CPU that handles the packet: the member that is pinned to it, or near it.
    Cpu,
    /// At random, each as often as its weight says.
    Random,
    /// The kernel's own hash: no program selects.
    Kernel,
}

/// Which clients are the same to [`Policy::Source`]: how many leading bits of the address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefixes {
    /// Of an IPv4 address, or one that is mapped into IPv6: 0 to 32.
    pub v4: u8,
    /// Of an IPv6 address: 0 to 128.
    pub v6: u8,
}

impl Default for Prefixes {
    /// An address of IPv4; a network of IPv6, in which a host changes its address by itself (RFC 8981).
    fn default() -> Self {
        Self { v4: 32, v6: 64 }
    }
}

impl Policy {
    /// The names that can be given. After `source` may come `:V4/V6`, the lengths of the prefixes.
    pub const NAMES: [&'static str; 7] = [
        "round-robin",
        "least-conn",
        "hash",
        "source",
        "cpu",
        "random",
        "kernel",
    ];

    /// Its name, without prefixes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[match self {
            Self::RoundRobin => 0,
            Self::LeastConn => 1,
            Self::Hash => 2,
            Self::Source(_) => 3,
            Self::Cpu => 4,
            Self::Random => 5,
            Self::Kernel => 6,
        }]
    }

    /// Whether datagrams of one client belong together: then a flow stays where it is though the table
    /// would send it elsewhere by now.
    #[must_use]
    pub const fn keeps_flows(self) -> bool {
        matches!(self, Self::Hash | Self::Source(_))
    }

    /// The index function that the kernel evaluates; none where its own hash decides.
    #[must_use]
    pub const fn index_function(self) -> Option<launcher_common::Policy> {
        Some(match self {
            Self::RoundRobin => launcher_common::Policy::RoundRobin,
            Self::LeastConn => launcher_common::Policy::LeastConn,
            Self::Hash => launcher_common::Policy::Hash,
            Self::Source(_) => launcher_common::Policy::Source,
            Self::Cpu => launcher_common::Policy::Cpu,
            Self::Random => launcher_common::Policy::Random,
            Self::Kernel => return None,
        })
    }
}

/// The policies of a fleet, as far as they were given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// For every group.
    pub all: Option<Policy>,
    /// For groups of datagrams, instead of that; not [`Policy::LeastConn`].
    pub datagrams: Option<Policy>,
}

impl Policies {
    /// The policy of groups of connections; the default is `round-robin`.
    #[must_use]
    pub fn connections(self) -> Policy {
        self.all.unwrap_or_default()
    }

    /// The policy of groups of datagrams: the default is `hash`, because turns would tear flows apart;
    /// and so it is where the policy of all is `least-conn`, because there are no connections to count.
    #[must_use]
    pub fn datagrams(self) -> Policy {
        match self.datagrams.or(self.all) {
            None | Some(Policy::LeastConn) => Policy::Hash,
            Some(policy) => policy,
        }
    }

    /// Whether the program steers at least one protocol.
    #[must_use]
    pub fn steers(self) -> bool {
        self.connections() != Policy::Kernel || self.datagrams() != Policy::Kernel
    }

    /// These for a request: `policy` for datagrams only, or for all.
    #[must_use]
    pub fn with(self, policy: Policy, datagrams: bool) -> Self {
        let policy = Some(policy);
        match datagrams {
            true => Self {
                datagrams: policy,
                ..self
            },
            false => Self {
                all: policy,
                ..self
            },
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(prefixes) if *prefixes != Prefixes::default() => {
                f.pad(&format!("source:{}/{}", prefixes.v4, prefixes.v6))
            }
            _ => f.pad(self.name()),
        }
    }
}

impl FromStr for Policy {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        Ok(match text {
            "round-robin" => Self::RoundRobin,
            "least-conn" => Self::LeastConn,
            "hash" => Self::Hash,
            "source" => Self::Source(Prefixes::default()),
            "cpu" => Self::Cpu,
            "random" => Self::Random,
            "kernel" => Self::Kernel,
            _ => match text.strip_prefix("source:") {
                Some(prefixes) => Self::Source(prefixes.parse()?),
                None => return Err(InvalidPolicy::Unknown),
            },
        })
    }
}

impl FromStr for Prefixes {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        let length = |text: &str, most: u8| {
            let length = text.parse().map_err(|_| InvalidPolicy::Prefixes)?;
            (length <= most)
                .then_some(length)
                .ok_or(InvalidPolicy::Prefixes)
        };
        let (v4, v6) = text.split_once('/').ok_or(InvalidPolicy::Prefixes)?;
        Ok(Self {
            v4: length(v4, 32)?,
            v6: length(v6, 128)?,
        })
    }
}

/// A text that is no [`Policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPolicy {
    /// None has this name.
    Unknown,
    /// The prefixes of `source` are not two lengths in range.
    Prefixes,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "unknown policy; allowed: {}", Policy::NAMES.join(", ")),
            Self::Prefixes => f.write_str(
                "the prefix lengths are given as V4/V6, at most 32 and 128, as in source:24/56",
            ),
        }
    }
}

impl std::error::Error for InvalidPolicy {}

/// A member of a group, as the table builders see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Its index in the group's socket array, below [`MEMBERS_MAX`].
    pub member: u16,
    /// Its share of the connections, relative to the other members'; 0 takes it out of the table.
    pub weight: u16,
    /// What `least-conn` knows its worker's load by.
    pub seat: u16,
    /// What `hash` places it by: flows stay where the identity stays, whatever index it has.
    pub identity: u64,
    /// The CPU that its worker is pinned to, if it is.
    pub cpu: Option<u32>,
}

/// What a table depends on besides the policy and the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site<'a> {
    /// How many slots the fleet has, however many of them have members now.
    pub slots: u32,
    /// The machine's CPUs, as far as they are known.
    pub cpus: &'a [Cpu],
}

/// The greatest weight that can be given to a slot.
pub const WEIGHT_MAX: u16 = 256;

/// Builds the table in which `policy` looks up a member.
///
/// Only the first of several members with the same index counts, and none whose index the socket
/// array doesn't have. A table without members chooses nobody, nor does that of [`Policy::Kernel`].
#[must_use]
pub fn compile(policy: Policy, members: &[Weighted], site: Site<'_>) -> Box<Table> {
    let mut table = Box::new(Table::EMPTY);
    let Some(function) = policy.index_function() else {
        return table;
    };
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
        Policy::Hash | Policy::Source(_) => maglev::build(&members, site.slots),
        Policy::Cpu => {
            let (entries, rounds) = cpu::build(&members, site.cpus);
            table.rounds = rounds;
            entries
        }
        Policy::RoundRobin | Policy::LeastConn | Policy::Random => sequence::build(&members),
        Policy::Kernel => Vec::new(),
    };
    table.policy = function as u32;
    if let Policy::Source(Prefixes { v4, v6 }) = policy {
        (table.source_v4, table.source_v6) = (u32::from(v4), u32::from(v6));
    }
    table.entries[..entries.len()].copy_from_slice(&entries);
    table.len = entries.len() as u32;
    list(&mut table, &entries, &members);
    if policy == Policy::LeastConn {
        table.scan_len = table.live_len.min(SCAN_MAX);
    }
    table
}

/// Lists each member once, in the order of its first entry; and the first ones once more, so that a
/// search that begins anywhere needs no wrap-around.
fn list(table: &mut Table, entries: &[u16], members: &[Weighted]) {
    for member in members {
        table.shares[usize::from(member.member)] = Share {
            weight: member.weight,
            seat: member.seat,
        };
    }
    let mut listed = [false; MEMBERS_MAX];
    let mut length = 0;
    for &member in entries {
        if !mem::replace(&mut listed[usize::from(member)], true) {
            table.live[length] = member;
            length += 1;
        }
    }
    // Under `cpu` there may be members that no CPU is for: they serve when others have gone.
    for member in members {
        if !mem::replace(&mut listed[usize::from(member.member)], true) {
            table.live[length] = member.member;
            length += 1;
        }
    }
    table.live_len = length as u32;
    let scanned = length.min(SCAN_MAX as usize);
    table.scan_len = scanned as u32;
    table.live.copy_within(..scanned, length);
    for (place, &member) in table.live[..length + scanned].iter().enumerate() {
        table.live_shares[place] = table.shares[usize::from(member)];
    }
}
