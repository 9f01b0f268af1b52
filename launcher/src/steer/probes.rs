//! Probes: connections of the launcher's own to one particular worker, through the port that all of
//! them share. The program tells them by their source.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use launcher_common::ProbeSource;

use super::{Steering, program::Program};
use crate::{
    sys::listeners::{Endpoint, Protocol},
    worker::WorkerId,
};

impl Steering {
    /// Where a worker is probed: its TCP socket with the lowest port. `None` while it has none, or
    /// where no program could steer the probe.
    #[must_use]
    pub fn probed(&self, worker: WorkerId) -> Option<&Endpoint> {
        self.groups
            .iter()
            .filter(|(endpoint, group)| {
                let program = group.program.as_ref();
                endpoint.protocol == Protocol::Tcp
                    && program.is_some_and(Program::steers_probes)
                    && group.has(worker)
            })
            .map(|(endpoint, _)| endpoint)
            .min_by_key(|endpoint| endpoint.address.port())
    }

    /// Has connections from `source` to `endpoint` go to this worker, until [`Steering::withdraw`].
    ///
    /// # Errors
    /// `NotFound` when the worker has no socket there (any more), or those of the map.
    pub fn admit(
        &mut self,
        worker: WorkerId,
        endpoint: &Endpoint,
        source: SocketAddr,
    ) -> io::Result<()> {
        let group = self
            .groups
            .get_mut(endpoint)
            .ok_or(io::ErrorKind::NotFound)?;
        let mut members = group.members.iter();
        let (&index, _) = members
            .find(|(_, member)| member.worker == worker)
            .ok_or(io::ErrorKind::NotFound)?;
        let program = group.program.as_mut().ok_or(io::ErrorKind::NotFound)?;
        program
            .add_probe(&key(source), index)
            .map_err(io::Error::other)
    }

    /// Ends what [`Steering::admit`] has begun.
    pub fn withdraw(&mut self, endpoint: &Endpoint, source: SocketAddr) {
        let group = self.groups.get_mut(endpoint);
        if let Some(program) = group.and_then(|group| group.program.as_mut()) {
            program.remove_probe(&key(source));
        }
    }
}

/// The address under which the launcher itself reaches an endpoint.
#[must_use]
pub fn reached_at(endpoint: &Endpoint) -> SocketAddr {
    let ip = match endpoint.address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        // A host without IPv6 addresses has such sockets all the same.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if !endpoint.v6only => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, endpoint.address.port())
}

fn key(source: SocketAddr) -> ProbeSource {
    let mut address = [0; 16];
    match source.ip() {
        IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => address = ip.octets(),
    }
    ProbeSource {
        address,
        port: u32::from(source.port()),
        v6: u32::from(source.is_ipv6()),
    }
}
