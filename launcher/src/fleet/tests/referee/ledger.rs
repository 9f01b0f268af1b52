//! The referee's own account of a fleet: who is where, from what was told and what was asked for.

use std::collections::BTreeMap;

use super::super::*;
use crate::fleet::restart::Failures;

/// What is known of one worker.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// It fails when it isn't ready in time.
    pub(super) must_be_ready: bool,
    /// Why it was started, if to replace another.
    pub(super) reason: Option<Reason>,
    /// Since the first sign of life.
    pub(super) runs_since: Option<Duration>,
    pub(super) listens: bool,
    pub(super) ready_since: Option<Duration>,
    pub(super) healthy_since: Option<Duration>,
    pub(super) unhealthy: bool,
    pub(super) stalled: bool,
    pub(super) drained: bool,
    pub(super) recycle: Option<Recycle>,
    /// When it was told to leave, or was late.
    pub(super) left_at: Option<Duration>,
    /// The end of its draining, once it leaves; `None`: never.
    pub(super) drain_by: Option<Duration>,
    pub(super) failed_at: Option<Duration>,
    pub(super) exited: bool,
    pub(super) exit_told: bool,
    pub(super) emptied: bool,
    pub(super) spawn_failed: bool,
    pub(super) signalled_at: Option<Duration>,
    pub(super) killed_at: Option<Duration>,
    pub(super) given_up: bool,
    pub(super) released: bool,
}

impl Account {
    fn leave(&mut self, now: Duration, drain_timeout: Option<Duration>) {
        self.left_at = Some(now);
        self.drained = false;
        self.drain_by = drain_timeout.map(|timeout| now + timeout);
    }

    /// It finishes its connections before its signal.
    pub(super) fn drains(&self) -> bool {
        let over = self.signalled_at.is_some() || self.killed_at.is_some() || self.exited;
        self.left_at.is_some() && self.ready_since.is_some() && !over && !self.released
    }

    pub(super) fn ails(&self) -> bool {
        self.unhealthy || self.stalled
    }
}

/// What is known of one slot.
#[derive(Debug, Default)]
pub(super) struct SlotAccount {
    pub(super) generation: u64,
    pub(super) current: Option<WorkerId>,
    pub(super) next: Option<WorkerId>,
    /// The worker of the last replacement, as long as that isn't over.
    pub(super) replacement: Option<WorkerId>,
    pub(super) parked: bool,
    /// Where it is not 1.
    pub(super) weight: Option<u16>,
    pub(super) failures: Failures,
    /// When the current failure's restart may come; the end where nothing may hold it up.
    pub(super) restart: Option<(Duration, Option<Duration>)>,
    /// Before it, the worker isn't replaced unasked.
    pub(super) held_until: Duration,
}

impl SlotAccount {
    /// Whether people let it take connections.
    pub(super) fn is_open(&self) -> bool {
        !self.parked && self.weight != Some(0)
    }
}

/// A request that is being carried out.
#[derive(Debug)]
pub(super) struct JobAccount {
    pub(super) ticket: Ticket,
    pub(super) request: Request,
    pub(super) drain_timeout: Option<Duration>,
    /// The latest generations when it was asked for, and the number of slots.
    pub(super) before: BTreeMap<u32, u64>,
    pub(super) slots_before: u32,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) settings: Settings,
    pub(super) lateness: Duration,
    pub(super) wanted: u32,
    pub(super) workers: BTreeMap<WorkerId, Account>,
    pub(super) slots: BTreeMap<u32, SlotAccount>,
    pub(super) job: Option<JobAccount>,
    /// A weight has changed since the steer set was told.
    pub(super) reweighed: bool,
    pub(super) ever_healthy: bool,
    /// Nothing is started any more.
    pub(super) stopping: bool,
}

impl Ledger {
    pub(super) fn new(settings: Settings, lateness: Duration) -> Self {
        Self {
            wanted: settings.workers,
            settings,
            lateness,
            workers: BTreeMap::new(),
            slots: BTreeMap::new(),
            job: None,
            reweighed: false,
            ever_healthy: false,
            stopping: false,
        }
    }

