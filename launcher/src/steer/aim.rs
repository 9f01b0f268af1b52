//! Whom a fleet steers to.

use std::collections::{BTreeMap, HashMap};

use super::group::Member;
use crate::{
    policy::{Cpu, Site, Weighted},
    worker::WorkerId,
};

/// The CPUs, as far as the policy `cpu` wants to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus {
    /// Those of the machine.
    pub machine: Vec<Cpu>,
    /// Those that the slots are pinned to, one each, over and over; empty where none is.
    pub pinned: Vec<u32>,
}

impl Cpus {
    fn of(&self, slot: u32) -> Option<u32> {
        let index = (slot as usize).checked_rem(self.pinned.len())?;
        self.pinned.get(index).copied()
    }
}

/// Whom the groups are to steer to, and by which shares.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    /// The workers that take connections.
    pub(super) ready: Vec<WorkerId>,
    /// The weights of slots; 1 where none is given.
    pub(super) weights: BTreeMap<u32, u16>,
    /// How many slots the fleet has.
    pub(super) slots: u32,
    pub(super) cpus: Cpus,
}

impl Aim {
    /// What a table depends on besides the members.
    pub(super) fn site(&self) -> Site<'_> {
        Site {
            slots: self.slots,
            cpus: &self.cpus.machine,
        }
    }

    /// The ready workers' members, with the identities by which `hash` keeps flows in place: a worker's
    /// slot and the number of the socket among its sockets, which a restart does not change.
    pub(super) fn weigh(&self, members: &BTreeMap<u16, Member>) -> Vec<Weighted> {
        let mut sockets: HashMap<WorkerId, u64> = HashMap::new();
        let mut weighted = Vec::new();
        for (&index, member) in members {
            let slot = member.worker.slot;
            let weight = self.weights.get(&slot).copied().unwrap_or(1);
            if weight == 0 || !self.ready.contains(&member.worker) {
                continue;
            }
            let number = sockets.entry(member.worker).or_default();
            weighted.push(Weighted {
                member: index,
                weight,
                seat: member.seat,
                identity: u64::from(slot) << 16 | *number,
                cpu: self.cpus.of(slot),
            });
            *number += 1;
        }
        weighted
    }
}
