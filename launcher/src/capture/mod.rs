//! Capture: how a worker's `bind` is made shareable and its sockets are noticed.
//!
//! The flow of one socket: the `bind` program marks it and sets `SO_REUSEPORT`; a `Bound` event
//! arrives. A UDP socket is adopted at once. For a TCP socket the `listening` program is attached
//! to the worker's cgroup, *then* the socket is looked at: either it listens already, or its
//! `listen` will be reported. When nothing of the worker is awaited any more, the program is
//! detached: it would cost several calls on every connection.

mod adopt;
pub mod features;
mod programs;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
};

use launcher_common::{CaptureEvent, EventKind};
use rustix::fs::fstat;

use self::{
    adopt::Found,
    programs::{Listening, Programs},
};
use crate::{
    failure::Failure,
    sys::{
        cgroup::{FleetCgroup, WorkerCgroup},
        listen::Mark,
        listeners::{Endpoint, Inspected, Protocol, cookie, inspect},
    },
    worker::WorkerId,
};

/// How many failed binds of a worker are remembered: enough for a server that tries one port after
/// another.
const BINDING_MAX: usize = 64;

/// Which ports are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every explicit port; port 0 is left alone.
    All,
    /// Only these.
    Only(Vec<(Protocol, u16)>),
}

/// Something that capture has seen.
#[derive(Debug)]
pub enum Sighting {
    /// A worker has a new member.
    Member {
        /// Whose it is.
        worker: WorkerId,
        /// Its cookie.
        cookie: u64,
        /// What it is bound to.
        endpoint: Endpoint,
        /// Its owner.
        uid: u32,
        /// Our copy, to be closed at once: while it is open, the kernel keeps the socket in its
        /// group even when the worker is dead.
        socket: OwnedFd,
    },
    /// A worker was kept from sharing an address with a socket that is not of this fleet.
    Taken {
        /// Whose `bind` failed.
        worker: WorkerId,
        /// The protocol.
        protocol: Protocol,
        /// The address it asked for.
        address: SocketAddr,
    },
    /// A worker listens on an MPTCP socket, which can't be steered.
    Mptcp {
        /// Whose it is.
        worker: WorkerId,
    },
    /// A worker has a socket that we may not copy, so it can't be steered to.
    Forbidden {
        /// Whose it is.
        worker: WorkerId,
    },
    /// The kernel does not let an eBPF program make a socket shareable.
    Refused {
        /// Its reason.
        error: io::Error,
    },
    /// A worker's next `listen` will be noticed late.
    Unwatched {
        /// Whose it is.
        worker: WorkerId,
        /// Why the program could not be attached.
        error: io::Error,
    },
}

/// The capture of one fleet.
#[derive(Debug)]
pub struct Capture {
    programs: Programs,
    workers: HashMap<u64, Watched>,
}

/// A worker whose sockets are awaited.
#[derive(Debug)]
struct Watched {
    worker: WorkerId,
    /// The sockets that are bound and do not listen yet.
    awaited: HashSet<u64>,
    /// What `bind` was tried with, by socket, until it succeeds; at most [`BINDING_MAX`].
    binding: HashMap<u64, (Protocol, SocketAddr)>,
    /// Attached while `awaited` is not empty.
    listening: Option<Listening>,
}

