//! What a sighting of a socket means to the fleet.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{launcher::Launcher, strangers};
use crate::{
    capture::Sighting,
    failure::{Exit, Failure},
    fleet::Event,
    sys::listeners::{self, Protocol},
    worker::WorkerId,
};

/// How many batches of events are handled at once: a worker may make them faster than they are.
const CATCH_UP: usize = 64;

/// How long a worker that replaces another is waited for until it listens in all places where that
/// one does. It may be another version, which never will.
const MORE_SOCKETS: Duration = Duration::from_secs(1);

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

    /// A worker has a member, which makes it ready; unless the worker that it replaces has more of
    /// them: then it is waited a while for the others, or nobody would serve those in between.
    pub(super) fn ready_where_others_listen(&mut self, worker: WorkerId) {
        let views = self.fleet.views();
        let others = views.iter().filter(|view| {
            view.worker.slot == worker.slot && view.worker != worker && !view.leaving
        });
        let own = self.steering.endpoints(worker);
        let missing = others
            .map(|view| self.steering.endpoints(view.worker))
            .any(|theirs| !theirs.is_subset(&own));
        if let Some(running) = self.running.get_mut(&worker) {
            if missing {
                running
                    .ready_at
                    .get_or_insert_with(|| Instant::now() + MORE_SOCKETS);
                return;
            }
            running.ready_at = None;
        }
        self.feed(Event::Ready { worker });
    }

    /// Takes workers for ready of which more sockets were expected, in vain.
    pub(super) fn stop_waiting_for_sockets(&mut self) {
        let now = Instant::now();
        let due: Vec<WorkerId> = self
            .running
            .iter_mut()
            .filter_map(|(&worker, running)| {
                running.ready_at.take_if(|at| *at <= now).map(|_| worker)
            })
            .collect();
        for worker in due {
            self.feed(Event::Ready { worker });
        }
    }

    /// Handles all that the capture programs have reported.
    pub(super) fn catch_up(&mut self) {
        for _ in 0..CATCH_UP {
            self.on_captured();
            if !self.behind {
                return;
            }
        }
    }

    /// The capture programs have logged something.
    pub(super) fn on_logged(&mut self) {
        self.capture.flush_log();
    }

    /// Acts on what was seen, and closes our copies of the workers' sockets: an open one would keep
    /// a dead worker's socket in its group.
    pub(super) fn see(&mut self, sightings: Vec<Sighting>) {
        self.steering.gather();
        let mut looked = false;
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
                    if members.contains(&worker) && !looked {
                        // It may have closed the socket that it had: until that is out of the
                        // table, its turns go to the next worker. Whatever was closed before one
                        // of these was seen has been closed by now, so that once is enough.
                        self.forget_closed();
                        looked = true;
                    }
                    match self.steering.adopt(worker, cookie, &endpoint, uid, socket) {
                        Ok(true) => {}
                        Ok(false) => continue,
                        Err(failure) => {
                            self.fail_unless_serving(failure);
                            continue;
                        }
                    }
                    let served = self.is_serving();
                    self.on_listening(worker);
                    self.postpone_announcement();
                    if members.is_empty() {
                        self.tell_of_datagrams(&endpoint);
                    }
                    if members.is_empty()
                        && let Some(stranger) =
                            strangers::beside(self, &endpoint, strangers::SURE).first()
                        && let Some(event) = self.fail_unless(served, stranger.refusal(&endpoint))
                    {
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
        if let Err(failure) = self.steering.install_gathered() {
            self.fail_unless_serving(failure);
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
        let now = Instant::now().into_std();
        self.count();
        self.steering.forget_deserted(now);
        self.count();
        self.steering.finish_counting(now);
        let waiting = listeners::waiting(Protocol::Tcp).unwrap_or_default();
        if let Err(failure) = self.steering.hand_over(|cookie| waiting.contains(&cookie)) {
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
            for stranger in strangers::beside(self, &group.endpoint, strangers::QUICK) {
                seen.insert(stranger.listener.cookie);
                if !self.strangers_told.contains(&stranger.listener.cookie) {
                    let gets = if group.steered {
                        "nothing is steered to it, but it takes over should all workers go"
                    } else {
                        "it gets a share of the connections"
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
    pub(super) fn fail_unless_serving(&mut self, failure: Failure) {
        if let Some(event) = self.fail_unless(self.is_serving(), failure) {
            self.feed(event);
        }
    }
}
