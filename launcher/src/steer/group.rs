//! One group: its members, its program, and the table in force.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    os::fd::OwnedFd,
    time::Instant,
};

use super::program::Program;
use crate::{
    failure::Failure,
    policy::{Weighted, compile},
    sys::{
        listeners::{Endpoint, Inspected, inspect},
        privilege::ebpf_failure,
    },
    worker::WorkerId,
};

/// A group that has or had members.
#[derive(Debug)]
pub(super) struct Group {
    /// `None` leaves the choice to the kernel.
    pub(super) policy: Option<launcher_common::Policy>,
    /// There is one where there is a policy.
    pub(super) program: Option<Program>,
    /// How many slots the fleet has.
    pub(super) slots: u32,
    pub(super) members: BTreeMap<u16, Member>,
    /// One more than the highest index that a member ever had.
    pub(super) places: u16,
    /// What the table in force was compiled from.
    pub(super) installed: Vec<Weighted>,
    /// Copies of members' sockets through which the program is yet to be attached.
    pub(super) unattached: Vec<OwnedFd>,
    /// Since when it was seen to have no members.
    pub(super) deserted: Option<Instant>,
}

/// A member of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) cookie: u64,
    /// What its place in the socket array had been sent before it came.
    pub(super) before: u64,
}

impl Group {
    /// Brings the table in line with the ready workers, and the program to the group.
    pub(super) fn steer(&mut self, endpoint: &Endpoint, ready: &[WorkerId]) -> Result<(), Failure> {
        let (Some(program), Some(policy)) = (&mut self.program, self.policy) else {
            return Ok(());
        };
        let wanted = weigh(&self.members, ready);
        let failed =
            |error: &(dyn Error + 'static)| ebpf_failure(format!("cannot steer {endpoint}"), error);
        if wanted != self.installed {
            program
                .install(&compile(policy, &wanted, self.slots))
                .map_err(|error| failed(&error))?;
            self.installed = wanted;
        }
        // With an empty table the program refuses connections, so it must not be attached before
        // there is somebody to steer to. It is attached through every new member, not once,
        // because the kernel forgets it whenever the group's last socket closes.
        if !self.installed.is_empty() {
            for socket in self.unattached.drain(..) {
                if let Err(error) = program.attach(&socket)
                    && still_listens(&socket)
                {
                    return Err(failed(&error));
                }
            }
        }
        Ok(())
    }

    pub(super) fn sent_to(&self, index: u16, member: &Member) -> u64 {
        let sent = self
            .program
            .as_ref()
            .map_or(0, |program| program.sent_to(index));
        sent.saturating_sub(member.before)
    }
}

/// Whether a socket that the kernel refuses could be expected to be accepted: a server may close it
/// at any time.
pub(super) fn still_listens(socket: &OwnedFd) -> bool {
    matches!(inspect(socket), Ok(Inspected::Endpoint(_)))
}

/// The ready workers' members, with the identities by which `hash` keeps flows in place: a worker's
/// slot and the number of the socket among its sockets, which a restart does not change.
fn weigh(members: &BTreeMap<u16, Member>, ready: &[WorkerId]) -> Vec<Weighted> {
    let mut sockets: HashMap<WorkerId, u64> = HashMap::new();
    let mut weighted = Vec::new();
    for (&index, member) in members {
        if !ready.contains(&member.worker) {
            continue;
        }
        let number = sockets.entry(member.worker).or_default();
        weighted.push(Weighted {
            member: index,
            weight: 1,
            identity: u64::from(member.worker.slot) << 16 | *number,
        });
        *number += 1;
    }
    weighted
}
