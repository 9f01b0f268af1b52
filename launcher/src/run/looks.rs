//! What no event tells and must be looked at again and again: whether a worker has finished its
//! connections, whether its accept queue is stuck, and whether it has reached a limit.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info};

use super::launcher::Launcher;
use crate::{
    fleet::{
        Event, Recycle, State, View,
        stall::{Sample, Stall},
    },
    sys::{
        connections::{Connection, connections},
        listeners::{self, Protocol},
    },
    worker::WorkerId,
};

/// How often a draining worker is looked at: at first, and when it takes long.
const DRAIN_LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// For how long a handshake that began before the drain is waited for. It is not lost if it takes
/// longer: it moves when the worker's socket closes.
const HALF_OPEN: Duration = Duration::from_secs(2);

/// How wrong the age of a handshake may be: the kernel's timers tick, at 100 Hz at the least.
const TICKS: Duration = Duration::from_millis(20);

/// How long a drain may take before it is worth a word.
const DRAIN_WORD: Duration = Duration::from_secs(1);

/// How often the limits of recycling are looked at.
const RECYCLE_LOOK: Duration = Duration::from_millis(500);

/// How often it is looked whether all that waits at a listener is counted.
const LISTING_LOOK: Duration = Duration::from_millis(50);

/// What was seen so far, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Looks {
    drains: HashMap<WorkerId, Drain>,
    stalls: HashMap<u64, Stall>,
    stalled: HashSet<WorkerId>,
    next_stall: Option<Instant>,
    recycled: HashSet<WorkerId>,
    next_recycle: Option<Instant>,
    next_listing: Option<Instant>,
}

/// A worker that drains.
#[derive(Debug)]
struct Drain {
    since: Instant,
    next: Instant,
    /// How many connections it had open when it was last looked at.
    open: Option<u64>,
    /// Whether it was told what it waits for.
    told: bool,
}

impl Looks {
    /// How many connections a draining worker has open; `None` where nobody has looked.
    pub(super) fn open(&self, worker: WorkerId) -> Option<u64> {
        self.drains.get(&worker)?.open
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        let drains = self.drains.values().map(|drain| drain.next);
        let others = [self.next_stall, self.next_recycle, self.next_listing];
        drains.chain(others.into_iter().flatten()).min()
    }

    /// Forgets a worker that is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.drains.remove(&worker);
        self.stalled.remove(&worker);
        self.recycled.remove(&worker);
    }
}

impl Launcher {
    /// Notes who drains, to be called after each step of the fleet.
    pub(super) fn note_drains(&mut self, views: &[View]) {
        let now = Instant::now();
        let draining: HashSet<WorkerId> = views
            .iter()
            .filter(|view| view.state == State::Draining)
            .map(|view| view.worker)
            .collect();
        self.looks
            .drains
            .retain(|worker, _| draining.contains(worker));
        for view in views {
            if view.leaving && view.state == State::Draining {
                self.announce_shutdown(view.worker);
            }
        }
        for worker in draining {
            self.looks.drains.entry(worker).or_insert_with(|| Drain {
                since: now,
                next: now,
                open: None,
                told: false,
            });
        }
    }

    /// Notes whether there are listeners whose connections are not all counted yet; to be called after
    /// members were adopted.
    pub(super) fn note_unlisted(&mut self) {
        if self.steering.has_unlisted() && self.looks.next_listing.is_none() {
            self.looks.next_listing = Some(Instant::now() + LISTING_LOOK);
        }
    }

