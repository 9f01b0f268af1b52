//! What a sighting of a socket means to the fleet.

use tracing::{debug, warn};

use super::{launcher::Launcher, strangers};
use crate::{
    capture::Sighting,
    fleet::Event,
    sys::listeners::{self, Protocol},
};

impl Launcher {
    /// The capture programs have reported something.
    pub(super) fn on_captured(&mut self) {
        let running = &self.running;
        match self
            .capture
            .read(|worker| running.get(&worker).map(|running| &running.cgroup))
        {
            Ok(sightings) => self.see(sightings),
            Err(error) => warn!("a worker's listening sockets may go unnoticed: {error}"),
        }
    }

    /// The capture programs have logged something.
    pub(super) fn on_logged(&mut self) {
        self.capture.flush_log();
    }

    fn see(&mut self, sightings: Vec<Sighting>) {
        for sighting in sightings {
            match sighting {
                Sighting::Member {
                    worker,
                    cookie,
                    endpoint,
                    socket,
                } => {
                    debug!("worker {worker} listens on {endpoint}");
                    let members = self.steering.members(&endpoint);
                    if members.contains(&worker) {
                        // It may have closed the socket that it had: until that is out of the
                        // table, its turns go to the next worker.
                        self.forget_closed();
                    }
                    if let Err(failure) = self.steering.adopt(worker, cookie, &endpoint, socket) {
                        let event = self.fail(failure);
                        self.feed(event);
                        continue;
                    }
                    self.feed(Event::Listening { worker });
                    self.postpone_announcement();
                    if members.is_empty()
                        && let Some(failure) = strangers::beside(self, &endpoint)
                    {
                        let event = self.fail(failure);
                        self.feed(event);
                    }
                }
                Sighting::Taken {
                    worker,
                    protocol,
                    address,
                } => {
                    let failure = strangers::at(self, protocol, address);
                    warn!("worker {worker}: {}: {}", failure.what, failure.why);
                    if let Some(running) = self.running.get_mut(&worker) {
                        running.taken = Some(failure);
                    }
                }
                Sighting::Mptcp { worker } => warn!(
                    "worker {worker} listens on an MPTCP socket, which the kernel can't share or steer: \
                     turn MPTCP off in the server (Go: GODEBUG=multipathtcp=0; or sysctl net.mptcp.enabled=0)"
                ),
            }
        }
    }

    /// Looks at what no event tells.
    pub(super) fn keep_house(&mut self) {
        let running = &self.running;
        let sightings = self
            .capture
            .sweep(|worker| running.get(&worker).map(|running| &running.cgroup));
        self.see(sightings);
        self.check_emptied();
        self.forget_closed();
        let lost = self.capture.lost();
        if lost > self.events_lost {
            warn!(
                "{} capture events were lost: a worker's socket may get no connections",
                lost - self.events_lost
            );
            self.events_lost = lost;
        }
    }

    /// Takes members whose sockets have closed, while their workers live, out of the tables.
    fn forget_closed(&mut self) {
        let lists = [Protocol::Tcp, Protocol::Udp].map(listeners::list);
        if let [Ok(tcp), Ok(udp)] = lists {
            let alive = |cookie| {
                tcp.iter()
                    .chain(&udp)
                    .any(|listener| listener.cookie == cookie)
            };
            if let Err(failure) = self.steering.forget_closed(alive) {
                let event = self.fail(failure);
                self.feed(event);
            }
        }
    }
}
