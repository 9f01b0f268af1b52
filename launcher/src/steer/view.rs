//! What there is to know of the steering.

use std::collections::BTreeSet;

use super::{FlowsView, Steering, program::Program};
use crate::{
    sys::listeners::{Endpoint, Protocol},
    worker::WorkerId,
};

/// A group, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// What its members are bound to.
    pub endpoint: Endpoint,
    /// How many there are.
    pub members: u32,
    /// Whether a program selects.
    pub steered: bool,
    /// What the kernel counted; `None` when nothing counts.
    pub counted: Option<Counted>,
    /// Its flows of datagrams; `None` where none are kept, or the kernel does not tell.
    pub flows: Option<FlowsView>,
    /// The cookie of its holding socket.
    pub holding: Option<u64>,
}

/// What a member was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Whose it is.
    pub worker: WorkerId,
    /// Its cookie.
    pub cookie: u64,
    /// How many connections; `None` when nothing counts them.
    pub sent: Option<u64>,
}

/// What the kernel counted for a group since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// New connections (datagrams) that the program sent to a member.
    pub selected: u64,
    /// Connections that it moved from a listener that had gone.
    pub migrated: u64,
    /// Selections for which the member whose turn it was had gone.
    pub missed: u64,
    /// Decisions left to the kernel's hash because no member could be selected.
    pub fell_through: u64,
    /// Connections refused because no worker takes any.
    pub refused: u64,
    /// Connections that went to the holding socket.
    pub held: u64,
}

impl Steering {
    /// The workers that are steered to.
    #[must_use]
    pub fn ready(&self) -> &[WorkerId] {
        &self.aim.ready
    }

    /// The TCP ports that a worker listens on.
    #[must_use]
    pub fn ports(&self, worker: WorkerId) -> BTreeSet<u16> {
        let endpoints = self.endpoints(worker).into_iter();
        endpoints
            .filter(|endpoint| endpoint.protocol == Protocol::Tcp)
            .map(|endpoint| endpoint.address.port())
            .collect()
    }

    /// What each TCP member was sent.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.groups
            .iter()
            .filter(|(endpoint, _)| endpoint.protocol == Protocol::Tcp)
            .flat_map(|(_, group)| {
                group.members.iter().map(|(&index, member)| Sent {
                    worker: member.worker,
                    cookie: member.cookie,
                    sent: group
                        .program
                        .as_ref()
                        .filter(|program| program.counts())
                        .map(|_| group.sent_to(index, member.before)),
                })
            })
            .collect()
    }

    /// Where a worker has members.
    #[must_use]
    pub fn endpoints(&self, worker: WorkerId) -> BTreeSet<Endpoint> {
        self.groups
            .iter()
            .filter(|(_, group)| group.has(worker))
            .map(|(endpoint, _)| endpoint.clone())
            .collect()
    }

    /// Whose members a group has.
    #[must_use]
    pub fn members(&self, endpoint: &Endpoint) -> Vec<WorkerId> {
        let group = self.groups.get(endpoint).into_iter();
        let members = group.flat_map(|group| group.members.values());
        members.map(|member| member.worker).collect()
    }

    /// Whether a socket with this cookie is a member.
    #[must_use]
    pub fn is_member(&self, cookie: u64) -> bool {
        self.groups
            .values()
            .any(|group| group.members.values().any(|member| member.cookie == cookie))
    }

    /// The cookies of a worker's members.
    #[must_use]
    pub fn cookies(&self, worker: WorkerId) -> Vec<u64> {
        self.groups
            .values()
            .flat_map(|group| group.members.values())
            .filter(|member| member.worker == worker)
            .map(|member| member.cookie)
            .collect()
    }

    /// Whether it is counted who was sent what.
    #[must_use]
    pub fn counts(&self) -> bool {
        match self.object(Protocol::Tcp) {
            Some(object) => object.counts(),
            None => self.policies.steers(),
        }
    }

    /// How many connections (datagrams) a worker was sent; `None` when nothing counts them.
    #[must_use]
    pub fn connections(&self, worker: WorkerId) -> Option<u64> {
        if !self.counts() {
            return None;
        }
        let present: u64 = self
            .groups
            .values()
            .flat_map(|group| {
                group
                    .members
                    .iter()
                    .map(move |(&index, member)| (group, index, member))
            })
            .filter(|(_, _, member)| member.worker == worker)
            .map(|(group, index, member)| group.sent_to(index, member.before))
            .sum();
        Some(present + self.past.get(&worker).copied().unwrap_or(0))
    }

    /// Every group that has or had members.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupView> {
        self.groups
            .iter()
            .map(|(endpoint, group)| GroupView {
                endpoint: endpoint.clone(),
                members: group.members.len() as u32,
                steered: group.program.is_some(),
                counted: group
                    .program
                    .as_ref()
                    .filter(|program| program.counts())
                    .map(|program| program.counted(group.places)),
                flows: group.flows(),
                holding: group.holding.as_ref().map(|holding| holding.cookie),
            })
            .collect()
    }

    /// What a decision takes on the average, in seconds, in each group for which the kernel has measured
    /// it: while `kernel.bpf_stats_enabled` is on.
    #[must_use]
    pub fn decision_times(&self) -> Vec<(Endpoint, f64)> {
        let programs = self
            .groups
            .iter()
            .filter_map(|(endpoint, group)| Some((endpoint, group.program.as_ref()?)));
        programs
            .filter_map(|(endpoint, program)| {
                let mean = program.run_time().ok()?.mean()?;
                Some((endpoint.clone(), mean))
            })
            .collect()
    }

    /// Whether connections move when their listener goes; `None` when there is no program.
    #[must_use]
    pub fn migrates(&self) -> Option<bool> {
        let groups = self
            .groups
            .values()
            .filter_map(|group| group.program.as_ref());
        let spare = self.spare.iter().map(|(program, _)| program);
        groups.chain(spare).next().map(Program::migrates)
    }
}
