//! Going on with the workers of a launcher that was killed, or that has replaced itself.

use std::{collections::BTreeSet, os::fd::AsFd as _, path::Path};

use tracing::warn;

use super::{
    launcher::{Launcher, Running},
    news::{Ipc, News, when_ready},
    remember,
};
use crate::{
    capture::Sighting,
    config::Plan,
    fleet::{Event, ExitStatus, Resumed},
    ipc::Channel,
    policy::Policy,
    sys::{
        cgroup::{FleetCgroup, open_pidfd},
        hierarchy::Hierarchy,
        inherit,
        process::{exit_status, is_child},
        readable::Readable,
        runtime::State,
    },
    worker::WorkerId,
};

/// The workers that can be gone on with: those that run, in the fleet's own cgroup, under a launcher
/// that steered as this one would, and has left its maps. Empty: there is nothing to take over.
pub(super) fn workers_of<'a>(
    before: Option<&'a State<remember::Fleet>>,
    plan: &Plan,
    hierarchy: &Hierarchy,
    cgroup: &FleetCgroup,
    pins: &Path,
) -> Vec<&'a remember::Worker> {
    let Some(before) = before else {
        return Vec::new();
    };
    let same_place = Path::new(&before.cgroup) == hierarchy.fleet_path(plan.name.as_str());
    let same_way = before.fleet.program == (plan.policy != Some(Policy::Kernel));
    // Somebody may have removed them.
    let pinned = before.fleet.steering.groups.iter().all(|group| {
        let maps = group.pins.as_ref().map(|name| pins.join(name));
        maps.is_some_and(|maps| maps.join("MEMBERS").exists())
    }) && pins.join("OURS").exists();
    if !same_place || !same_way || !pinned {
        return Vec::new();
    }
    let runs = |was: &&remember::Worker| {
        let cgroup = cgroup.open_worker(was.worker);
        // A pid that was given to somebody else is not in there.
        cgroup.is_ok_and(|cgroup| cgroup.processes().contains(&was.pid))
    };
    before.fleet.workers.iter().filter(runs).collect()
}

/// What the fleet has to know of them.
pub(super) fn resumed(workers: &[&remember::Worker]) -> Vec<Resumed> {
    let resumed = workers.iter().map(|was| Resumed {
        worker: was.worker,
        ready: was.ready,
        restarts: was.restarts,
        parked: was.parked,
        leaving: was.leaving,
    });
    resumed.collect()
}

impl Launcher {
    /// Makes the workers this launcher's own, their sockets members, and starts the fleet. Until all
    /// members of a group are recognised the kernel goes on with its last table.
    pub(super) fn take_over(
        &mut self,
        workers: &[&remember::Worker],
        before: &State<remember::Fleet>,
    ) {
        let mut channels = before
            .fleet
            .handed
            .as_ref()
            .map(|handed| handed.channels.clone())
            .unwrap_or_default();
        for was in workers {
            let worker = was.worker;
            let cgroup = match self.cgroup.open_worker(worker) {
                Ok(cgroup) => cgroup,
                Err(error) => {
                    warn!("worker {worker} is lost: its cgroup can't be opened: {error}");
                    continue;
                }
            };
            self.capture.watch(worker, &cgroup);
            let mut running = Running::new(cgroup, Some(was.pid));
            running.started = remember::moment(was.started);
            running.status_text.clone_from(&was.status);
            running.notify = self.notify_socket(worker).unwrap_or_else(|error| {
                warn!("worker {worker} can't notify any more: {error}");
                None
            });
            if let Some(at) = channels.iter().position(|(of, ..)| *of == worker) {
                let (_, fd, pending) = channels.swap_remove(at);
                let channel = inherit::take(fd).map(|socket| Channel::from_fd(socket, pending));
                running.ipc = channel
                    .and_then(|channel| Ipc::new(&self.news, worker, channel))
                    .ok();
            }
            // The kernel tells of the ends of children only; for others there is the pidfd.
            if !is_child(was.pid)
                && let Ok(handle) = open_pidfd(was.pid)
                && let Ok(ended) = Readable::new(handle.as_fd())
            {
                let task = when_ready(&self.news, ended, News::Ended(worker));
                running.stranger = Some((handle, task));
            }
            self.running.insert(worker, running);
        }
        let mut sightings = Vec::new();
        for was in workers {
            if let Some(running) = self.running.get(&was.worker) {
                sightings.extend(self.capture.recognise(&running.cgroup));
            }
        }
        let mut listening = BTreeSet::new();
        for sighting in sightings {
            let Sighting::Member {
                worker,
                cookie,
                endpoint,
                uid,
                socket,
            } = sighting
            else {
                continue;
            };
            match self.steering.adopt(worker, cookie, &endpoint, uid, socket) {
                Ok(true) => drop(listening.insert(worker)),
                // Closed meanwhile.
                Ok(false) => {}
                Err(failure) => warn!("{}: {}", failure.what, failure.why),
            }
        }
        self.steering.settle();
        self.feed(Event::Start);
        self.steering.close_copies();
        // Some may have come to that while there was no launcher.
        for worker in listening {
            self.on_listening(worker);
        }
    }

    /// A worker that is not our child has ended.
    pub(super) fn on_ended(&mut self, worker: WorkerId) {
        let Some(running) = self.running.get_mut(&worker) else {
            return;
        };
        let ended = running
            .stranger
            .take()
            .and_then(|(handle, _task)| exit_status(&handle));
        let status = match ended {
            Some(Ok(code)) => ExitStatus::Code(code),
            Some(Err(signal)) => ExitStatus::Signal(signal),
            None => ExitStatus::Unknown,
        };
        self.catch_up();
        self.on_end(worker, status, &mut false);
        self.check_emptied();
    }
}
