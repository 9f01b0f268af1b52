//! One slot: the worker that fills it or the wait for the next, the one that is to replace it,
//! those that are leaving, and its failures.

use std::time::Duration;

use super::{
    Settings,
    event::{Cause, Outcome, Reason, View},
    restart::{Failures, Jitter},
    table::{Act, Input},
    worker::{State, Worker},
};
use crate::worker::WorkerId;

/// The jitter of the delays after failures, in percent.
const BACKOFF_JITTER: u16 = 20;

/// The wait between a failure and the restart.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    /// The worker that failed.
    worker: WorkerId,
    since: Duration,
    until: Duration,
}

/// What a worker is to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It fills it.
    Current,
    /// It is to replace the one that does.
    Next,
    /// It has left it, and isn't gone.
    Leaving,
}

/// A worker that is started to take the place of the one that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replacement {
    pub(super) reason: Reason,
    pub(super) new: WorkerId,
    /// For how long the old worker may finish its connections; `None`: for ever.
    pub(super) drain_timeout: Option<Duration>,
    pub(super) stage: Stage,
}

/// How far a replacement has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The new worker isn't ready.
    Starting,
    /// It was ready and has its place. What remains is to see the old ones off.
    Placed,
    /// It won't be ready. What remains is to see it off.
    Failed,
}

/// A place that one worker at a time fills.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The slot's latest worker; before the first one, generation 0.
    latest: WorkerId,
    /// The worker that fills the slot. Never together with `backoff`.
    current: Option<Worker>,
    /// Its replacement, until that is ready. Only together with `current`.
    next: Option<Worker>,
    backoff: Option<Backoff>,
    /// The replacement under way. It outlives `next`, until its old workers are gone.
    replacement: Option<Replacement>,
    /// Before it, the worker isn't replaced for its health or its limits.
    retry_at: Option<Duration>,
    /// Workers that were told to leave, or that crashed and whose processes aren't all gone.
    leaving: Vec<Worker>,
    /// Its workers take no connections, because a person wants it so.
    parked: bool,
    /// Its share of the connections, relative to the others'; 0: it gets no new ones.
    weight: u16,
    failures: Failures,
    last_failure: Option<(WorkerId, Cause)>,
    restarts: u64,
}

impl Slot {
    pub(super) fn new(slot: u32) -> Self {
        Self {
            latest: WorkerId {
                slot,
                generation: 0,
            },
            current: None,
            next: None,
            backoff: None,
            replacement: None,
            retry_at: None,
            leaving: Vec::new(),
            parked: false,
            weight: 1,
            failures: Failures::default(),
            last_failure: None,
            restarts: 0,
        }
    }

    /// Takes note of what an earlier launcher had in this slot.
    pub(super) fn inherit(&mut self, generation: u64, restarts: u64, parked: bool) {
        self.latest.generation = self.latest.generation.max(generation);
        self.restarts = self.restarts.max(restarts);
        self.parked |= parked;
    }

    /// Takes a worker over into the slot, as its current one if it has none and the worker is not on
    /// its way out. An identity that is known already isn't taken.
    pub(super) fn adopt(&mut self, worker: Worker, leaving: bool) {
        if self.worker(worker.id()).is_some() {
            return;
        }
        if self.current.is_none() && !leaving {
            self.current = Some(worker);
        } else {
            self.leaving.push(worker);
        }
    }

    /// Fills the empty slot with a worker of the next generation.
    pub(super) fn spawn(&mut self, now: Duration, must_be_ready: bool) -> WorkerId {
        if self.backoff.take().is_some() {
            self.restarts += 1;
        }
        self.latest.generation += 1;
        self.current = Some(Worker::new(self.latest, now, must_be_ready));
        self.latest
    }

    /// Starts to replace the current worker; where there is none, simply to fill the slot. Returns
    /// the new worker.
    pub(super) fn replace(
        &mut self,
        now: Duration,
        reason: Reason,
        drain_timeout: Option<Duration>,
    ) -> WorkerId {
        let new = if self.current.is_some() {
            self.latest.generation += 1;
            self.next = Some(Worker::new(self.latest, now, true));
            self.latest
        } else {
            self.spawn(now, true)
        };
        self.replacement = Some(Replacement {
            reason,
            new,
            drain_timeout,
            stage: Stage::Starting,
        });
        new
    }

    /// Gives a new worker that is ready its place. Returns the one that had it and what there is
    /// to do about it.
    pub(super) fn place(
        &mut self,
        now: Duration,
        settings: &Settings,
    ) -> Option<(WorkerId, &'static [Act])> {
        let ready = |worker: &Worker| worker.is_ready();
        let replacement = self.replacement.as_mut()?;
        let drain_timeout = replacement.drain_timeout;
        let placed = self.next.take_if(|next| ready(next));
        let current = placed.as_ref().or(self.current.as_ref());
        if current.is_some_and(|worker| ready(worker) && worker.id() == replacement.new) {
            replacement.stage = Stage::Placed;
        }
        let mut old = self.current.replace(placed?)?;
        let acts = old.leave(now, drain_timeout, settings);
        let id = old.id();
        self.file(old);
        Some((id, acts))
    }