impl Capture {
    /// Loads the programs and attaches them to the fleet's cgroup. `log` turns on the programs'
    /// own debug lines. With `pins`, a directory of a bpffs, they outlive the launcher.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub fn start(
        fleet: &FleetCgroup,
        ports: &Ports,
        log: bool,
        pins: Option<&Path>,
    ) -> Result<Self, Failure> {
        Ok(Self {
            programs: Programs::load(fleet, ports, log, pins)?,
            workers: HashMap::new(),
        })
    }

    /// Marks a socket as one of the fleet. For sockets that the launcher opens itself: the kernel
    /// must not take them for a stranger's.
    #[must_use]
    pub fn marker(&self) -> Box<Mark> {
        /// Any value but 0 says that the socket is ours.
        const OF_THE_LAUNCHER: u64 = u64::MAX;
        let marks = Rc::clone(&self.programs.marks);
        Box::new(move |socket| {
            let mut marks = marks.borrow_mut();
            let marked = marks.insert(socket, OF_THE_LAUNCHER, 0);
            marked.map_err(io::Error::other)
        })
    }

    /// Finds the sockets that a worker of an earlier launcher has. To be called after
    /// [`Capture::watch`].
    pub fn recognise(&mut self, cgroup: &WorkerCgroup) -> Vec<Sighting> {
        let mut sightings = Vec::new();
        if let Some(watched) = self.workers.get_mut(&cgroup.id()) {
            let programs = &mut self.programs;
            let marked = adopt::all(cgroup).filter(|socket| programs.is_marked(socket));
            let cookies: HashSet<u64> = marked.filter_map(|socket| cookie(&socket).ok()).collect();
            for cookie in cookies {
                watched.await_listen(cookie, cgroup, programs, &mut sightings);
            }
        }
        sightings
    }

    /// Readable when [`Capture::read`] has something to do.
    #[must_use]
    pub fn events(&self) -> BorrowedFd<'_> {
        self.programs.events()
    }

    /// Readable when [`Capture::flush_log`] has something to do; `None` unless the log is on.
    #[must_use]
    pub fn log(&self) -> Option<BorrowedFd<'_>> {
        self.programs.log()
    }

    /// Writes the programs' log lines.
    pub fn flush_log(&mut self) {
        self.programs.flush_log();
    }

    /// Learns which cgroup a worker has, before its process starts.
    pub fn watch(&mut self, worker: WorkerId, cgroup: &WorkerCgroup) {
        let watched = Watched {
            worker,
            awaited: HashSet::new(),
            binding: HashMap::new(),
            listening: None,
        };
        self.workers.insert(cgroup.id(), watched);
    }

    /// Forgets a worker that is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.workers.retain(|_, watched| watched.worker != worker);
    }

    /// Handles some of the events that have arrived, and says whether there may be more: not all are
    /// handled at once, because a copy of each new member's socket comes with its sighting, and others
    /// wait for their turn. `cgroup` gives a worker's cgroup.
    pub fn read<'a>(
        &mut self,
        cgroup: impl Fn(WorkerId) -> Option<&'a WorkerCgroup>,
    ) -> (Vec<Sighting>, bool) {
        const EVENTS_MAX: usize = 128;
        const SIGHTINGS_MAX: usize = 32;
        let mut sightings = Vec::new();
        for _ in 0..EVENTS_MAX {
            if sightings.len() >= SIGHTINGS_MAX {
                break;
            }
            let Some(event) = self.programs.next_event() else {
                return (sightings, false);
            };
            let Some(id) = self.owner(&event, &cgroup) else {
                continue;
            };
            if let Some(watched) = self.workers.get_mut(&id)
                && let Some(cgroup) = cgroup(watched.worker)
            {
                watched.handle(&event, cgroup, &mut self.programs, &mut sightings);
            }
        }
        (sightings, true)
    }

    /// The worker whose cgroup that of the event is, or is somewhere below: servers may make their own.
    /// Where workers have none, the one that has the socket open.
    fn owner<'a>(
        &self,
        event: &CaptureEvent,
        cgroup: impl Fn(WorkerId) -> Option<&'a WorkerCgroup>,
    ) -> Option<u64> {
        let id = event.cgroup;
        if self.workers.contains_key(&id) {
            return Some(id);
        }
        let owns = |cgroup: &WorkerCgroup| match cgroup.is_shared() {
            true => matches!(adopt::find(cgroup, event.cookie), Found::Socket(_)),
            false => cgroup.contains(id),
        };
        let owner = self
            .workers
            .iter()
            .find(|(_, watched)| cgroup(watched.worker).is_some_and(owns));
        owner.map(|(&id, _)| id)
    }

    /// The addresses that a worker has tried to bind, and could not, since it was last asked.
    pub fn failed_binds(&mut self, worker: WorkerId) -> Vec<(Protocol, SocketAddr)> {
        let watched = self
            .workers
            .values_mut()
            .find(|watched| watched.worker == worker);
        watched.map_or_else(Vec::new, |watched| {
            watched
                .binding
                .drain()
                .map(|(_, address)| address)
                .collect()
        })
    }

    /// Looks again at every awaited socket: finds those that were closed without having listened,
    /// so that the `listening` program does not stay attached for their sake.
    pub fn sweep<'a>(
        &mut self,
        cgroup: impl Fn(WorkerId) -> Option<&'a WorkerCgroup>,
    ) -> Vec<Sighting> {
        let mut sightings = Vec::new();
        for watched in self.workers.values_mut() {
            let Some(cgroup) = cgroup(watched.worker) else {
                continue;
            };
            let cookies: Vec<u64> = watched.awaited.iter().copied().collect();
            for cookie in cookies {
                watched.look_at(cookie, cgroup, &mut sightings);
            }
        }
        sightings
    }

    /// How many events were lost because the launcher did not read fast enough.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.programs.lost()
    }
}

