//! Flows of datagrams: those from one address and port of a client to one address of ours. The kernel
//! notes where each goes and keeps it there until it has been idle for a time, whatever becomes of the
//! table; see `launcher-ebpf/src/bin/steer/datagrams.rs`.

use std::{collections::BTreeMap, error::Error, io, os::fd::AsFd as _, time::Duration};

use aya::maps::{Array, Map, MapData, MapError};
use launcher_common::{Flow, FlowState};

use super::{
    Steering,
    batch::for_each_value,
    group::{Group, Member},
};
use crate::{sys::clock::kernel_now, worker::WorkerId};

/// The flows of a group, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowsView {
    /// Those that are not idle.
    pub now: u64,
    /// How many have room.
    pub max: u32,
    /// Those that had to make room.
    pub evicted: u64,
}

/// A group's flow table, and when each member was last sent something of a flow.
pub(super) struct FlowTable {
    flows: MapData,
    flowed: Array<MapData, u64>,
    sockets: Array<MapData, u32>,
    /// What is in `sockets`, but for zeros.
    kept: BTreeMap<u16, u32>,
    max: u32,
}

impl FlowTable {
    /// Of the maps `FLOWS`, which has room for `max`, `FLOWED` and `SOCKETS`.
    ///
    /// # Errors
    /// When they are of other types.
    pub(super) fn new(
        flows: Map,
        flowed: Map,
        sockets: Map,
        max: u32,
    ) -> Result<Self, Box<dyn Error>> {
        let Map::LruHashMap(flows) = flows else {
            return Err(io::Error::other("FLOWS is not an LRU hash map").into());
        };
        Ok(Self {
            flows,
            flowed: flowed.try_into()?,
            sockets: sockets.try_into()?,
            kept: BTreeMap::new(),
            max,
        })
    }

    /// Has flows stay with these members, which have sockets of these numbers, and with no others.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn keep(&mut self, keepers: &BTreeMap<u16, u32>) -> Result<(), MapError> {
        let gone = self
            .kept
            .keys()
            .filter(|index| !keepers.contains_key(index));
        let new = keepers
            .iter()
            .filter(|(index, number)| self.kept.get(index) != Some(number));
        let changes = gone.map(|&index| (index, 0));
        for (index, number) in changes.chain(new.map(|(&index, &number)| (index, number))) {
            self.sockets.set(u32::from(index), number, 0)?;
        }
        self.kept.clone_from(keepers);
        Ok(())
    }

    /// Counts the flows: those whose last datagram came after this time of the kernel's clock, in ns,
    /// and all that have an entry.
    fn count(&self, after: u64) -> io::Result<(u64, u64)> {
        let (mut recent, mut all) = (0, 0);
        for_each_value::<Flow, FlowState>(self.flows.fd().as_fd(), |flow| {
            all += 1;
            recent += u64::from(flow.last > after);
        })?;
        Ok((recent, all))
    }
}

impl Group {
    fn flow_table(&self) -> Option<&FlowTable> {
        self.program.as_ref()?.flows.as_ref()
    }

    /// How long its flows stay with their members after their last datagram; `None` where the policy
    /// sends each datagram for itself.
    pub(super) fn kept_for(&self) -> Option<Duration> {
        let table = self.flow_table();
        self.flow_timeout
            .filter(|_| table.is_some() && self.policy.keeps_flows())
    }

    /// The numbers of the sockets with which flows stay, by member. Among them are those of workers that
    /// are not ready yet: they have no flows.
    pub(super) fn keepers(&self) -> BTreeMap<u16, u32> {
        if self.kept_for().is_none() {
            return BTreeMap::new();
        }
        self.members
            .iter()
            .filter(|(_, member)| !self.ailing.contains(&member.worker))
            .map(|(&index, member)| (index, number(member)))
            .collect()
    }

    /// What there is to know of its flows. (With as many as fit it takes time: see
    /// [`for_each_value`].)
    pub(super) fn flows(&self) -> Option<FlowsView> {
        let timeout = self.kept_for()?;
        let table = self.flow_table()?;
        let after = kernel_now().saturating_sub(timeout);
        let (now, all) = table.count(nanoseconds(after)).ok()?;
        Some(FlowsView {
            now,
            max: table.max,
            evicted: self.program.as_ref()?.flows_seen().saturating_sub(all),
        })
    }

    /// Whether the member with this index has a flow that is not idle. What the kernel does not tell may
    /// be one.
    fn has_flow(&self, index: u16) -> bool {
        let (Some(timeout), Some(table)) = (self.kept_for(), self.flow_table()) else {
            return false;
        };
        let idle_since = nanoseconds(kernel_now().saturating_sub(timeout));
        let last = table.flowed.get(&u32::from(index), 0);
        last.map_or(true, |last| last > idle_since)
    }
}

impl Steering {
    /// Whether a worker has flows of datagrams that stay with it, in any of its groups.
    #[must_use]
    pub fn has_flows(&self, worker: WorkerId) -> bool {
        let members = self.groups.values().flat_map(|group| {
            let members = group.members.iter();
            members.map(move |(&index, member)| (group, index, member))
        });
        !self.ailing.contains(&worker)
            && members
                .filter(|(_, _, member)| member.worker == worker)
                .any(|(group, index, _)| group.has_flow(index))
    }
}

/// The number by which flows know a member's socket again: the end of its cookie, and never 0. Two
/// sockets that have one place of a group in turn do not have the same.
fn number(member: &Member) -> u32 {
    (member.cookie as u32).max(1)
}

/// As the kernel counts time. (2^64 ns are 584 years.)
pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
