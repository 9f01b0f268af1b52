//! Steering: the groups, their members, and the tables that the kernel evaluates.
//!
//! A member joins its group's socket array when it is adopted, and takes connections when its
//! worker is in the ready set: then the group gets a new table.

mod group;
pub(crate) mod measure;
pub(crate) mod program;

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use launcher_common::MEMBERS_MAX;

use self::{
    group::{Group, Member, still_listens},
    program::Program,
};
use crate::{
    failure::Failure,
    policy::Policy,
    sys::{
        listeners::{Endpoint, Protocol},
        privilege::ebpf_failure,
    },
    worker::WorkerId,
};

/// How long a group without members is kept: its counters are of interest while a worker restarts.
const DESERTED_FOR: Duration = Duration::from_secs(60);

/// The steering of one fleet.
#[derive(Debug)]
pub struct Steering {
    policy: Option<Policy>,
    slots: u32,
    groups: BTreeMap<Endpoint, Group>,
    ready: Vec<WorkerId>,
    /// What members that have closed had been sent, by worker.
    past: HashMap<WorkerId, u64>,
    /// For the first group; loaded at the start, so that what the kernel lacks is known before a
    /// worker runs.
    spare: Option<Program>,
}

/// A group, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// What its members are bound to.
    pub endpoint: Endpoint,
    /// How many there are.
    pub members: u32,
    /// What the kernel counted; `None` when no program is attached.
    pub counted: Option<Counted>,
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
}

impl Steering {
    /// Steering by `policy`, for a fleet of this many slots; `None` stands for the default: `round-robin` for connections and
    /// `hash` for datagrams, whose flows would be torn apart otherwise.
    ///
    /// # Errors
    /// When the program can't be loaded.
    pub fn new(policy: Option<Policy>, slots: u32) -> Result<Self, Failure> {
        let spare = match policy {
            Some(Policy::Kernel) => None,
            _ => Some(Program::load()?),
        };
        Ok(Self {
            policy,
            slots,
            groups: BTreeMap::new(),
            ready: Vec::new(),
            past: HashMap::new(),
            spare,
        })
    }

    /// The index function of a group; `None` leaves the choice to the kernel.
    fn index_function(
        policy: Option<Policy>,
        protocol: Protocol,
    ) -> Option<launcher_common::Policy> {
        let default = match protocol {
            Protocol::Tcp => Policy::RoundRobin,
            Protocol::Udp => Policy::Hash,
        };
        policy.unwrap_or(default).index_function()
    }

    /// Makes a worker's socket a member of its group, which is created if it is the first. The
    /// copy of the socket is closed by [`Steering::close_copies`] at the latest. False: the server has
    /// closed the socket meanwhile.
    ///
    /// # Errors
    /// When the program can't be loaded, the group is full, or the kernel refuses the socket.
    pub fn adopt(
        &mut self,
        worker: WorkerId,
        cookie: u64,
        endpoint: &Endpoint,
        socket: OwnedFd,
    ) -> Result<bool, Failure> {
        if !self.groups.contains_key(endpoint) {
            let policy = Self::index_function(self.policy, endpoint.protocol);
            let program = match policy {
                None => None,
                Some(_) => Some(self.spare.take().map_or_else(Program::load, Ok)?),
            };
            let group = Group {
                policy,
                program,
                slots: self.slots,
                members: BTreeMap::new(),
                places: 0,
                installed: Vec::new(),
                unattached: Vec::new(),
                deserted: None,
            };
            self.groups.insert(endpoint.clone(), group);
        }
        let Some(group) = self.groups.get_mut(endpoint) else {
            return Ok(false);
        };
        if group.members.values().any(|member| member.cookie == cookie) {
            return Ok(true);
        }
        let limit = u16::try_from(MEMBERS_MAX).unwrap_or(u16::MAX);
        let Some(index) = (0..limit).find(|index| !group.members.contains_key(index)) else {
            return Err(Failure::new(
                format!("cannot steer to worker {worker} on {endpoint}"),
                format_args!("the group has its {MEMBERS_MAX} members already"),
                "start fewer workers, or make the server open fewer sockets on this port",
            ));
        };
        let mut before = 0;
        if let Some(program) = &mut group.program {
            if let Err(error) = program.set_member(index, &socket) {
                if !still_listens(&socket) {
                    return Ok(false);
                }
                let what = format!("cannot steer to worker {worker} on {endpoint}");
                return Err(ebpf_failure(what, &error));
            }
            before = program.sent_to(index);
            group.unattached.push(socket);
        }
        group.places = group.places.max(index + 1);
        group.members.insert(
            index,
            Member {
                worker,
                cookie,
                before,
            },
        );
        group.steer(endpoint, &self.ready)?;
        Ok(true)
    }

    /// Steers to these workers, and to no others. `workers` is the whole set.
    ///
    /// # Errors
    /// When the kernel refuses a table or the program.
    pub fn set_ready(&mut self, workers: &[WorkerId]) -> Result<(), Failure> {
        self.ready = workers.to_vec();
        for (endpoint, group) in &mut self.groups {
            group.steer(endpoint, &self.ready)?;
        }
        Ok(())
    }

    /// Closes our copies of the members' sockets. To be called before the launcher waits again:
    /// an open copy would keep a dead worker's socket in its group.
    pub fn close_copies(&mut self) {
        for group in self.groups.values_mut() {
            group.unattached.clear();
        }
    }

    /// Forgets a worker that is gone.
    ///
    /// # Errors
    /// As for [`Steering::set_ready`].
    pub fn forget(&mut self, worker: WorkerId) -> Result<(), Failure> {
        self.remove(|member| member.worker == worker)?;
        self.past.remove(&worker);
        Ok(())
    }

    /// Forgets the members that have closed: those whose cookie is not `alive`.
    ///
    /// # Errors
    /// As for [`Steering::set_ready`].
    pub fn forget_closed(&mut self, alive: impl Fn(u64) -> bool) -> Result<(), Failure> {
        self.remove(|member| !alive(member.cookie))
    }

    /// Unloads the programs of groups that have been without members for a minute: a server may open
    /// ever new ports, and each group costs a handful of descriptors.
    pub fn forget_deserted(&mut self, now: Instant) {
        self.groups.retain(|_, group| {
            if !group.members.is_empty() {
                group.deserted = None;
                return true;
            }
            now.saturating_duration_since(*group.deserted.get_or_insert(now)) < DESERTED_FOR
        });
    }

    fn remove(&mut self, gone: impl Fn(&Member) -> bool) -> Result<(), Failure> {
        for (endpoint, group) in &mut self.groups {
            let indices: Vec<u16> = group
                .members
                .iter()
                .filter(|(_, member)| gone(member))
                .map(|(&index, _)| index)
                .collect();
            for index in indices {
                if let Some(member) = group.members.remove(&index) {
                    let sent = group.sent_to(index, &member);
                    *self.past.entry(member.worker).or_default() += sent;
                }
                if let Some(program) = &mut group.program {
                    program.clear_member(index);
                }
            }
            group.steer(endpoint, &self.ready)?;
        }
        Ok(())
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

    /// How many connections (datagrams) a worker was sent; `None` when nothing counts them.
    #[must_use]
    pub fn connections(&self, worker: WorkerId) -> Option<u64> {
        if self.policy == Some(Policy::Kernel) {
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
            .map(|(group, index, member)| group.sent_to(index, member))
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
                counted: group
                    .program
                    .as_ref()
                    .map(|program| program.counted(group.places)),
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
        groups.chain(&self.spare).next().map(Program::migrates)
    }
}
