//! Watches a fleet from outside: keeps its own account of what was told and asked for, and panics
//! where a rule is broken.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What is known of one worker.
#[derive(Debug, Default)]
struct Account {
    /// Since the first sign of life.
    runs_since: Option<Duration>,
    listens: bool,
    healthy_since: Option<Duration>,
    exited: bool,
    exit_told: bool,
    emptied: bool,
    spawn_failed: bool,
    failed_at: Option<Duration>,
    signals: u32,
    killed_at: Option<Duration>,
    given_up: bool,
    released: bool,
}

/// What is known of one slot.
#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    failures: u32,
    /// When the current failure's restart may come; the end where nothing may hold it up.
    restart: Option<(Duration, Option<Duration>)>,
}

#[derive(Debug)]
pub(super) struct Referee {
    settings: Settings,
    lateness: Duration,
    workers: BTreeMap<WorkerId, Account>,
    slots: BTreeMap<u32, Slot>,
    steered: Vec<WorkerId>,
    ever_healthy: bool,
    /// When and how the first stop was asked for.
    stop: Option<(Duration, Event)>,
    /// When a stop at once was first asked for.
    stop_now: Option<Duration>,
    /// The fleet stops of its own accord.
    gives_up: bool,
    outcome: Option<Outcome>,
}

impl Referee {
    pub(super) fn new(settings: Settings, lateness: Duration) -> Self {
        Self {
            settings,
            lateness,
            workers: BTreeMap::new(),
            slots: BTreeMap::new(),
            steered: Vec::new(),
            ever_healthy: false,
            stop: None,
            stop_now: None,
            gives_up: false,
            outcome: None,
        }
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
        self.note(now, event);
        self.gives_up |= self.stop.is_none() && fleet.is_stopping();
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
    }

    fn note(&mut self, now: Duration, event: &Event) {
        let stopping = self.stop.is_some();
        match event {
            Event::Spawned { worker } => self.edit(worker, |account| {
                account.runs_since.get_or_insert(now);
            }),
            Event::Listening { worker } => self.edit(worker, |account| {
                account.runs_since.get_or_insert(now);
                if !stopping && account.failed_at.is_none() {
                    account.listens = true;
                    account.healthy_since.get_or_insert(now);
                }
            }),
            Event::SpawnFailed { worker, .. } => {
                self.note_failure(now, worker);
                self.edit(worker, |account| account.spawn_failed = true);
            }
            Event::Exited { worker, .. } => {
                self.note_failure(now, worker);
                self.edit(worker, |account| account.exited = true);
            }
            Event::Emptied { worker } => self.edit(worker, |account| account.emptied = true),
            Event::Stop(mode) => {
                self.stop.get_or_insert((now, event.clone()));
                if *mode == StopMode::Now {
                    self.stop_now.get_or_insert(now);
                }
            }
            Event::Fatal { .. } => {
                self.stop.get_or_insert((now, event.clone()));
            }
            Event::Start | Event::Tick => {}
        }
        self.ever_healthy |= self
            .workers
            .values()
            .any(|account| account.healthy_since.is_some());
    }

    fn edit(&mut self, worker: &WorkerId, edit: impl FnOnce(&mut Account)) {
        if let Some(account) = self
            .workers
            .get_mut(worker)
            .filter(|account| !account.released)
        {
            edit(account);
        }
    }

    fn note_failure(&mut self, now: Duration, worker: &WorkerId) {
        let Self {
            workers,
            slots,
            settings,
            ..
        } = self;
        let Some(account) = workers.get_mut(worker) else {
            return;
        };
        if self.stop.is_some() || account.failed_at.is_some() {
            return;
        }
        account.failed_at = Some(now);
        let slot = slots
            .get_mut(&worker.slot)
            .expect("the slot of a spawned worker");
        let healthy = account.healthy_since.map(|since| now - since);
        let reset = healthy.is_some_and(|healthy| healthy >= settings.restart.reset_after);
        slot.failures = if reset { 1 } else { slot.failures + 1 };
        let delay = settings.restart.delay(slot.failures);
        let latest = now + delay * 6 / 5 + self.lateness;
        slot.restart = Some((now + delay * 4 / 5, self.ever_healthy.then_some(latest)));
    }

