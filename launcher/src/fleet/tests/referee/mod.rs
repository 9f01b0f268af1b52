//! Watches a fleet from outside: keeps its own account of what was told and asked for, and panics
//! where a rule is broken.

mod ledger;

use std::collections::{BTreeMap, BTreeSet};

use ledger::{Account, Ledger};

use super::*;

#[derive(Debug)]
pub(super) struct Referee {
    ledger: Ledger,
    steered: Vec<WorkerId>,
    /// Requests without an answer.
    open: BTreeSet<Ticket>,
    /// When and how the first stop was asked for.
    stop: Option<(Duration, Event)>,
    /// When a stop at once was first asked for.
    stop_now: Option<Duration>,
    /// The fleet stops of its own accord.
    gives_up: bool,
    /// What the step's next spawn is for.
    replacing: Option<(WorkerId, WorkerId, Reason)>,
    outcome: Option<Outcome>,
}

impl Referee {
    pub(super) fn new(settings: Settings, lateness: Duration) -> Self {
        Self {
            ledger: Ledger::new(settings, lateness),
            steered: Vec::new(),
            open: BTreeSet::new(),
            stop: None,
            stop_now: None,
            gives_up: false,
            replacing: None,
            outcome: None,
        }
    }

    /// The launcher is killed, and another one goes on. Returns the latest generations.
    pub(super) fn take_over(
        &mut self,
        now: Duration,
        settings: Settings,
        resumed: &[Resumed],
    ) -> Vec<(u32, u64)> {
        self.ledger.take_over(now, settings.clone(), resumed);
        let Self { ledger, .. } = std::mem::replace(self, Self::new(settings, Duration::ZERO));
        let slots = ledger.slots.iter();
        let generations = slots.map(|(slot, it)| (*slot, it.generation)).collect();
        self.ledger = ledger;
        generations
    }

    /// Whether people let this slot take connections.
    fn is_open(&self, slot: u32) -> bool {
        let slot = self.ledger.slots.get(&slot);
        slot.is_none_or(ledger::SlotAccount::is_open)
    }

    /// The weights that are not 1.
    pub(super) fn weights(&self) -> BTreeMap<u32, u16> {
        let slots = self.ledger.slots.iter();
        slots
            .filter_map(|(slot, it)| Some((*slot, it.weight?)))
            .collect()
    }

    pub(super) fn is_parked(&self, slot: u32) -> bool {
        let slot = self.ledger.slots.get(&slot);
        slot.is_some_and(|slot| slot.parked)
    }

    pub(super) fn is_ready(&self, worker: WorkerId) -> bool {
        self.ledger.workers[&worker].ready_since.is_some()
    }

    /// Whether it goes on.
    pub(super) fn is_running(&self) -> bool {
        self.stop.is_none() && !self.gives_up && self.outcome.is_none()
    }

    /// One step of the fleet.
    pub(super) fn watch(
        &mut self,
        now: Duration,
        event: &Event,
        effects: &[Effect],
        fleet: &mut Fleet,
    ) {
        if self.outcome.is_some() {
            assert_eq!(effects, [], "after the end");
            return;
        }
        self.ledger.note(now, event);
        self.note_stop(now, event);
        self.note_request(now, event, effects);
        for effect in effects {
            if let Effect::Notice(Notice::NotReady { worker, .. }) = effect {
                self.check_late(now, *worker);
            }
        }
        for effect in effects {
            self.note_abort(now, effect);
        }
        if self.is_running() && fleet.is_stopping() {
            self.gives_up = true;
            self.stop_now = Some(now);
            self.ledger.stop(now);
        }
        for (index, effect) in effects.iter().enumerate() {
            assert!(self.outcome.is_none(), "the end comes last: {effects:?}");
            assert!(
                index == 0 || !matches!(effect, Effect::Steer(_)),
                "late: {effects:?}"
            );
            self.check(now, effect);
        }
        self.check_state(now, fleet);
    }

    /// Nothing is left to happen.
    pub(super) fn finish(&self) {
        assert!(self.outcome.is_some(), "no end: {self:?}");
        assert!(self.open.is_empty(), "not answered: {self:?}");
    }

