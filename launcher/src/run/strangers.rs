//! Sockets that are not of this fleet and receive, or would receive, what is meant for it.

use std::{collections::HashSet, net::SocketAddr, thread, time::Duration};

use super::launcher::Launcher;
use crate::{
    failure::Failure,
    sys::{
        listeners::{self, Endpoint, Listener, Protocol},
        process::describe,
    },
};

/// How often a socket without an owner is looked for again: where a fleet may end for it, and where it
/// is only told of.
pub(super) const SURE: u32 = 50;
pub(super) const QUICK: u32 = 1;

/// How long apart.
const PAUSE: Duration = Duration::from_millis(10);

/// A stranger's socket.
pub(super) struct Stranger {
    pub(super) listener: Listener,
    /// Its pid and command, or why they are not known.
    pub(super) owner: String,
    /// Whether they are.
    seen: bool,
}

impl Stranger {
    /// The refusal to share an endpoint with it.
    pub(super) fn refusal(&self, endpoint: &Endpoint) -> Failure {
        Failure::new(
            format!("cannot share {endpoint} among the workers"),
            format_args!("{} belongs to {}", self.listener.address, self.owner),
            "stop that process, or give the command another port; a launcher shares ports only among its own workers",
        )
    }
}

/// The failure of a worker that wanted this address and could not have it, if a stranger is to
/// blame.
pub(super) fn at(launcher: &Launcher, protocol: Protocol, address: SocketAddr) -> Option<Failure> {
    let endpoint = Endpoint {
        protocol,
        address,
        v6only: false,
        device: None,
    };
    let found = find(launcher, &endpoint);
    Some(found.first()?.refusal(&endpoint))
}

/// Who listens where a worker does and is not of the fleet.
pub(super) fn beside(launcher: &Launcher, endpoint: &Endpoint, looks: u32) -> Vec<Stranger> {
    let mut found = find(launcher, endpoint);
    // A socket that is just being closed has no owner any more, and is gone soon: when the process
    // that exits has been on a CPU once more.
    for _ in 0..looks {
        if found.iter().all(|stranger| stranger.seen) {
            break;
        }
        thread::sleep(PAUSE);
        let again = find(launcher, endpoint);
        found.retain(|stranger| {
            let cookie = stranger.listener.cookie;
            again.iter().any(|again| again.listener.cookie == cookie)
        });
    }
    found
}

fn find(launcher: &Launcher, endpoint: &Endpoint) -> Vec<Stranger> {
    let mut unknown = listeners::list(endpoint.protocol).unwrap_or_default();
    unknown.retain(|listener| {
        listener.overlaps(endpoint) && !launcher.steering.is_member(listener.cookie)
    });
    if unknown.is_empty() {
        return Vec::new();
    }
    // Workers' sockets that are not adopted yet, and our copies of some that just are being. Looked
    // for there first: going through every process of the machine is slow.
    let workers = launcher.running.values();
    let ours: HashSet<u32> = workers
        .flat_map(|running| running.cgroup.processes())
        .chain([std::process::id()])
        .flat_map(listeners::sockets_of)
        .collect();
    unknown.retain(|listener| !ours.contains(&listener.inode));
    let owners = listeners::owners(unknown.iter().map(|listener| listener.inode));
    unknown
        .into_iter()
        .map(|listener| Stranger {
            seen: owners.contains_key(&listener.inode),
            owner: owners.get(&listener.inode).map_or_else(
                || "a process that can't be seen from here (another pid namespace?)".to_owned(),
                |&pid| describe(pid),
            ),
            listener,
        })
        .collect()
}