    /// Lets the worker that was started as a replacement take the place of the current one, which
    /// has just failed. Whether there was one.
    pub(super) fn promote(&mut self) -> bool {
        self.current = self.next.take();
        self.restarts += u64::from(self.current.is_some());
        self.current.is_some()
    }

    /// Gives the replacement up. Returns the worker that is to leave, unless it is the only one
    /// that the slot has.
    pub(super) fn cancel(
        &mut self,
        now: Duration,
        settings: &Settings,
    ) -> Option<(WorkerId, &'static [Act])> {
        let Replacement { stage, .. } = self.replacement.as_mut()?;
        if *stage != Stage::Starting {
            return None;
        }
        *stage = Stage::Failed;
        let Some(mut next) = self.next.take() else {
            self.replacement = None;
            return None;
        };
        let acts = next.leave(now, None, settings);
        let id = next.id();
        self.file(next);
        Some((id, acts))
    }

    /// Notes that the worker that was to be the replacement has failed.
    pub(super) fn replacement_failed(&mut self, worker: WorkerId) {
        let this = |replacement: &&mut Replacement| replacement.new == worker;
        if let Some(replacement) = self.replacement.as_mut().filter(this)
            && replacement.stage == Stage::Starting
        {
            replacement.stage = Stage::Failed;
        }
    }

    /// Forgets a replacement that is over, and returns it.
    pub(super) fn finish_replacement(&mut self) -> Option<Replacement> {
        let Replacement { new, stage, .. } = self.replacement?;
        let holds = |worker: &Worker| match stage {
            Stage::Starting => true,
            Stage::Placed => worker.id().generation < new.generation,
            Stage::Failed => worker.id() == new,
        };
        if self.workers().any(holds) {
            return None;
        }
        self.replacement.take()
    }

    pub(super) fn replacement(&self) -> Option<&Replacement> {
        self.replacement.as_ref()
    }

    /// Whether the replacement under way is what people asked for.
    pub(super) fn replacement_is_asked_for(&self) -> bool {
        self.replacement
            .is_some_and(|replacement| match replacement.reason {
                Reason::Reload | Reason::Restart => true,
                Reason::Unhealthy | Reason::Recycle(_) => false,
            })
    }