    /// The workers have all been good for a while.
    pub(super) fn check_calm(&self, fleet: &Fleet) {
        assert_eq!(fleet.operation(), None, "still under way");
        assert!(self.open.is_empty(), "not answered: {self:?}");
        let ready = fleet.steered().iter().map(|worker| worker.slot);
        assert!(ready.eq(0..fleet.workers_wanted()), "{:?}", fleet.views());
        if self.ledger.settings.max_age.is_none() {
            let ready = |view: &View| view.state == State::Ready;
            assert!(fleet.views().iter().all(ready), "{:?}", fleet.views());
        }
    }

    fn note_stop(&mut self, now: Duration, event: &Event) {
        if matches!(event, Event::Stop(_) | Event::Fatal { .. }) {
            self.stop.get_or_insert((now, event.clone()));
            self.ledger.stop(now);
        }
        if *event == Event::Stop(StopMode::Now) {
            self.stop_now.get_or_insert(now);
        }
    }

    fn note_request(&mut self, now: Duration, event: &Event, effects: &[Effect]) {
        let Event::Request { ticket, request } = *event else {
            return;
        };
        assert!(self.open.insert(ticket), "the world's mistake");
        let refusal = effects.iter().find_map(|effect| match effect {
            Effect::Answer {
                ticket: answered,
                answer: Err(Unmet::Refused(refusal)),
            } if *answered == ticket => Some(*refusal),
            _ => None,
        });
        match refusal {
            Some(refusal) => self.check_refusal(request, refusal),
            None => {
                assert!(self.is_running(), "accepted after a stop");
                self.ledger.accept(now, ticket, request);
            }
        }
    }

    fn check_refusal(&self, request: Request, refusal: Refusal) {
        let wanted = i64::from(self.ledger.wanted);
        let scale = |by: fn(i64) -> bool| match request {
            Request::Scale(workers) => by(i64::from(workers)),
            Request::ScaleBy(more) => by(wanted + i64::from(more)),
            _ => false,
        };
        let unknown = |slot| i64::from(slot) >= wanted;
        let right = match refusal {
            Refusal::NotRunning => !self.is_running(),
            Refusal::Busy(_) => self.ledger.job.is_some(),
            Refusal::NoSlots => scale(|workers| workers < 1),
            Refusal::TooManySlots => scale(|workers| workers > 256),
            Refusal::NoSuchSlot { slot, .. } => unknown(slot),
            Refusal::LastWorker => match request {
                Request::Weigh { slot, weight: 0 } | Request::Drain(slot) => {
                    self.steered.iter().all(|worker| worker.slot == slot)
                }
                _ => scale(|_| true) && !self.steered.is_empty(),
            },
        };
        assert!(right, "{request:?} is refused: {refusal:?}");
    }

    fn check_late(&mut self, now: Duration, worker: WorkerId) {
        let account = &self.ledger.workers[&worker];
        let timeout = self.ledger.settings.ready_timeout;
        let due = account.runs_since.is_some_and(|at| at + timeout <= now);
        assert!(due && account.must_be_ready, "{account:?}");
        assert!(account.ready_since.is_none(), "{account:?}");
        assert!(self.ledger.has_place(worker), "{account:?}");
        self.ledger.fail(now, worker);
        self.ledger
            .edit(worker, |account| account.left_at = Some(now));
    }

    fn note_abort(&mut self, now: Duration, effect: &Effect) {
        if let Effect::Answer {
            answer: Err(Unmet::Failed { operation, .. }),
            ..
        } = effect
            && operation.verb != Verb::Scale
        {
            self.ledger.abort(now);
        }
    }

    fn check(&mut self, now: Duration, effect: &Effect) {
        match effect {
            Effect::Spawn(worker) => self.check_spawn(now, *worker),
            Effect::Steer(workers) => self.check_steer(workers),
            Effect::Signal(worker) => {
                let account = self.check_attack(*worker);
                assert!(account.signalled_at.is_none(), "{account:?}");
                assert!(account.killed_at.is_none(), "{account:?}");
                assert!(account.left_at.is_some(), "{account:?}");
                // What it has open, it may finish.
                let late = account.drain_by.is_some_and(|by| by <= now);
                let finished = account.ready_since.is_none() || account.drained || account.exited;
                assert!(finished || late, "{account:?}");
                self.ledger
                    .edit(*worker, |account| account.signalled_at = Some(now));
            }
            Effect::Kill(worker) => {
                let account = self.check_attack(*worker);
                assert!(account.killed_at.is_none(), "{account:?}");
                let due = self.kill_due(account).is_some_and(|due| due <= now);
                assert!(account.failed_at.is_some() || due, "{account:?}");
                self.ledger
                    .edit(*worker, |account| account.killed_at = Some(now));
            }
            Effect::Release(worker) => {
                let account = &self.ledger.workers[worker];
                assert!(!account.released, "released twice");
                let gone = account.spawn_failed || account.exited && account.emptied;
                assert!(gone || account.given_up, "{account:?}");
                self.ledger.edit(*worker, |account| account.released = true);
            }
            Effect::Notice(notice) => self.check_notice(now, notice),
            Effect::Answer { ticket, answer } => self.check_answer(now, *ticket, answer),
            Effect::Quit(outcome) => self.check_quit(now, outcome),
        }
    }