impl Watched {
    fn handle(
        &mut self,
        event: &CaptureEvent,
        cgroup: &WorkerCgroup,
        programs: &mut Programs,
        sightings: &mut Vec<Sighting>,
    ) {
        let worker = self.worker;
        match EventKind::from_raw(event.kind) {
            Some(EventKind::Binding) if self.binding.len() == BINDING_MAX => {}
            Some(EventKind::Binding) => {
                let tried = (protocol(event), address(event));
                self.binding.insert(event.cookie, tried);
            }
            Some(EventKind::Taken) => sightings.push(Sighting::Taken {
                worker,
                protocol: protocol(event),
                address: address(event),
            }),
            Some(EventKind::Refused) => sightings.push(Sighting::Refused {
                error: io::Error::from_raw_os_error(event.errno as i32),
            }),
            Some(EventKind::Bound) => {
                self.binding.remove(&event.cookie);
                if protocol(event) == Protocol::Tcp {
                    self.await_listen(event.cookie, cgroup, programs, sightings);
                } else {
                    self.look_at(event.cookie, cgroup, sightings);
                }
            }
            Some(EventKind::Listening) => {
                // A socket that listens again after a shutdown is awaited by nobody.
                self.awaited.insert(event.cookie);
                self.look_at(event.cookie, cgroup, sightings);
            }
            None => {}
        }
    }

    /// Has the kernel tell when a socket listens, and then looks whether it does already.
    fn await_listen(
        &mut self,
        cookie: u64,
        cgroup: &WorkerCgroup,
        programs: &mut Programs,
        sightings: &mut Vec<Sighting>,
    ) {
        if self.listening.is_none() {
            match programs.attach_listening(cgroup) {
                Ok(listening) => self.listening = Some(listening),
                // The socket is still looked at now, and with every sweep.
                Err(error) => sightings.push(Sighting::Unwatched {
                    worker: self.worker,
                    error,
                }),
            }
        }
        self.awaited.insert(cookie);
        self.look_at(cookie, cgroup, sightings);
    }

    fn look_at(&mut self, cookie: u64, cgroup: &WorkerCgroup, sightings: &mut Vec<Sighting>) {
        let worker = self.worker;
        match adopt::find(cgroup, cookie) {
            Found::Socket(socket) => match inspect(&socket) {
                Ok(Inspected::NotListening) => return,
                Ok(Inspected::Endpoint(endpoint)) => {
                    if let Ok(owner) = fstat(&socket) {
                        sightings.push(Sighting::Member {
                            worker,
                            cookie,
                            endpoint,
                            uid: owner.st_uid,
                            socket,
                        });
                    }
                }
                Ok(Inspected::Other) | Err(_) => {}
            },
            Found::Forbidden => sightings.push(Sighting::Forbidden { worker }),
            // Closed meanwhile; or the subflow of an MPTCP socket, which has no descriptor.
            Found::Nowhere => {
                if adopt::has_mptcp_socket(cgroup) {
                    sightings.push(Sighting::Mptcp { worker });
                }
            }
        }
        self.awaited.remove(&cookie);
        if self.awaited.is_empty() {
            self.listening = None;
        }
    }
}

fn protocol(event: &CaptureEvent) -> Protocol {
    if event.protocol == u16::from(Protocol::Udp.number()) {
        Protocol::Udp
    } else {
        Protocol::Tcp
    }
}

fn address(event: &CaptureEvent) -> SocketAddr {
    const AF_INET: u16 = 2;
    let [a, b, c, d, ..] = event.address;
    let ip = if event.family == AF_INET {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(event.address))
    };
    SocketAddr::new(ip, event.port)
}
