//! Loading programs, and the groups that they are for.

use std::{collections::BTreeMap, fs};

use super::{
    Steering,
    group::Group,
    program::{Kind, Program},
};
use crate::{
    failure::Failure,
    policy::Policy,
    sys::listeners::{Endpoint, Protocol},
};

/// A program that is loaded and steers nobody yet, and the name of the directory with its pins.
pub(super) type Loaded = (Program, Option<String>);

impl Steering {
    pub(super) fn take_program(&mut self, protocol: Protocol) -> Result<Loaded, Failure> {
        match self.spare.take_if(|_| protocol == Protocol::Tcp) {
            Some(spare) => Ok(spare),
            None => self.load(protocol),
        }
    }

    pub(super) fn load(&mut self, protocol: Protocol) -> Result<Loaded, Failure> {
        self.load_kind(kind(protocol, self.policy(protocol), self.flows))
    }

    pub(super) fn load_kind(&mut self, kind: Kind) -> Result<Loaded, Failure> {
        let pinned = self.pins.is_some();
        let name = pinned.then(|| format!("g{}", self.next_pins));
        self.next_pins += 1;
        Ok((self.load_from(kind, name.as_deref())?, name))
    }

    pub(super) fn load_from(&self, kind: Kind, name: Option<&str>) -> Result<Program, Failure> {
        let pins = match (&self.pins, name) {
            (Some(pins), Some(name)) => Some(pins.join(name)),
            _ => None,
        };
        if let Some(pins) = &pins {
            fs::create_dir_all(pins).map_err(|error| {
                Failure::io(
                    format!("cannot pin to {}", pins.display()),
                    "mkdir",
                    &error,
                    "look at the bpffs that it is on; or remove the directory",
                )
            })?;
        }
        match self.object(kind.protocol()) {
            Some(object) => object.load(pins.as_deref()),
            None => Program::load(kind, pins.as_deref()),
        }
    }

    pub(super) fn group(
        &mut self,
        endpoint: &Endpoint,
        policy: Policy,
        uid: u32,
        loaded: Option<Loaded>,
    ) -> Result<Group, Failure> {
        let (program, pins) = loaded.map_or((None, None), |(program, pins)| (Some(program), pins));
        let mut group = Group {
            policy,
            flow_timeout: self.flow_timeout,
            ailing: self.ailing.clone(),
            program,
            pins,
            members: BTreeMap::new(),
            remembered: Vec::new(),
            places: 0,
            installed: None,
            due: false,
            unattached: Vec::new(),
            deserted: None,
            abandoned: false,
            early: self.early || self.hold,
            holds: self.hold,
            holding: None,
            uid,
        };
        if policy == Policy::LeastConn {
            self.start_counting()?;
            if let Some(account) = &self.account {
                group.count(endpoint, account)?;
            }
        }
        Ok(group)
    }
}

/// The kind of program for a group, whose flow table has room for `flows`.
pub(super) fn kind(protocol: Protocol, policy: Policy, flows: u32) -> Kind {
    match (protocol, policy) {
        (Protocol::Udp, _) => Kind::Datagrams { flows },
        (Protocol::Tcp, Policy::LeastConn) => Kind::LeastConn,
        (Protocol::Tcp, _) => Kind::Connections,
    }
}