    /// Passes an input to a worker of this slot, and files the worker where it then belongs.
    pub(super) fn feed(
        &mut self,
        now: Duration,
        id: WorkerId,
        input: Input,
        settings: &Settings,
    ) -> &'static [Act] {
        self.with(id, |worker| worker.feed(now, input, settings))
    }

    /// Makes a worker of this slot leave because everything stops.
    pub(super) fn stop(
        &mut self,
        now: Duration,
        id: WorkerId,
        settings: &Settings,
    ) -> &'static [Act] {
        self.with(id, |worker| worker.stop(now, settings))
    }

    /// Makes a worker of this slot leave.
    pub(super) fn leave(
        &mut self,
        now: Duration,
        id: WorkerId,
        settings: &Settings,
    ) -> &'static [Act] {
        let drain_timeout = settings.drain_timeout;
        self.with(id, |worker| worker.leave(now, drain_timeout, settings))
    }

    fn with(
        &mut self,
        id: WorkerId,
        act: impl FnOnce(&mut Worker) -> &'static [Act],
    ) -> &'static [Act] {
        let Some(worker) = self.worker_mut(id) else {
            return &[];
        };
        let acts = act(worker);
        for place in [&mut self.current, &mut self.next] {
            self.leaving
                .extend(place.take_if(|worker| worker.is_leaving()));
        }
        self.leaving.retain(|worker| !worker.is_gone());
        acts
    }

    fn file(&mut self, worker: Worker) {
        if !worker.is_gone() {
            self.leaving.push(worker);
        }
    }

    /// Counts a failure of a worker, which was healthy for `healthy_for`. Returns the delay until
    /// the next try.
    pub(super) fn count_failure(
        &mut self,
        now: Duration,
        failure: (WorkerId, Cause),
        healthy_for: Option<Duration>,
        settings: &Settings,
        jitter: &mut Jitter,
    ) -> Duration {
        self.last_failure = Some(failure);
        self.count_illness(now, healthy_for, settings, jitter)
    }

    /// Counts that a worker is unhealthy, which was healthy for `healthy_for`. Returns the delay
    /// until it may be replaced.
    pub(super) fn count_illness(
        &mut self,
        now: Duration,
        healthy_for: Option<Duration>,
        settings: &Settings,
        jitter: &mut Jitter,
    ) -> Duration {
        let delay = self.failures.count(now, healthy_for, &settings.restart);
        jitter.spread(delay, BACKOFF_JITTER)
    }

    /// Sets when the slot, whose worker has failed, is filled again.
    pub(super) fn back_off(&mut self, now: Duration, worker: WorkerId, delay: Duration) {
        self.backoff = Some(Backoff {
            worker,
            since: now,
            until: now.saturating_add(delay),
        });
    }

    /// Sets from when on the worker may be replaced for its health or its limits.
    pub(super) fn hold_replacement(&mut self, now: Duration, delay: Duration) {
        self.retry_at = Some(now.saturating_add(delay));
    }

    /// Forgets a wait for the replacement that has passed.
    pub(super) fn expire(&mut self, now: Duration) {
        self.retry_at.take_if(|at| *at <= now);
        if let Some(current) = &mut self.current {
            current.grow_old(now);
        }
    }

    /// Why the worker is to be replaced, apart from what people ask for, if it is.
    pub(super) fn wants_replacement(&self) -> Option<Reason> {
        let current = self.current.as_ref().filter(|worker| worker.is_ready())?;
        if self.replacement.is_some() || self.retry_at.is_some() {
            None
        } else if current.is_unhealthy() {
            Some(Reason::Unhealthy)
        } else {
            current.recycle().map(Reason::Recycle)
        }
    }

    /// Drops what is planned for the slot: it isn't to be filled again.
    pub(super) fn retire(&mut self) {
        self.backoff = None;
        self.retry_at = None;
        self.replacement = None;
        self.failures = Failures::default();
    }

    pub(super) fn set_parked(&mut self, parked: bool) {
        self.parked = parked;
        if let Some(current) = &mut self.current {
            current.set_drained(false);
        }
    }

    /// Whether that changes something.
    pub(super) fn set_weight(&mut self, weight: u16) -> bool {
        std::mem::replace(&mut self.weight, weight) != weight
    }

    pub(super) fn weight(&self) -> u16 {
        self.weight
    }

    pub(super) fn is_parked(&self) -> bool {
        self.parked
    }

    /// When the slot is to be filled again.
    pub(super) fn restart_at(&self) -> Option<Duration> {
        self.backoff.map(|backoff| backoff.until)
    }

    /// When the slot's wait for a replacement ends.
    pub(super) fn retry_at(&self) -> Option<Duration> {
        self.retry_at
    }

    /// Failures in a row without a healthy worker.
    pub(super) fn failures(&self) -> u32 {
        self.failures.in_a_row()
    }

    /// The outcome where it is this slot that the fleet gives up for. `None` if it never failed.
    pub(super) fn gave_up(&self) -> Option<Outcome> {
        let (worker, last) = self.last_failure.clone()?;
        Some(Outcome::GaveUp {
            worker,
            failures: self.failures(),
            last,
        })
    }

    pub(super) fn current(&self) -> Option<&Worker> {
        self.current.as_ref()
    }

    /// The current worker, or the one whose restart the slot waits for.
    pub(super) fn occupant(&self) -> Option<WorkerId> {
        let failed = self.backoff.map(|backoff| backoff.worker);
        self.current.as_ref().map(Worker::id).or(failed)
    }

    /// The latest worker, whatever has become of it.
    pub(super) fn latest(&self) -> WorkerId {
        self.latest
    }

    /// The worker that could take connections.
    pub(super) fn steerable(&self) -> Option<&Worker> {
        let current = self.current.as_ref();
        current.filter(|worker| worker.is_ready() && !self.parked && self.weight > 0)
    }

    /// All workers, the leaving ones first.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.leaving.iter().chain(&self.current).chain(&self.next)
    }

    fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.leaving
            .iter_mut()
            .chain(&mut self.current)
            .chain(&mut self.next)
    }

    pub(super) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers().find(|worker| worker.id() == id)
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers_mut().find(|worker| worker.id() == id)
    }

    /// What that worker is to the slot, if there is such a worker.
    pub(super) fn place_of(&self, id: WorkerId) -> Option<Place> {
        let this = |worker: &Worker| worker.id() == id;
        if self.current.as_ref().is_some_and(this) {
            Some(Place::Current)
        } else if self.next.as_ref().is_some_and(this) {
            Some(Place::Next)
        } else {
            self.leaving.iter().any(this).then_some(Place::Leaving)
        }
    }

    /// Notes what to show of the workers.
    pub(super) fn refresh(&mut self, now: Duration) {
        let parked = self.parked;
        for worker in self.workers_mut() {
            worker.refresh(now, parked);
        }
    }

    /// What to show of this slot: each worker, and the wait in place of the worker that failed.
    pub(super) fn views(&self) -> Vec<View> {
        let wait = self.backoff.map(|backoff| View {
            worker: backoff.worker,
            state: State::Backoff,
            since: backoff.since,
            restarts: self.restarts,
            restart_at: Some(backoff.until),
            drain_deadline: None,
            leaving: false,
        });
        let view = |worker: &Worker| {
            let (state, since) = worker.shown();
            View {
                worker: worker.id(),
                state,
                since,
                restarts: self.restarts,
                restart_at: None,
                drain_deadline: worker.drain_deadline(),
                leaving: worker.is_leaving(),
            }
        };
        let mut views: Vec<View> = self
            .workers()
            .filter(|worker| wait.is_none_or(|wait| wait.worker != worker.id()))
            .map(view)
            .chain(wait)
            .collect();
        views.sort_by_key(|view| view.worker);
        views
    }
}