    fn check_steer(&mut self, workers: &[WorkerId]) {
        let reweighed = std::mem::take(&mut self.ledger.reweighed);
        assert!(reweighed || workers != self.steered, "no change");
        // Who isn't steered to any more has a successor, or a reason of its own.
        let stays = |slot| workers.iter().any(|worker| worker.slot == slot);
        for gone in self.steered.iter().filter(|it| !workers.contains(it)) {
            let account = &self.ledger.workers[gone];
            let reason = account.failed_at.is_some()
                || account.ails()
                || !self.is_open(gone.slot)
                || gone.slot >= self.ledger.wanted
                || !self.is_running();
            assert!(reason || stays(gone.slot), "{gone} is lost: {account:?}");
        }
        self.steered = workers.to_vec();
    }

    /// A worker gets a signal or is killed.
    fn check_attack(&self, worker: WorkerId) -> &Account {
        assert!(!self.steered.contains(&worker), "it is steered to");
        let account = &self.ledger.workers[&worker];
        assert!(
            account.runs_since.is_some() && !account.released,
            "{account:?}"
        );
        account
    }

    fn check_notice(&mut self, now: Duration, notice: &Notice) {
        match *notice {
            Notice::NotListening { worker, .. } => {
                let account = &self.ledger.workers[&worker];
                let due = |since| now >= since + self.ledger.settings.listen_warning;
                assert!(account.runs_since.is_some_and(due), "{account:?}");
                assert!(!account.listens && !account.must_be_ready, "{account:?}");
                assert!(account.healthy_since.is_none(), "{account:?}");
                self.ledger
                    .edit(worker, |account| account.healthy_since = Some(now));
                self.ledger.ever_healthy = true;
            }
            Notice::Unkillable { worker } => {
                let account = &self.ledger.workers[&worker];
                // A kill that had to wait for the spawn counts from when it was due.
                let killed_at = account.killed_at.into_iter().chain(self.kill_due(account));
                let patience = Duration::from_secs(5);
                let over = killed_at.min().is_some_and(|at| now >= at + patience);
                assert!(over, "{account:?}");
                self.ledger.edit(worker, |account| account.given_up = true);
            }
            Notice::Exited { worker, .. } => {
                assert!(!self.ledger.workers[&worker].exit_told, "told twice");
                self.ledger.edit(worker, |account| account.exit_told = true);
            }
            Notice::Replacing { old, new, reason } => self.replacing = Some((old, new, reason)),
            _ => {}
        }
    }

    fn check_spawn(&mut self, now: Duration, worker: WorkerId) {
        assert!(self.is_running(), "spawns after a stop");
        assert!(worker.slot < self.ledger.wanted, "a removed slot");
        let old = self.ledger.slot(worker.slot).current;
        let replacing = self.replacing.take();
        if let Some((old, new, reason)) = replacing {
            assert_eq!(new, worker);
            self.check_replacement(now, old, reason);
        } else {
            assert_eq!(old, None, "not announced");
        }
        if let Some((earliest, latest)) = self.ledger.slot(worker.slot).restart.take() {
            // A slot that waits for its restart doesn't make people wait.
            let due = earliest <= now || replacing.is_some();
            assert!(due, "restarts before {earliest:?}");
            let in_time = latest.is_none_or(|latest| now <= latest);
            assert!(in_time, "restarts after {latest:?}");
        }
        let account = Account {
            must_be_ready: self.ledger.settings.ready_required || replacing.is_some(),
            reason: replacing.map(|(_, _, reason)| reason),
            ..Account::default()
        };
        let slot = self.ledger.slot(worker.slot);
        slot.generation += 1;
        assert_eq!(worker.generation, slot.generation);
        assert_eq!(slot.next, None, "two at once");
        if old.is_some() {
            slot.next = Some(worker);
        } else {
            slot.current = Some(worker);
        }
        if replacing.is_some() {
            slot.replacement = Some(worker);
        }
        let before = self.ledger.workers.insert(worker, account);
        assert!(before.is_none(), "spawned twice");
        let replaced = self.ledger.slots.values();
        let replaced = replaced.filter(|slot| self.ledger.is_replacing(slot));
        assert!(replaced.count() <= self.ledger.settings.max_surge as usize);
    }