    /// The account of a worker that isn't forgotten.
    pub(super) fn edit(&mut self, worker: WorkerId, edit: impl FnOnce(&mut Account)) {
        let account = self.workers.get_mut(&worker);
        if let Some(account) = account.filter(|account| !account.released) {
            edit(account);
        }
    }

    pub(super) fn slot(&mut self, number: u32) -> &mut SlotAccount {
        self.slots.entry(number).or_default()
    }

    fn is_current(&self, worker: WorkerId) -> bool {
        let slot = self.slots.get(&worker.slot);
        slot.is_some_and(|slot| slot.current == Some(worker))
    }

    fn is_next(&self, worker: WorkerId) -> bool {
        let slot = self.slots.get(&worker.slot);
        slot.is_some_and(|slot| slot.next == Some(worker))
    }

    pub(super) fn has_place(&self, worker: WorkerId) -> bool {
        self.is_current(worker) || self.is_next(worker)
    }

    fn is_current_and_ready(&self, worker: WorkerId) -> bool {
        self.is_current(worker) && self.workers[&worker].ready_since.is_some()
    }

    /// The workers that are to take connections.
    pub(super) fn steer_set(&self) -> Vec<WorkerId> {
        if self.stopping {
            return Vec::new();
        }
        let open = self.slots.values().filter(|slot| slot.is_open());
        let willing: Vec<WorkerId> = open
            .filter_map(|slot| slot.current)
            .filter(|worker| self.is_current_and_ready(*worker))
            .collect();
        let well = |worker: &WorkerId| !self.workers[worker].ails();
        if willing.iter().any(well) {
            willing.into_iter().filter(well).collect()
        } else {
            willing
        }
    }

    /// Whether the slot's replacement goes on.
    pub(super) fn is_replacing(&self, slot: &SlotAccount) -> bool {
        let Some(new) = slot.replacement else {
            return false;
        };
        if self.workers[&new].ready_since.is_some() {
            let mut older = self.workers.range(id(new.slot, 0)..new);
            older.any(|(_, account)| !account.released)
        } else {
            slot.current == Some(new) || !self.workers[&new].released
        }
    }

    /// An event about workers.
    pub(super) fn note(&mut self, now: Duration, event: &Event) {
        match *event {
            Event::Spawned { worker } => self.runs(now, worker),
            Event::Listening { worker } => {
                self.runs(now, worker);
                if self.has_place(worker) {
                    self.edit(worker, |account| account.listens = true);
                }
            }
            Event::Ready { worker } => {
                self.runs(now, worker);
                self.note_ready(now, worker);
            }
            Event::Drained { worker } => {
                let slot = self.slots.get(&worker.slot);
                let parked = slot.is_some_and(|slot| slot.parked);
                let parked = parked && self.is_current_and_ready(worker);
                self.edit(worker, |account| {
                    account.drained |= parked || account.drains();
                });
            }
            Event::Health { worker, healthy } if self.is_current_and_ready(worker) => {
                let healthy_since = self.workers[&worker].healthy_since;
                if self.workers[&worker].unhealthy == healthy {
                    self.edit(worker, |account| account.unhealthy = !healthy);
                    if !healthy {
                        let delay = self.count(now, worker.slot, healthy_since);
                        self.slot(worker.slot).held_until = now + delay * 4 / 5;
                    }
                }
            }
            Event::Stall { worker, stalled } if self.is_current_and_ready(worker) => {
                self.edit(worker, |account| account.stalled = stalled);
            }
            Event::Recycle { worker, reason } if self.is_current_and_ready(worker) => {
                self.edit(worker, |account| {
                    account.recycle.get_or_insert(reason);
                });
            }
            Event::SpawnFailed { worker, .. } => {
                self.fail(now, worker);
                self.edit(worker, |account| account.spawn_failed = true);
            }
            Event::Exited { worker, .. } => {
                self.runs(now, worker);
                self.fail(now, worker);
                self.edit(worker, |account| account.exited = true);
            }
            Event::Emptied { worker } => self.edit(worker, |account| account.emptied = true),
            Event::Health { .. } | Event::Stall { .. } | Event::Recycle { .. } => {}
            Event::Request { .. } | Event::Start | Event::Tick => {}
            Event::Stop(_) | Event::Fatal { .. } => {}
        }
    }