    fn check(&mut self, now: Duration, effect: &Effect) {
        match effect {
            Effect::Spawn(worker) => self.check_spawn(now, *worker),
            Effect::Steer(workers) => {
                assert_ne!(*workers, self.steered, "no change");
                self.steered.clone_from(workers);
            }
            Effect::Signal(worker) => {
                assert!(!self.steered.contains(worker), "signals a steered worker");
                let account = &self.workers[worker];
                assert!(
                    self.stop.is_some() && account.runs_since.is_some() && !account.released,
                    "{account:?}"
                );
                assert!(
                    account.killed_at.is_none() && account.signals == 0,
                    "{account:?}"
                );
                self.edit(worker, |account| account.signals += 1);
            }
            Effect::Kill(worker) => {
                assert!(!self.steered.contains(worker), "kills a steered worker");
                let account = &self.workers[worker];
                assert!(
                    account.runs_since.is_some() && !account.released,
                    "{account:?}"
                );
                assert!(account.killed_at.is_none(), "{account:?}");
                let due = self.kill_due().is_some_and(|due| due <= now);
                assert!(account.failed_at.is_some() || due, "{account:?}");
                self.edit(worker, |account| account.killed_at = Some(now));
            }
            Effect::Release(worker) => self.check_release(*worker),
            Effect::Notice(Notice::NotListening { worker, .. }) => {
                let account = &self.workers[worker];
                let due = |since| now >= since + self.settings.listen_warning;
                assert!(account.runs_since.is_some_and(due), "{account:?}");
                assert!(
                    !account.listens && account.healthy_since.is_none(),
                    "{account:?}"
                );
                self.edit(worker, |account| account.healthy_since = Some(now));
                self.ever_healthy = true;
            }
            Effect::Notice(Notice::Unkillable { worker }) => {
                let account = &self.workers[worker];
                // A kill that had to wait for the spawn counts from when it was due.
                let killed_at = account.killed_at.into_iter().chain(self.kill_due()).min();
                let patience = Duration::from_secs(5);
                assert!(
                    killed_at.is_some_and(|at| now >= at + patience),
                    "{account:?}"
                );
                self.edit(worker, |account| account.given_up = true);
            }
            Effect::Notice(Notice::Exited { worker, .. }) => {
                assert!(!self.workers[worker].exit_told, "told twice");
                self.edit(worker, |account| account.exit_told = true);
            }
            Effect::Notice(_) => {}
            Effect::Quit(outcome) => self.check_quit(now, outcome),
        }
    }

    fn check_spawn(&mut self, now: Duration, worker: WorkerId) {
        assert!(self.stop.is_none() && !self.gives_up, "spawns after a stop");
        let slot = self.slots.entry(worker.slot).or_default();
        slot.generation += 1;
        assert_eq!(worker.generation, slot.generation);
        if worker.generation > 1 {
            let (earliest, latest) = slot.restart.take().expect("a failure before the restart");
            assert!(earliest <= now, "restarts before {earliest:?}");
            assert!(
                latest.is_none_or(|latest| now <= latest),
                "restarts after {latest:?}"
            );
        }
        let before = self.workers.insert(worker, Account::default());
        assert!(before.is_none(), "spawned twice");
    }

    /// From when on a worker that didn't fail may be killed.
    fn kill_due(&self) -> Option<Duration> {
        let timeout = self
            .stop
            .as_ref()
            .map(|(at, _)| *at + self.settings.stop_timeout);
        [self.stop_now, timeout].into_iter().flatten().min()
    }

    fn check_release(&mut self, worker: WorkerId) {
        let account = &self.workers[&worker];
        assert!(!account.released, "released twice");
        let gone = account.spawn_failed || account.exited && account.emptied;
        assert!(gone || account.given_up, "{account:?}");
        if account.runs_since.is_some() && account.failed_at.is_none() && self.stop_now.is_none() {
            assert_eq!(account.signals, 1, "stopped without its signal");
        }
        self.edit(&worker, |account| account.released = true);
    }

    fn check_quit(&mut self, now: Duration, outcome: &Outcome) {
        assert!(
            self.workers.values().all(|account| account.released),
            "{self:?}"
        );
        if let Some((at, _)) = &self.stop {
            let bound = *at + self.settings.stop_timeout + Duration::from_secs(6);
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
            assert!(!self.ever_healthy, "gives up though the command works");
            assert_eq!(*failures, self.settings.restart.give_up_after);
            assert_eq!(*failures, self.slots[&worker.slot].failures);
        }
        self.outcome = Some(outcome.clone());
    }

    /// What must hold between any two steps.
    fn check_state(&self, now: Duration, fleet: &mut Fleet) {
        let ready = |account: &Account| account.listens && account.failed_at.is_none();
        let expected: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, account)| self.stop.is_none() && ready(account))
            .map(|(worker, _)| *worker)
            .collect();
        assert_eq!(self.steered, expected, "the steer set");

        let lingers = |account: &Account| !account.released && account.exited && account.emptied;
        assert!(
            !self.workers.values().any(lingers),
            "not released: {self:?}"
        );

        let views = fleet.views();
        let shown: BTreeSet<WorkerId> = views.iter().map(|view| view.worker).collect();
        assert_eq!(shown.len(), views.len(), "shown twice: {views:?}");
        let shown_ready = views.iter().filter(|view| view.state == State::Ready);
        assert!(
            shown_ready.map(|view| &view.worker).eq(&self.steered),
            "{views:?}"
        );

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
}
