//! Changing the policies while connections come.
//!
//! Among the policies that the same program evaluates a change is another table. To `least-conn` and
//! back another program of the same object, on the same maps, is attached in place of the first; as
//! each of them makes do with the other's tables, no connection is at the mercy of the order. To
//! `kernel` the program goes, after what is held has moved; from there it comes with a set of maps
//! of its own.

use std::{collections::HashMap, error::Error, io, os::fd::OwnedFd};

use aya::programs::ProgramError;
use tracing::warn;

use super::{
    Steering,
    aim::Aim,
    group::{Group, OwnSockets, still_listens},
    loading::{Loaded, kind},
    policy_of,
    program::{Kind, Program},
    remove_pins,
};
use crate::{
    failure::Failure,
    policy::{Policies, Policy},
    sys::{
        listeners::{Endpoint, Protocol},
        privilege::ebpf_failure,
    },
};

/// Copies of members' sockets, by cookie.
pub type Copies = HashMap<u64, OwnedFd>;

impl Steering {
    /// Whether [`Steering::change`] would need copies of the members' sockets.
    #[must_use]
    pub fn needs_copies(&self, policies: Policies) -> bool {
        self.groups.iter().any(|(endpoint, group)| {
            let policy = policy_of(policies, endpoint.protocol);
            (policy == Policy::Kernel) != (group.policy == Policy::Kernel)
                || kind(endpoint.protocol, policy, self.flows)
                    != kind(endpoint.protocol, group.policy, self.flows)
        })
    }

    /// Whether some group has a table, or the first one to come will have.
    #[must_use]
    pub fn has_tables(&self) -> bool {
        let mut groups = self.groups.values();
        groups.any(|group| group.policy != Policy::Kernel)
            || self.groups.is_empty() && self.policies.steers()
    }

    /// Where a change to these policies would lose connections: where some may wait in the holding
    /// socket, which goes, and no worker is there to take them.
    #[must_use]
    pub fn would_lose(&self, policies: Policies) -> Option<&Endpoint> {
        let kernel = |endpoint: &Endpoint| policy_of(policies, endpoint.protocol) == Policy::Kernel;
        let mut groups = self.groups.iter();
        let found = groups.find(|(endpoint, group)| {
            let nobody = self.aim.weigh(&group.members).is_empty();
            kernel(endpoint) && group.holding.is_some() && nobody
        });
        found.map(|(endpoint, _)| endpoint)
    }

    /// Brings other policies into force. `copies` has copies of all members' sockets where
    /// [`Steering::needs_copies`] says so; the caller closes them.
    ///
    /// # Errors
    /// When a program can't be loaded, or the kernel refuses a table or the program. Then the policies
    /// stay as they are.
    pub fn change(&mut self, policies: Policies, copies: &Copies) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.policies, policies);
        let outcome = self.change_all(copies);
        if outcome.is_err() {
            self.policies = before;
            if let Err(failure) = self.change_all(copies) {
                warn!("{}: {}", failure.what, failure.why);
            }
        }
        if self.policies.connections() != Policy::LeastConn {
            self.stop_counting();
        }
        outcome
    }

    /// Brings all groups in line with the policies.
    fn change_all(&mut self, copies: &Copies) -> Result<(), Failure> {
        // What fails most likely comes first, while nothing has changed.
        if self.policies.connections() == Policy::LeastConn {
            self.start_counting()?;
        }
        let mut loaded = self.load_lacking()?;
        let policy = self.policies.connections();
        let changed = self
            .change_spare(policy)
            .and_then(|()| self.change_groups(copies, &mut loaded));
        self.forget_loaded(loaded);
        changed
    }

    /// Loads the programs of groups that have none.
    fn load_lacking(&mut self) -> Result<HashMap<Endpoint, Loaded>, Failure> {
        let policies = self.policies;
        let lacking: Vec<Endpoint> = self
            .groups
            .iter()
            .filter(|(endpoint, group)| {
                group.program.is_none() && policy_of(policies, endpoint.protocol) != Policy::Kernel
            })
            .map(|(endpoint, _)| endpoint.clone())
            .collect();
        let mut loaded = HashMap::new();
        for endpoint in lacking {
            let policy = policy_of(policies, endpoint.protocol);
            let kind = kind(endpoint.protocol, policy, self.flows);
            match self.load_kind(kind) {
                Ok(program) => drop(loaded.insert(endpoint, program)),
                Err(failure) => {
                    self.forget_loaded(loaded);
                    return Err(failure);
                }
            }
        }
        Ok(loaded)
    }

    fn forget_loaded(&self, loaded: HashMap<Endpoint, Loaded>) {
        for (_program, pins) in loaded.into_values() {
            remove_pins(self.pins.as_deref(), pins.as_deref());
        }
    }

    /// The program that waits for the first group.
    fn change_spare(&mut self, policy: Policy) -> Result<(), Failure> {
        if policy == Policy::Kernel {
            if let Some((_program, pins)) = self.spare.take() {
                remove_pins(self.pins.as_deref(), pins.as_deref());
            }
        } else if let Some((program, _)) = &mut self.spare {
            program.switch(kind(Protocol::Tcp, policy, self.flows))?;
        }
        Ok(())
    }

    fn change_groups(
        &mut self,
        copies: &Copies,
        loaded: &mut HashMap<Endpoint, Loaded>,
    ) -> Result<(), Failure> {
        for (endpoint, group) in &mut self.groups {
            let policy = policy_of(self.policies, endpoint.protocol);
            if policy == group.policy {
                continue;
            }
            if policy == Policy::Kernel {
                self.handed_over |= group.holding.is_some();
                group.leave(endpoint, &self.aim, copies)?;
                for (&index, member) in &group.members {
                    let sent = group.sent_to(index, member.before);
                    *self.past.entry(member.worker).or_default() += sent;
                }
                remove_pins(self.pins.as_deref(), group.pins.as_deref());
                group.unload();
                continue;
            }
            if let Some(loaded) = loaded.remove(endpoint) {
                self.hold &= loaded.0.migrates() || endpoint.protocol == Protocol::Udp;
                group.load(endpoint, loaded, copies)?;
            }
            group.holds = self.hold;
            // They are counted by now: a handshake that the program counts, and nobody sees the end of,
            // would be a load for seconds.
            if policy == Policy::LeastConn
                && let Some(account) = &self.account
            {
                group.count(endpoint, account)?;
                self.unlisted = true;
                if let Some(holding) = &mut group.holding {
                    // What it holds is not counted: another one takes its place.
                    holding.waits = true;
                }
            }
            self.handed_over |= group.change(endpoint, policy, &self.aim, &self.own, copies)?;
        }
        Ok(())
    }
}