    fn runs(&mut self, now: Duration, worker: WorkerId) {
        self.edit(worker, |account| {
            account.runs_since.get_or_insert(now);
        });
    }

    fn note_ready(&mut self, now: Duration, worker: WorkerId) {
        if !self.has_place(worker) {
            return;
        }
        self.ever_healthy = true;
        self.edit(worker, |account| {
            account.ready_since.get_or_insert(now);
            account.healthy_since.get_or_insert(now);
        });
        if self.is_next(worker) {
            let slot = self.slot(worker.slot);
            slot.next = None;
            let old = slot.current.replace(worker).expect("a worker to replace");
            let asked_for = self.workers[&worker].reason == Some(Reason::Reload);
            let job = self.job.as_ref().filter(|_| asked_for);
            let drain_timeout = job.map_or(self.settings.drain_timeout, |job| job.drain_timeout);
            self.edit(old, |account| account.leave(now, drain_timeout));
        }
    }

    fn count(&mut self, now: Duration, slot: u32, healthy: Option<Duration>) -> Duration {
        let restart = self.settings.restart;
        let healthy_for = healthy.map(|since| now - since);
        let slot = self.slot(slot);
        slot.failures.count(now, healthy_for, &restart)
    }

    /// A worker that has a place has lost it by its own fault.
    pub(super) fn fail(&mut self, now: Duration, worker: WorkerId) {
        if !self.has_place(worker) {
            return;
        }
        let was_current = self.is_current(worker);
        let account = &self.workers[&worker];
        let (healthy_since, reason) = (account.healthy_since, account.reason);
        self.edit(worker, |account| account.failed_at = Some(now));
        let asked_for = matches!(reason, Some(Reason::Reload | Reason::Restart));
        if !was_current && asked_for {
            self.slot(worker.slot).next = None;
            return;
        }
        let delay = self.count(now, worker.slot, healthy_since);
        let (ever_healthy, lateness) = (self.ever_healthy, self.lateness);
        let slot = self.slot(worker.slot);
        if !was_current {
            slot.next = None;
            slot.held_until = now + delay * 4 / 5;
            return;
        }
        slot.current = slot.next.take();
        if slot.current.is_none() {
            let latest = now + delay * 6 / 5 + lateness;
            slot.restart = Some((now + delay * 4 / 5, ever_healthy.then_some(latest)));
        }
    }

    /// A request that was not refused.
    pub(super) fn accept(&mut self, now: Duration, ticket: Ticket, request: Request) {
        let default = self.settings.drain_timeout;
        let generations = self.slots.iter().map(|(slot, it)| (*slot, it.generation));
        let job = JobAccount {
            ticket,
            request,
            drain_timeout: default,
            before: generations.collect(),
            slots_before: self.wanted,
        };
        match request {
            Request::Reload { drain_timeout } => {
                let drain_timeout = drain_timeout.unwrap_or(default);
                self.job = Some(JobAccount {
                    drain_timeout,
                    ..job
                });
            }
            Request::Restart(_) => self.job = Some(job),
            Request::Scale(workers) => {
                self.job = Some(job);
                self.scale(now, workers);
            }
            Request::ScaleBy(more) => {
                self.job = Some(job);
                self.scale(now, self.wanted.saturating_add_signed(more));
            }
            Request::Drain(slot) => {
                let slot = self.slot(slot);
                let current = slot.current.filter(|_| !slot.parked);
                slot.parked = true;
                if let Some(current) = current {
                    self.edit(current, |account| account.drained = false);
                }
            }
            Request::Undrain(slot) => self.slot(slot).parked = false,
            Request::Weigh { slot, weight } => {
                let weight = Some(weight).filter(|weight| *weight != 1);
                let before = std::mem::replace(&mut self.slot(slot).weight, weight);
                self.reweighed |= before != weight;
            }
        }
    }

    fn scale(&mut self, now: Duration, workers: u32) {
        for number in self.wanted..workers {
            let slot = self.slot(number);
            slot.parked = false;
            slot.restart = Some((now, Some(now)));
        }
        self.wanted = workers;
        let removed: Vec<u32> = self.slots.range(workers..).map(|(slot, _)| *slot).collect();
        for number in removed {
            let slot = self.slot(number);
            (slot.restart, slot.replacement) = (None, None);
            slot.weight = None;
            (slot.failures, slot.held_until) = (Failures::default(), Duration::ZERO);
            let drain_timeout = self.settings.drain_timeout;
            self.clear(now, number, drain_timeout);
        }
    }

