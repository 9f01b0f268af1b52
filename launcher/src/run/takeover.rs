//! Going on with the workers of a launcher that was killed, or that has replaced itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use tracing::{info, warn};

use super::{
    handed::{Handed, Inherited},
    launcher::Launcher,
    news::{Ipc, News, Notify, when_ready},
    remember,
    worker::Running,
};
use crate::{
    capture::Sighting,
    config::Plan,
    fleet::{Event, ExitStatus, Fleet, Resumed, Settings},
    ipc::Channel,
    policy::{Policies, Policy},
    sys::{
        cgroup::{FleetCgroup, open_pidfd},
        hierarchy::Hierarchy,
        listeners::Protocol,
        notify::NotifySocket,
        process::{exit_status, is_child},
        readable::Readable,
        runtime::{Name, RuntimeDir, State},
    },
    worker::WorkerId,
};

/// The environment variable by which a launcher that replaces itself tells who it was: its pid. The
/// state file alone could be that of a launcher of another boot or container.
pub(super) const REPLACES: &str = "REUSEPORT_LAUNCH_REPLACES";

/// What an earlier launcher has left.
#[derive(Debug)]
pub(super) struct Legacy {
    pub(super) state: State<remember::Fleet>,
    /// Whether it was this very process, as another executable.
    pub(super) is_own: bool,
    /// Whether its cgroup and its maps are there, and are what this launcher would make.
    fits: bool,
    /// The workers that can be gone on with.
    pub(super) workers: Vec<remember::Worker>,
}

/// How long to wait until the parent of a worker that has ended has asked for its exit status, and the
/// kernel tells it to others.
const REAPING: Duration = Duration::from_millis(20);

impl Legacy {
    /// Reads what there is. That it can't be read, or was written by a version with other things to
    /// say, is as if there were nothing: the workers are found by their cgroups.
    pub(super) fn read(runtime_dir: &RuntimeDir, name: &Name) -> Option<Self> {
        let state = State::<remember::Fleet>::read(runtime_dir, name);
        let state = state
            .inspect_err(|error| warn!("the state of an earlier launcher can't be read: {error}"))
            .ok()??;
        let own = std::process::id();
        let replaces = env::var(REPLACES).ok().and_then(|pid| pid.parse().ok());
        Some(Self {
            is_own: state.pid == own && replaces == Some(own),
            state,
            fits: false,
            workers: Vec::new(),
        })
    }

    /// Takes what it has passed on open, if it was this process. To be done before anything is
    /// started, which would get it too.
    pub(super) fn inherit(&mut self) -> Inherited {
        let handed = self.state.fleet.handed.take();
        handed
            .filter(|_| self.is_own)
            .map(Handed::take)
            .unwrap_or_default()
    }

    /// Whether it is gone on with. With no worker left there is something to go on with too where
    /// connections are held.
    pub(super) fn goes_on(&self) -> bool {
        self.fits && (self.is_own || !self.workers.is_empty())
    }

    /// Finds the workers that can be gone on with: those that run, in the fleet's own cgroup, under
    /// a launcher that steered as this one would, and has left its maps.
    pub(super) fn find_workers(
        &mut self,
        plan: &Plan,
        hierarchy: &Hierarchy,
        cgroup: &FleetCgroup,
        pins: &Path,
    ) {
        let before = &self.state.fleet;
        let place = Path::new(&self.state.cgroup);
        let same_place = place == hierarchy.fleet_path(plan.name.as_str());
        let policies = self.policies(plan.policies);
        let same_way = before.steering.groups.iter().all(|group| {
            let policy = match group.endpoint.protocol {
                Protocol::Tcp => policies.connections(),
                Protocol::Udp => policies.datagrams(),
            };
            group.pins.is_some() == (policy != Policy::Kernel)
        });
        self.fits = same_place && same_way && are_there(pins, before);
        if self.fits {
            let runs = |was: &&remember::Worker| {
                let cgroup = cgroup.open_worker(was.worker);
                // A pid that was given to somebody else is not in there.
                cgroup.is_ok_and(|cgroup| cgroup.processes().contains(&was.pid))
            };
            self.workers = before.workers.iter().filter(runs).cloned().collect();
        }
    }

    /// The policies to go on with: those in force, which may have been changed by a request, unless the
    /// command line has become another one.
    pub(super) fn policies(&self, given: Policies) -> Policies {
        let before = &self.state.fleet;
        if before.policies_given.known() == given {
            before.policies.known()
        } else {
            given
        }
    }

    /// Whether it was told to start with so many workers.
    pub(super) fn was_given(&self, workers: u32) -> bool {
        self.state
            .fleet
            .workers_given
            .is_none_or(|given| given == workers)
    }

    /// The weights of slots that are not 1.
    pub(super) fn weights(&self) -> BTreeMap<u32, u16> {
        self.state.fleet.weights.clone()
    }