    fn check_replacement(&self, now: Duration, old: WorkerId, reason: Reason) {
        let (account, slot) = (&self.ledger.workers[&old], &self.ledger.slots[&old.slot]);
        let job = self.ledger.job.as_ref().map(|job| job.request);
        let mut others = self.ledger.slots.values();
        match reason {
            Reason::Reload => assert!(matches!(job, Some(Request::Reload { .. }))),
            Reason::Restart => assert_eq!(job, Some(Request::Restart(old.slot))),
            Reason::Unhealthy => assert!(account.unhealthy && slot.held_until <= now),
            Reason::Recycle(reason) => {
                let max_age = self.ledger.settings.max_age;
                let old_enough = |(since, age): (Duration, Duration)| since + age * 9 / 10 <= now;
                let aged = account.ready_since.zip(max_age).is_some_and(old_enough);
                let aged = aged && reason == Recycle::Age;
                assert!(aged || account.recycle == Some(reason), "{account:?}");
                assert!(slot.held_until <= now, "too early");
                let alone = !others.any(|slot| self.ledger.is_replacing(slot));
                assert!(alone, "beside another");
            }
        }
    }

    /// From when on a worker that didn't fail may be killed.
    fn kill_due(&self, account: &Account) -> Option<Duration> {
        let timeout = self.ledger.settings.stop_timeout;
        // One that isn't ready is signalled as soon as it runs.
        let told = account.left_at.filter(|_| account.ready_since.is_none());
        let stopped = self.stop.as_ref().map(|(at, _)| *at);
        let starts = account.signalled_at.into_iter().chain(told).chain(stopped);
        let timeouts = starts.map(|at| at + timeout);
        timeouts.chain(self.stop_now).min()
    }

    fn check_answer(&mut self, now: Duration, ticket: Ticket, answer: &Result<(), Unmet>) {
        assert!(self.open.remove(&ticket), "answered twice: {answer:?}");
        if let Err(Unmet::Failed { worker, cause, .. }) = answer {
            let account = &self.ledger.workers[worker];
            let slow = matches!(cause, Cause::NotReady(_)) && account.ready_since.is_none();
            assert!(account.failed_at.is_some() || slow, "{account:?}");
        }
        if let Err(Unmet::StillOpen { worker, after }) = answer {
            assert!(!self.ledger.workers[worker].drained && *after <= now);
        }
        let ours = |job: &mut ledger::JobAccount| job.ticket == ticket;
        if let Some(job) = self.ledger.job.take_if(ours)
            && answer.is_ok()
        {
            self.check_done(&job);
        }
    }

    /// What was asked for has come true.
    fn check_done(&self, job: &ledger::JobAccount) {
        let gone = |slot: u32, generation: u64| {
            let mut workers = self
                .ledger
                .workers
                .range(id(slot, 0)..=id(slot, generation));
            workers.all(|(_, account)| account.released)
        };
        match job.request {
            Request::Reload { .. } => {
                let mut slots = job.before.range(..job.slots_before);
                assert!(slots.all(|(slot, generation)| gone(*slot, *generation)));
            }
            Request::Restart(slot) => assert!(gone(slot, job.before[&slot])),
            Request::Scale(_) | Request::ScaleBy(_) => {
                let mut removed = self.ledger.wanted..job.slots_before;
                assert!(removed.all(|slot| gone(slot, u64::MAX)));
                for added in job.slots_before..self.ledger.wanted {
                    let current = self.ledger.slots[&added].current.expect("a worker");
                    assert!(self.is_ready(current), "{current}");
                }
            }
            Request::Drain(_) | Request::Undrain(_) | Request::Weigh { .. } => {
                panic!("no operation")
            }
        }
    }