    /// Tells the workers that have this slot to leave.
    fn clear(&mut self, now: Duration, number: u32, drain_timeout: Option<Duration>) {
        let slot = self.slot(number);
        for worker in [slot.current.take(), slot.next.take()]
            .into_iter()
            .flatten()
        {
            self.edit(worker, |account| account.leave(now, drain_timeout));
        }
    }

    /// A reload or restart has failed: what it has started and isn't ready goes.
    pub(super) fn abort(&mut self, now: Duration) {
        let asked_for = |reason| matches!(reason, Some(Reason::Reload | Reason::Restart));
        let numbers: Vec<u32> = self.slots.keys().copied().collect();
        for number in numbers {
            let slot = self.slot(number);
            let (current, next) = (slot.current, slot.next);
            if let Some(next) = next.filter(|next| asked_for(self.workers[next].reason)) {
                self.slot(number).next = None;
                self.edit(next, |account| account.leave(now, None));
            }
            if self.slots[&number].replacement == current
                && current.is_some_and(|current| self.workers[&current].ready_since.is_none())
            {
                self.slot(number).replacement = None;
            }
        }
    }

    /// Everything stops.
    pub(super) fn stop(&mut self, now: Duration) {
        self.stopping = true;
        let drain_by = now + self.settings.stop_timeout / 2;
        let numbers: Vec<u32> = self.slots.keys().copied().collect();
        for number in numbers {
            self.clear(now, number, None);
        }
        for account in self.workers.values_mut().filter(|account| account.drains()) {
            account.drain_by = Some(account.drain_by.map_or(drain_by, |by| by.min(drain_by)));
        }
    }

    /// Another launcher goes on with these workers.
    pub(super) fn take_over(&mut self, now: Duration, settings: Settings, resumed: &[Resumed]) {
        let Self {
            lateness,
            workers,
            slots,
            ..
        } = std::mem::replace(self, Self::new(settings, self.lateness));
        self.lateness = lateness;
        for (worker, _) in workers {
            self.workers.insert(
                worker,
                Account {
                    released: true,
                    ..Account::default()
                },
            );
        }
        for (number, slot) in slots {
            let weight = slot.weight.filter(|_| number < self.wanted);
            let account = self.slot(number);
            (account.generation, account.weight) = (slot.generation, weight);
        }
        let mut best: BTreeMap<u32, (bool, WorkerId)> = BTreeMap::new();
        for Resumed {
            worker,
            ready,
            parked,
            leaving,
            restarts: _,
        } in resumed
        {
            let account = Account {
                must_be_ready: self.settings.ready_required,
                runs_since: Some(now),
                ready_since: ready.then_some(now),
                healthy_since: ready.then_some(now),
                ..Account::default()
            };
            self.workers.insert(*worker, account);
            self.slot(worker.slot).parked |= *parked;
            if !leaving {
                let best = best.entry(worker.slot).or_insert((*ready, *worker));
                *best = (*best).max((*ready, *worker));
            }
            self.ever_healthy |= *ready;
        }
        for number in 0..self.wanted {
            self.slot(number).current = best.get(&number).map(|(_, worker)| *worker);
            if !best.contains_key(&number) {
                self.slot(number).restart = Some((now, Some(now)));
            }
        }
        let mut kept = self.slots.range(..self.wanted).map(|(_, slot)| slot);
        if kept.all(|slot| !slot.is_open()) {
            for slot in self.slots.values_mut() {
                slot.parked = false;
                slot.weight = slot.weight.filter(|weight| *weight != 0);
            }
        }
        for Resumed { worker, .. } in resumed {
            if !self.has_place(*worker) {
                // It may have become ready unnoticed.
                self.edit(*worker, |account| {
                    account.ready_since.get_or_insert(now);
                });
                let drain_timeout = self.settings.drain_timeout;
                self.edit(*worker, |account| account.leave(now, drain_timeout));
            }
        }
    }
}
