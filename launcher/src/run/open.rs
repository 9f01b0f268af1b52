//! How many connections the workers have open, where the kernel does not count them: asked only when
//! somebody wants to know, so that it costs nothing per connection.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{launcher::Launcher, worker::Running};
use crate::{
    sys::{
        established::{Established, by_cgroup},
        listeners::sockets_of,
    },
    worker::WorkerId,
};

/// Of how many connections the kernel is asked to tell: about 1 µs each, during which nothing else is
/// done.
const OPEN_MAX: usize = 32_768;

/// With how many connections the workers' open files are gone through: about 3 µs each.
const FILES_MAX: usize = 8192;

impl Launcher {
    /// The open connections of each worker, accepted or not; `None` where there are too many to be gone
    /// through. What has moved from another worker is known once it is accepted, or that one is gone.
    pub(super) fn open_connections(&self) -> Option<HashMap<WorkerId, u64>> {
        let listening = || {
            let running = self.running.iter();
            running.filter(|(_, running)| !running.ports.is_empty())
        };
        let ports = listening().flat_map(|(_, running)| &running.ports);
        let ports: BTreeSet<u16> = ports.copied().collect();
        let mut found = by_cgroup(&ports, OPEN_MAX).ok().flatten()?;
        let total: usize = found.values().map(Vec::len).sum();
        let own =
            |(&worker, running): (&WorkerId, &Running)| (worker, take_own(&mut found, running));
        let mut open: HashMap<WorkerId, u64> = listening().map(own).collect();
        // Those of workers that are gone: they have moved.
        let moved: HashSet<u32> = found
            .into_values()
            .flatten()
            .filter(|&at| at != 0)
            .collect();
        if moved.is_empty() {
            return Some(open);
        }
        if total > FILES_MAX {
            return None;
        }
        for (&worker, running) in listening() {
            let pids = running.cgroup.processes().into_iter();
            // One that several processes share is one.
            let sockets: HashSet<u32> = pids.flat_map(sockets_of).collect();
            *open.entry(worker).or_default() += sockets.intersection(&moved).count() as u64;
        }
        Some(open)
    }
}

/// How many are of a worker's cgroup, or of one below it, which are taken out.
fn take_own(found: &mut Established, running: &Running) -> u64 {
    let cgroup = &running.cgroup;
    let mut own = found.remove(&cgroup.id()).map_or(0, |own| own.len());
    // Few workers have made any, and there are few to ask about.
    let below: Vec<u64> = found
        .keys()
        .copied()
        .filter(|&id| cgroup.contains(id))
        .collect();
    for id in below {
        own += found.remove(&id).map_or(0, |own| own.len());
    }
    own as u64
}
