//! Going on with the steering of an earlier launcher, and what has to be known for that.

use std::os::fd::OwnedFd;

use launcher_common::HOLD;
use serde::{Deserialize, Serialize};

use super::{Steering, group::Holding, loading::kind};
use crate::{
    failure::Failure,
    policy::Policy,
    sys::listeners::{Endpoint, cookie},
    worker::WorkerId,
};

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

impl Steering {
    /// Goes on with what an earlier launcher had: its groups with their maps, and its `ready` workers.
    /// The members are recognised when they are adopted; the last of a group brings its table in
    /// force. [`Steering::settle`] forgets those that were not recognised. The holding sockets are there
    /// if the launcher has replaced itself.
    ///
    /// # Errors
    /// When the program can't be loaded.
    pub fn resume(
        &mut self,
        remembered: &Remembered,
        ready: Vec<WorkerId>,
        mut holding: Vec<(Endpoint, OwnedFd)>,
    ) -> Result<(), Failure> {
        self.aim.ready = ready;
        self.past.extend(remembered.past.iter().copied());
        for was in &remembered.groups {
            let policy = self.policy(was.endpoint.protocol);
            if policy == Policy::Kernel {
                continue;
            }
            let mut program = self.load_from(
                kind(was.endpoint.protocol, policy, self.flows),
                was.pins.as_deref(),
            )?;
            let held = holding
                .iter()
                .position(|(endpoint, _)| *endpoint == was.endpoint)
                .map(|at| holding.swap_remove(at).1);
            let held = held.and_then(|socket| {
                Some(Holding {
                    cookie: cookie(&socket).ok()?,
                    socket,
                    before: was.held_before,
                    waits: false,
                })
            });
            program.clear_all_but(|index| {
                (index == HOLD && held.is_some())
                    || was.members.iter().any(|member| member.index == index)
            });
            let loaded = Some((program, was.pins.clone()));
            let mut group = self.group(&was.endpoint, policy, was.uid, loaded)?;
            group.places = was.places;
            group.holding = held;
            group.remembered.clone_from(&was.members);
            self.groups.insert(was.endpoint.clone(), group);
        }
        Ok(())
    }

    /// Forgets the members of an earlier launcher that are not there any more, and what was counted
    /// for workers that are not `known`.
    pub fn settle(&mut self, known: impl Fn(WorkerId) -> bool) {
        for group in self.groups.values_mut() {
            for member in std::mem::take(&mut group.remembered) {
                let sent = group.sent_to(member.index, member.before);
                *self.past.entry(member.worker).or_default() += sent;
                group.unlist(member.cookie);
                if let Some(program) = &mut group.program {
                    program.clear_member(member.index);
                }
            }
        }
        self.past.retain(|&worker, _| known(worker));
        if self.policies.connections() != Policy::LeastConn {
            self.stop_counting();
        }
    }

    /// What a later launcher would have to know.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        let groups = self.groups.iter().map(|(endpoint, group)| {
            let members = group
                .members
                .iter()
                .map(|(&index, member)| RememberedMember {
                    index,
                    worker: member.worker,
                    cookie: member.cookie,
                    before: member.before,
                });
            RememberedGroup {
                endpoint: endpoint.clone(),
                pins: group.pins.clone(),
                uid: group.uid,
                places: group.places,
                held_before: group.holding.as_ref().map_or(0, |holding| holding.before),
                members: members.chain(group.remembered.iter().copied()).collect(),
            }
        });
        let mut past: Vec<_> = self
            .past
            .iter()
            .map(|(&worker, &sent)| (worker, sent))
            .collect();
        past.sort_unstable();
        Remembered {
            groups: groups.collect(),
            past,
        }
    }
}