impl Group {
    /// Goes over to another policy that a program evaluates. Says whether connections were handed over.
    ///
    /// The table of `least-conn` is installed before its program is attached, and replaced after: the
    /// other program takes it for that of `round-robin`, while `steer_least` would look up turns in a
    /// table that was made for hashes.
    fn change(
        &mut self,
        endpoint: &Endpoint,
        policy: Policy,
        aim: &Aim,
        own: &OwnSockets,
        copies: &Copies,
    ) -> Result<bool, Failure> {
        // Whatever its size: a flow table stays.
        let kind = |policy| kind(endpoint.protocol, policy, 1);
        let (before, after) = (kind(self.policy), kind(policy));
        let comes = self.policy == Policy::Kernel;
        self.policy = policy;
        self.installed = None;
        if before != after
            && let Some(program) = &mut self.program
        {
            program.switch(after)?;
        }
        if comes || (before != after && after == Kind::LeastConn) {
            let wanted = aim.weigh(&self.members);
            self.install(&wanted, aim)
                .map_err(|error| refused(endpoint, &error))?;
        }
        if comes || before != after {
            self.attach(endpoint, copies)?;
        }
        self.steer(endpoint, aim, own)
    }

    /// Takes a program, which finds the members.
    fn load(
        &mut self,
        endpoint: &Endpoint,
        (mut program, pins): Loaded,
        copies: &Copies,
    ) -> Result<(), Failure> {
        for (&index, member) in &mut self.members {
            member.before = 0;
            if let Some(socket) = copies.get(&member.cookie)
                && let Err(error) = program.set_member(index, socket)
                && still_listens(socket)
            {
                return Err(refused(endpoint, &error));
            }
        }
        self.program = Some(program);
        self.pins = pins;
        Ok(())
    }

    /// Leaves the choice to the kernel: hands over what is held, then takes the program off.
    fn leave(&mut self, endpoint: &Endpoint, aim: &Aim, copies: &Copies) -> Result<(), Failure> {
        // By the table of the old policy: one of `kernel` would choose nobody.
        let released = self.release(aim);
        self.policy = Policy::Kernel;
        released.map_err(|error| refused(endpoint, &error))?;
        self.through_one(endpoint, copies, |_, socket| {
            match Program::detach(socket) {
                // It was never attached.
                Err(error) if error_number(&error) == Some(libc::ENOENT) => Ok(()),
                detached => detached,
            }
        })
    }

    /// Drops the program.
    fn unload(&mut self) {
        if let Some(mut program) = self.program.take() {
            // A socket can be in one array only, and the array may outlive the program a while.
            program.clear_all_but(|_| false);
        }
        self.pins = None;
        self.unattached.clear();
        self.installed = None;
    }

    fn attach(&self, endpoint: &Endpoint, copies: &Copies) -> Result<(), Failure> {
        self.through_one(endpoint, copies, |group, socket| match &group.program {
            Some(program) => program.attach(socket),
            None => Ok(()),
        })
    }

    /// Does something to the kernel's group through one of its sockets. Where it has none there is
    /// nothing to do it to: the program is attached through each socket that comes.
    fn through_one(
        &self,
        endpoint: &Endpoint,
        copies: &Copies,
        act: impl Fn(&Self, &OwnedFd) -> Result<(), ProgramError>,
    ) -> Result<(), Failure> {
        let holding = self.holding.iter().map(|holding| &holding.socket);
        let members = self.members.values();
        let members = members.filter_map(|member| copies.get(&member.cookie));
        let mut failure = None;
        for socket in holding.chain(members) {
            match act(self, socket) {
                Ok(()) => return Ok(()),
                // One that the server has closed meanwhile says nothing about the others.
                Err(error) if still_listens(socket) => failure = Some(refused(endpoint, &error)),
                Err(_) => {}
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn refused(endpoint: &Endpoint, error: &(dyn Error + 'static)) -> Failure {
    ebpf_failure(format!("cannot change how {endpoint} is steered"), error)
}

fn error_number(error: &ProgramError) -> Option<i32> {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        source = error.source();
    }
    None
}