    fn check_quit(&mut self, now: Duration, outcome: &Outcome) {
        let mut workers = self.ledger.workers.values();
        assert!(workers.all(|account| account.released), "{self:?}");
        if let Some((at, _)) = &self.stop {
            let bound = *at + self.ledger.settings.stop_timeout + Duration::from_secs(6);
            assert!(now <= bound, "the stop of {at:?} took until {now:?}");
        }
        assert!(match (&self.stop, outcome) {
            (_, Outcome::GaveUp { .. }) => self.gives_up,
            (Some((_, Event::Stop(_))), Outcome::Stopped) => !self.gives_up,
            (Some((_, Event::Fatal { .. })), Outcome::Fatal { .. }) => !self.gives_up,
            _ => false,
        });
        if let Outcome::GaveUp {
            worker, failures, ..
        } = outcome
        {
            assert!(!self.ledger.ever_healthy, "gives up though it works");
            assert!(*failures >= self.ledger.settings.restart.give_up_after);
            let slot = &self.ledger.slots[&worker.slot];
            assert_eq!(*failures, slot.failures.in_a_row());
        }
        self.outcome = Some(outcome.clone());
    }

    /// What must hold between any two steps.
    fn check_state(&self, now: Duration, fleet: &mut Fleet) {
        assert_eq!(self.steered, self.ledger.steer_set(), "the steer set");
        assert_eq!(fleet.steered(), self.steered);
        assert!(!self.ledger.reweighed, "weights that nobody was told of");
        assert_eq!(fleet.weights(), self.weights());
        assert_eq!(fleet.workers_wanted(), self.ledger.wanted);
        assert_eq!(fleet.operation().is_some(), self.ledger.job.is_some());
        let alive = self.ledger.workers.iter();
        for (worker, account) in alive.filter(|(_, account)| !account.released) {
            self.check_worker(now, *worker, account);
        }
        self.check_views(fleet);
        assert_eq!(fleet.step(now, Event::Tick), [], "a tick too early");
        let deadline = fleet.next_deadline();
        assert!(
            deadline.is_none_or(|deadline| deadline > now),
            "{deadline:?} has passed"
        );
        assert!(
            deadline.is_none() || self.outcome.is_none(),
            "a deadline after the end"
        );
    }

    /// Nothing that is due is left undone.
    fn check_worker(&self, now: Duration, worker: WorkerId, account: &Account) {
        let settings = &self.ledger.settings;
        assert!(!(account.exited && account.emptied), "not released");
        if account.drains() {
            assert!(!account.drained, "{worker} is drained");
            assert!(account.drain_by.is_none_or(|by| now < by), "{account:?}");
        }
        if let Some(at) = account.signalled_at {
            let killed = account.killed_at.is_some();
            assert!(killed || now < at + settings.stop_timeout, "{account:?}");
        }
        if account.must_be_ready && self.ledger.has_place(worker) && !self.is_ready(worker) {
            let in_time = |since| now < since + settings.ready_timeout;
            assert!(account.runs_since.is_none_or(in_time), "{account:?}");
        }
    }

    fn check_views(&self, fleet: &Fleet) {
        let views = fleet.views();
        let shown: BTreeSet<WorkerId> = views.iter().map(|view| view.worker).collect();
        assert_eq!(shown.len(), views.len(), "shown twice: {views:?}");
        for view in views.iter().filter(|view| view.state != State::Backoff) {
            let account = &self.ledger.workers[&view.worker];
            assert!(!account.released, "{view:?}");
            assert_eq!(
                !view.leaving,
                self.ledger.has_place(view.worker),
                "{view:?}"
            );
            assert_eq!(
                view.state,
                self.state_of(view.worker, account),
                "{account:?}"
            );
        }
        // No slot is forgotten: each has a worker, or waits for one.
        if self.is_running() {
            for number in 0..self.ledger.wanted {
                let filled = |view: &View| view.worker.slot == number && !view.leaving;
                assert!(views.iter().any(filled), "slot {number}: {views:?}");
            }
        }
    }

    fn state_of(&self, worker: WorkerId, account: &Account) -> State {
        if account.drains() {
            State::Draining
        } else if !self.ledger.has_place(worker) {
            State::Stopping
        } else if account.ready_since.is_none() {
            if account.listens {
                State::Listening
            } else {
                State::Starting
            }
        } else if self.is_parked(worker.slot) {
            if account.drained {
                State::Drained
            } else {
                State::Draining
            }
        } else if account.unhealthy {
            State::Unhealthy
        } else if account.stalled {
            State::Stalled
        } else {
            State::Ready
        }
    }
}
