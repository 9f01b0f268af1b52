//! Sockets that are not of this fleet and receive, or would receive, what is meant for it.

use std::net::SocketAddr;

use super::launcher::Launcher;
use crate::{
    failure::Failure,
    sys::{
        listeners::{self, Endpoint, Listener, Protocol},
        process::describe,
    },
};

/// The failure of a worker that wanted this address and could not have it.
pub(super) fn at(launcher: &Launcher, protocol: Protocol, address: SocketAddr) -> Failure {
    let endpoint = Endpoint {
        protocol,
        address,
        v6only: false,
        device: None,
    };
    let owner = strangers(launcher, &endpoint).first().map_or_else(
        || "a socket that is gone by now".to_owned(),
        |(_, owner)| owner.clone(),
    );
    refused(&endpoint, &owner)
}

/// The failure of sharing this endpoint with somebody who joined it by another way than `bind`
/// under our eyes: a socket that listens where a worker does and is not the fleet's.
pub(super) fn beside(launcher: &Launcher, endpoint: &Endpoint) -> Option<Failure> {
    // Twice: a socket that is just being closed has no owner any more, but is not there the second
    // time.
    let first = strangers(launcher, endpoint);
    let (seen, owner) = first.first()?;
    let again = strangers(launcher, endpoint);
    again
        .iter()
        .any(|(listener, _)| listener.cookie == seen.cookie)
        .then(|| refused(endpoint, owner))
}

fn refused(endpoint: &Endpoint, owner: &str) -> Failure {
    Failure::new(
        format!("cannot share {endpoint} among the workers"),
        format_args!("it belongs to {owner}"),
        "stop that process, or give the command another port; a launcher shares ports only among its own workers",
    )
}

fn strangers(launcher: &Launcher, endpoint: &Endpoint) -> Vec<(Listener, String)> {
    let listed = listeners::list(endpoint.protocol).unwrap_or_default();
    listed
        .into_iter()
        .filter(|listener| {
            listener.overlaps(endpoint) && !launcher.steering.is_member(listener.cookie)
        })
        .filter_map(|listener| match listeners::owner(listener.inode) {
            // A worker's socket that is not adopted yet, or our copy of one that is just being.
            Some(pid) if pid == std::process::id() || launcher.is_workers(pid) => None,
            Some(pid) => Some((listener, describe(pid))),
            None => Some((
                listener,
                "a process that can't be seen from here (another pid namespace?)".to_owned(),
            )),
        })
        .collect()
}

impl Launcher {
    fn is_workers(&self, pid: u32) -> bool {
        self.running
            .values()
            .any(|running| running.cgroup.processes().contains(&pid))
    }
}