    /// The workers that take connections.
    pub(super) fn ready(&self) -> Vec<WorkerId> {
        self.workers
            .iter()
            .filter(|was| was.ready && !was.parked && !was.leaving)
            .map(|was| was.worker)
            .collect()
    }

    /// A fleet that goes on with the workers.
    pub(super) fn fleet(&self, settings: Settings) -> Fleet {
        let resumed = self.workers.iter().map(|was| Resumed {
            worker: was.worker,
            ready: was.ready,
            restarts: was.restarts,
            parked: was.parked,
            leaving: was.leaving,
        });
        let generations = self.state.fleet.generations.iter().copied();
        let ever_healthy = self.state.fleet.ever_ready;
        let weights = self.weights();
        Fleet::resume(
            settings,
            resumed.collect(),
            generations,
            weights,
            ever_healthy,
        )
    }
}

/// Whether the pins of a fleet are where it has left them: somebody may have removed them.
pub(super) fn are_there(pins: &Path, fleet: &remember::Fleet) -> bool {
    pins.join("OURS").exists()
        && fleet.steering.groups.iter().all(|group| {
            let maps = group.pins.as_ref().map(|name| pins.join(name));
            // Under the policy `kernel` it has none.
            maps.is_none_or(|maps| maps.join("MEMBERS").exists())
        })
}

impl Launcher {
    /// Makes the workers this launcher's own, their sockets members, and starts the fleet. Until all
    /// members of a group are recognised the kernel goes on with its last table.
    pub(super) fn take_over(&mut self, legacy: &Legacy, mut inherited: Inherited) {
        let workers = match legacy.workers.len() {
            1 => "1 worker".to_owned(),
            count => format!("{count} workers"),
        };
        self.service.went_over = legacy.is_own;
        if legacy.is_own {
            let version = env!("CARGO_PKG_VERSION");
            info!("upgraded to version {version}: went on with {workers}");
        } else {
            let pid = legacy.state.pid;
            warn!("took over {workers} of a launcher that was killed (pid {pid})");
        }
        if legacy.state.fleet.command != remember::command(&self.plan) {
            warn!(
                "the workers of the earlier command go on; reload to bring the new one into force"
            );
        }
        let workers = &legacy.workers;
        let alive = |worker| workers.iter().any(|was| was.worker == worker);
        self.tallies = legacy.state.fleet.tallies.clone().resume(alive);
        let mut ended = Vec::new();
        for was in &legacy.workers {
            let worker = was.worker;
            let cgroup = match self.cgroup.open_worker(worker) {
                Ok(cgroup) => cgroup,
                Err(error) => {
                    warn!("worker {worker} is lost: its cgroup can't be opened: {error}");
                    ended.push(worker);
                    continue;
                }
            };
            self.capture.watch(worker, &cgroup);
            if let Err(failure) = self.steering.watch(worker, &cgroup, false) {
                warn!("{}: {}", failure.what, failure.why);
            }
            let mut running = Running::new(cgroup, Some(was.pid), self.plan.stop_signal);
            running.started = remember::moment(was.started);
            running.status_text.clone_from(&was.status);
            running.ports.clone_from(&was.ports);
            running.said_ready = was.said_ready;
            let notify = match inherited.notify(worker) {
                Some(socket) => {
                    let path = self.runtime_dir.notify(&self.plan.name, worker);
                    let socket = NotifySocket::resume(socket, &path);
                    Notify::new(&self.news, worker, socket).map(Some)
                }
                None => self.notify_socket(worker),
            };
            running.notify = notify.unwrap_or_else(|error| {
                warn!("worker {worker} can't notify any more: {error}");
                None
            });
            if let Some((socket, pending)) = inherited.channel(worker) {
                let channel = Channel::from_fd(socket, pending);
                running.ipc = Ipc::new(&self.news, worker, channel).ok();
            }
            // The kernel tells of the ends of children only; for others there is the pidfd.
            if !is_child(was.pid) {
                let handle = open_pidfd(was.pid);
                match handle.and_then(|handle| Ok((Readable::new(handle.as_fd())?, handle))) {
                    Ok((end, handle)) => {
                        let task = when_ready(&self.news, end, News::Ended(worker));
                        running.stranger = Some((handle, task));
                    }
                    // It has ended since it was looked for.
                    Err(_) => ended.push(worker),
                }
            }
            self.watch_memory(worker, &mut running);
            self.running.insert(worker, running);
        }
        let mut sightings = Vec::new();
        for was in &legacy.workers {
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
        let known = |worker| legacy.workers.iter().any(|was| was.worker == worker);
        self.steering.settle(known);
        self.feed(Event::Start);
        for worker in ended {
            self.feed(Event::Emptied { worker });
            let status = ExitStatus::Unknown;
            self.feed(Event::Exited { worker, status });
            if let Some(running) = self.running.get_mut(&worker) {
                running.ended = true;
            }
        }
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
            .and_then(|(handle, _task)| exit_status(&handle, REAPING));
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
