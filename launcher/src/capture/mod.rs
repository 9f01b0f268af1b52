//! Capture: how a worker's `bind` is made shareable and its sockets are noticed.
//!
//! The flow of one socket: the `bind` program marks it and sets `SO_REUSEPORT`; a `Bound` event
//! arrives. A UDP socket is adopted at once. For a TCP socket the `listening` program is attached
//! to the worker's cgroup, *then* the socket is looked at: either it listens already, or its
//! `listen` will be reported. When nothing of the worker is awaited any more, the program is
//! detached: it would cost several calls on every connection.

mod adopt;
mod programs;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{BorrowedFd, OwnedFd},
};

use launcher_common::{CaptureEvent, EventKind};

use self::programs::{Listening, Programs};
use crate::{
    failure::Failure,
    sys::{
        cgroup::{FleetCgroup, WorkerCgroup},
        listeners::{Endpoint, Inspected, Protocol, inspect},
    },
    worker::WorkerId,
};

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
    /// The sockets that are bound and do not listen yet, with the process that bound them.
    awaited: HashMap<u64, u32>,
    /// Attached while `awaited` is not empty.
    listening: Option<Listening>,
}

impl Capture {
    /// Loads the programs and attaches them to the fleet's cgroup. `log` turns on the programs'
    /// own debug lines.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub fn start(fleet: &FleetCgroup, ports: &Ports, log: bool) -> Result<Self, Failure> {
        Ok(Self {
            programs: Programs::load(fleet, ports, log)?,
            workers: HashMap::new(),
        })
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
            awaited: HashMap::new(),
            listening: None,
        };
        self.workers.insert(cgroup.id(), watched);
    }

    /// Forgets a worker that is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.workers.retain(|_, watched| watched.worker != worker);
    }

    /// Handles the events that have arrived. `cgroup` gives a worker's cgroup.
    ///
    /// # Errors
    /// When the `listening` program can't be attached.
    pub fn read<'a>(
        &mut self,
        cgroup: impl Fn(WorkerId) -> Option<&'a WorkerCgroup>,
    ) -> io::Result<Vec<Sighting>> {
        let mut sightings = Vec::new();
        while let Some(event) = self.programs.next_event() {
            let Some(kind) = EventKind::from_raw(event.kind) else {
                continue;
            };
            // A server may make cgroups of its own below its worker's.
            let id = if self.workers.contains_key(&event.cgroup) {
                event.cgroup
            } else {
                let owner = self.workers.iter().find(|(_, watched)| {
                    cgroup(watched.worker)
                        .is_some_and(|cgroup| cgroup.processes().contains(&event.tgid))
                });
                let Some((&id, _)) = owner else { continue };
                id
            };
            let Some(watched) = self.workers.get_mut(&id) else {
                continue;
            };
            let Some(cgroup) = cgroup(watched.worker) else {
                continue;
            };
            match kind {
                EventKind::Taken => sightings.push(Sighting::Taken {
                    worker: watched.worker,
                    protocol: protocol(&event),
                    address: address(&event),
                }),
                EventKind::Bound => {
                    if protocol(&event) == Protocol::Tcp && watched.listening.is_none() {
                        watched.listening = Some(self.programs.attach_listening(cgroup)?);
                    }
                    watched.awaited.insert(event.cookie, event.tgid);
                    watched.look_at(event.cookie, cgroup, &mut sightings);
                }
                EventKind::Listening => {
                    // A socket that listens again after a shutdown is awaited by nobody.
                    watched.awaited.insert(event.cookie, event.tgid);
                    watched.look_at(event.cookie, cgroup, &mut sightings);
                }
            }
        }
        Ok(sightings)
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
            let cookies: Vec<u64> = watched.awaited.keys().copied().collect();
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
    fn look_at(&mut self, cookie: u64, cgroup: &WorkerCgroup, sightings: &mut Vec<Sighting>) {
        let Some(&tgid) = self.awaited.get(&cookie) else {
            return;
        };
        match adopt::find(tgid, cgroup, cookie) {
            Some(socket) => match inspect(&socket) {
                Ok(Inspected::NotListening) => return,
                Ok(Inspected::Endpoint(endpoint)) => {
                    sightings.push(Sighting::Member {
                        worker: self.worker,
                        cookie,
                        endpoint,
                        socket,
                    });
                }
                Ok(Inspected::Other) | Err(_) => {}
            },
            // Closed meanwhile; or the subflow of an MPTCP socket, which has no descriptor.
            None => {
                if adopt::has_mptcp_listener(tgid) {
                    sightings.push(Sighting::Mptcp {
                        worker: self.worker,
                    });
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
