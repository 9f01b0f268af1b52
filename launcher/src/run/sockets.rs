//! What a sighting of a socket means to the fleet.

use std::collections::HashSet;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{launcher::Launcher, strangers};
use crate::{
    capture::Sighting,
    failure::{Exit, Failure},
    sys::listeners::{self, Protocol},
};

impl Launcher {
    /// The capture programs have reported something: handles part of it, and leaves a note when
    /// there is more.
    pub(super) fn on_captured(&mut self) {
        let running = &self.running;
        let (sightings, more) = self
            .capture
            .read(|worker| running.get(&worker).map(|running| &running.cgroup));
        self.behind = more;
        self.see(sightings);
    }

    /// Handles all that the capture programs have reported.
    pub(super) fn catch_up(&mut self) {
        self.behind = true;
        while self.behind {
            self.on_captured();
        }
    }

    /// The capture programs have logged something.
    pub(super) fn on_logged(&mut self) {
        self.capture.flush_log();
    }

    /// Acts on what was seen, and closes our copies of the workers' sockets: an open one would keep
    /// a dead worker's socket in its group.
    fn see(&mut self, sightings: Vec<Sighting>) {
        for sighting in sightings {
            match sighting {
                Sighting::Member {
                    worker,
                    cookie,
                    endpoint,
                    uid,
                    socket,
                } => {
                    debug!("worker {worker} listens on {endpoint}");
                    let members = self.steering.members(&endpoint);
                    if members.contains(&worker) {
                        // It may have closed the socket that it had: until that is out of the
                        // table, its turns go to the next worker.
                        self.forget_closed();
                    }
                    match self.steering.adopt(worker, cookie, &endpoint, uid, socket) {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(failure) => {
                            self.fail_unless_serving(failure);
                            continue;
                        }
                    }
                    self.on_listening(worker);
                    self.postpone_announcement();
                    if members.is_empty()
                        && let Some(stranger) = strangers::beside(self, &endpoint).first()
                    {
                        let event = self.fail(stranger.refusal(&endpoint));
                        self.feed(event);
                    }
                }
                Sighting::Taken {
                    worker,
                    protocol,
                    address,
                } => {
                    if let Some(failure) = strangers::at(self, protocol, address) {
                        warn!("worker {worker}: {}: {}", failure.what, failure.why);
                        if let Some(running) = self.running.get_mut(&worker) {
                            running.taken = Some(failure);
                        }
                    }
                }
                Sighting::Forbidden { worker } => warn!(
                    "worker {worker} has a socket that may not be copied, so nothing can be steered to \
                     it: CAP_SYS_PTRACE is missing, or a security module forbids it"
                ),
                Sighting::Refused { error } => {
                    let failure = Failure::new(
                        "cannot share ports among the workers",
                        format_args!("the kernel lets no eBPF program set SO_REUSEPORT: {error}"),
                        "a later kernel is needed; this was developed on Linux 6.18",
                    );
                    let event = self.fail(failure.exit(Exit::Unavailable));
                    self.feed(event);
                }
                Sighting::Unwatched { worker, error } => {
                    warn!("worker {worker} may be noticed late when it listens: {error}");
                }
                Sighting::Mptcp { worker } => warn!(
                    "worker {worker} listens on an MPTCP socket, which the kernel can't steer: \
                     turn MPTCP off in the server (Go: GODEBUG=multipathtcp=0; or sysctl net.mptcp.enabled=0)"
                ),
            }
        }
        self.steering.close_copies();
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
        self.steering.forget_deserted(Instant::now().into_std());
        if let Err(failure) = self.steering.hand_over() {
            self.fail_unless_serving(failure);
        }
        self.look_for_strangers();
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
        // Twice, because a list is not made in one moment: it can leave out a socket that was there
        // all the time.
        let lists = || [Protocol::Tcp, Protocol::Udp].map(listeners::list);
        if let ([Ok(a), Ok(b)], [Ok(c), Ok(d)]) = (lists(), lists()) {
            let all = a.iter().chain(&b).chain(&c).chain(&d);
            let alive: HashSet<u64> = all.map(|listener| listener.cookie).collect();
            if let Err(failure) = self
                .steering
                .forget_closed(|cookie| alive.contains(&cookie))
            {
                self.fail_unless_serving(failure);
            }
        }
    }

    /// Tells, once for each, of sockets that have joined the workers' addresses since. Under a
    /// program they get nothing; under the policy `kernel` they get their share.
    fn look_for_strangers(&mut self) {
        let mut seen = HashSet::new();
        for group in self.steering.groups() {
            for stranger in strangers::beside(self, &group.endpoint) {
                seen.insert(stranger.listener.cookie);
                if !self.strangers_told.contains(&stranger.listener.cookie) {
                    let gets = match group.counted {
                        Some(_) => {
                            "nothing is steered to it, but it takes over should all workers go"
                        }
                        None => "it gets a share of the connections",
                    };
                    warn!(
                        "{} is also listened on by {}: {gets}",
                        group.endpoint, stranger.owner
                    );
                }
            }
        }
        self.strangers_told = seen;
    }

    /// Something that concerns one socket has failed: that is the end only if nobody serves.
    fn fail_unless_serving(&mut self, failure: Failure) {
        if self.is_serving() {
            warn!("{}: {}", failure.what, failure.why);
        } else {
            let event = self.fail(failure);
            self.feed(event);
        }
    }
}