    /// Looks at all that is due.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        self.look_at_drains(now);
        // Where nothing counts what was sent, a busy queue can't be told from a stuck one.
        if let Some(timeout) = self.plan.stall_timeout
            && self.steering.counts()
            && self.looks.next_stall.is_none_or(|next| next <= now)
        {
            self.look_for_stalls(timeout);
            let pause = (timeout / 4).clamp(Duration::from_millis(50), Duration::from_secs(1));
            self.looks.next_stall = Some(now + pause);
        }
        let limits = &self.plan.recycle;
        let limited = limits.max_connections.is_some() || limits.max_memory.is_some();
        if limited && self.looks.next_recycle.is_none_or(|next| next <= now) {
            self.look_for_limits();
            self.looks.next_recycle = Some(now + RECYCLE_LOOK);
        }
        if self.looks.next_listing.take_if(|at| *at <= now).is_some() {
            // One that is not among them is closing, and what waits in it moves right now.
            let listeners = listeners::by_cookie(Protocol::Tcp);
            let empty = |cookie| listeners.get(&cookie).is_some_and(|one| one.queue == 0);
            for (worker, endpoint) in self.steering.list(empty) {
                debug!("all connections of worker {worker} on {endpoint} are counted");
            }
            self.note_unlisted();
        }
    }

    fn look_at_drains(&mut self, now: Instant) {
        let mut due = Vec::new();
        let mut ports = BTreeSet::new();
        for (&worker, drain) in &mut self.looks.drains {
            if drain.next > now {
                continue;
            }
            let elapsed = now - drain.since;
            // Whatever comes of this look: without an answer there is another one, but not at once.
            drain.next = now + (elapsed / 8).clamp(DRAIN_LOOKS.0, DRAIN_LOOKS.1);
            if let Some(running) = self.running.get(&worker) {
                ports.extend(&running.ports);
                due.push((worker, elapsed));
            }
        }
        if due.is_empty() {
            return;
        }
        // In this order: a connection that leaves a queue is among the open ones afterwards.
        // Without an answer from the kernel nothing is known to be finished.
        let (Ok(streams), Ok(datagrams), Ok(connections)) = (
            listeners::waiting(Protocol::Tcp),
            listeners::waiting(Protocol::Udp),
            connections(&ports),
        ) else {
            return;
        };
        let mut drained = Vec::new();
        for (worker, elapsed) in due {
            let (Some(drain), Some(running)) = (
                self.looks.drains.get_mut(&worker),
                self.running.get(&worker),
            ) else {
                continue;
            };
            let sockets: HashSet<u32> = running
                .cgroup
                .processes()
                .into_iter()
                .flat_map(listeners::sockets_of)
                .collect();
            let here = |connection: &&Connection| running.ports.contains(&connection.local.port());
            let open = connections
                .iter()
                .filter(here)
                .filter(|connection| sockets.contains(&connection.inode))
                .count();
            drain.open = Some(open as u64);
            if open > 0 && elapsed >= DRAIN_WORD && !std::mem::replace(&mut drain.told, true) {
                info!("worker {worker} still has {open} connections open");
            }
            // A handshake does not tell which of the sockets it is for: those that began after the
            // table was changed are for others.
            let half_open = elapsed < HALF_OPEN
                && connections.iter().filter(here).any(|connection| {
                    connection
                        .half_open_for
                        .is_some_and(|age| age + TICKS >= elapsed)
                });
            let queued = self
                .steering
                .cookies(worker)
                .iter()
                .any(|cookie| streams.contains(cookie) || datagrams.contains(cookie));
            // A stop waits for no flow: nobody could tell its clients when to come back.
            let flows = !self.fleet.is_stopping() && self.steering.has_flows(worker);
            if flows
                && open == 0
                && elapsed >= DRAIN_WORD
                && !std::mem::replace(&mut drain.told, true)
            {
                info!("worker {worker} still has UDP flows that are not idle");
            }
            if open == 0 && !half_open && !queued && !flows {
                drained.push(worker);
            }
        }
        for worker in drained {
            self.feed(Event::Drained { worker });
        }
    }

    fn look_for_stalls(&mut self, timeout: Duration) {
        let now = self.started.elapsed();
        let listeners = listeners::by_cookie(Protocol::Tcp);
        let mut stalled: HashMap<WorkerId, bool> = HashMap::new();
        let members = self.steering.sent();
        let alive: HashSet<u64> = members.iter().map(|member| member.cookie).collect();
        self.looks.stalls.retain(|cookie, _| alive.contains(cookie));
        for member in members {
            let Some(listener) = listeners.get(&member.cookie) else {
                continue;
            };
            let stall = self.looks.stalls.entry(member.cookie);
            let stall = stall.or_insert_with(|| Stall::new(timeout));
            stall.sample(
                now,
                Sample {
                    queue: listener.queue,
                    backlog: listener.backlog,
                    sent: member.sent,
                },
            );
            *stalled.entry(member.worker).or_default() |= stall.is_stalled();
        }
        for (worker, stalled) in stalled {
            let changed = if stalled {
                self.looks.stalled.insert(worker)
            } else {
                self.looks.stalled.remove(&worker)
            };
            if changed {
                self.feed(Event::Stall { worker, stalled });
            }
        }
    }

    pub(super) fn look_for_limits(&mut self) {
        let ready = self.fleet.views().into_iter().filter(|view| {
            !view.leaving
                && view.state == State::Ready
                && !self.looks.recycled.contains(&view.worker)
        });
        let mut due = Vec::new();
        for View { worker, .. } in ready {
            let connections = self.plan.recycle.max_connections.is_some_and(|limit| {
                let limit = with_jitter(limit, worker);
                self.steering
                    .connections(worker)
                    .is_some_and(|sent| sent >= limit)
            });
            let memory = self.plan.recycle.max_memory.is_some_and(|limit| {
                self.running.get(&worker).is_some_and(|running| {
                    let used = || running.cgroup.memory_bytes();
                    running.memory_exceeded || used().is_some_and(|used| used > limit)
                })
            });
            if connections {
                due.push((worker, Recycle::Connections));
            } else if memory {
                due.push((worker, Recycle::Memory));
            }
        }
        for (worker, reason) in due {
            self.looks.recycled.insert(worker);
            self.feed(Event::Recycle { worker, reason });
        }
    }
}

/// The limit ±10 %, always the same for the same worker: workers that began together do not end
/// together.
fn with_jitter(limit: u64, worker: WorkerId) -> u64 {
    let mixed =
        (u64::from(worker.slot) << 32 ^ worker.generation).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let permille = 900 + (mixed >> 32) % 201;
    let jittered = u128::from(limit) * u128::from(permille) / 1000;
    u64::try_from(jittered).unwrap_or(limit).max(1)
}
