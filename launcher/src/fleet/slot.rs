//! One slot: its current worker or its wait for the next, those that are leaving, its failures.

use std::time::Duration;

use super::{
    Settings,
    event::{Cause, Outcome, View},
    restart::Jitter,
    table::{Act, Input},
    worker::{State, Worker},
};
use crate::worker::WorkerId;

/// The wait between a failure and the restart.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    since: Duration,
    until: Duration,
}

/// A place that one worker at a time fills.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The slot's latest worker; before the first one, generation 0.
    latest: WorkerId,
    /// The worker that fills the slot. Never together with `backoff`.
    current: Option<Worker>,
    backoff: Option<Backoff>,
    /// Workers that were stopped, or that crashed and whose processes aren't all gone.
    leaving: Vec<Worker>,
    /// Failures in a row.
    failures: u32,
    last_failure: Option<Cause>,
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
            backoff: None,
            leaving: Vec::new(),
            failures: 0,
            last_failure: None,
            restarts: 0,
        }
    }

    /// Fills the slot with a worker of the next generation.
    pub(super) fn spawn(&mut self, now: Duration) -> WorkerId {
        if self.backoff.take().is_some() {
            self.restarts += 1;
        }
        self.latest.generation += 1;
        self.current = Some(Worker::new(self.latest, now));
        self.latest
    }

    /// Passes an input to a worker of this slot, and files the worker where it then belongs.
    pub(super) fn feed(
        &mut self,
        now: Duration,
        id: WorkerId,
        input: Input,
        settings: &Settings,
    ) -> &'static [Act] {
        let Some(worker) = self.worker_mut(id) else {
            return &[];
        };
        let acts = worker.feed(now, input, settings);
        if let Some(worker) = self.current.take_if(|worker| worker.is_leaving()) {
            self.leaving.push(worker);
        }
        self.leaving.retain(|worker| !worker.is_gone());
        acts
    }

    /// Counts a failure of the slot's worker, which was healthy for `healthy_for`, and sets the
    /// restart. Returns the delay until then.
    pub(super) fn back_off(
        &mut self,
        now: Duration,
        cause: Cause,
        healthy_for: Option<Duration>,
        settings: &Settings,
        jitter: &mut Jitter,
    ) -> Duration {
        if healthy_for.is_some_and(|healthy| healthy >= settings.restart.reset_after) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(cause);
        let delay = jitter.spread(settings.restart.delay(self.failures));
        self.backoff = Some(Backoff {
            since: now,
            until: now.saturating_add(delay),
        });
        delay
    }

    /// Drops the restart that is due some time.
    pub(super) fn forget_restart(&mut self) {
        self.backoff = None;
    }

    /// When the slot is to be filled again.
    pub(super) fn restart_at(&self) -> Option<Duration> {
        self.backoff.map(|backoff| backoff.until)
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The outcome where it is this slot that the fleet gives up for. `None` if it never failed.
    pub(super) fn gave_up(&self) -> Option<Outcome> {
        Some(Outcome::GaveUp {
            worker: self.latest,
            failures: self.failures,
            last: self.last_failure.clone()?,
        })
    }

    pub(super) fn current(&self) -> Option<&Worker> {
        self.current.as_ref()
    }

    /// The worker that takes connections.
    pub(super) fn ready(&self) -> Option<WorkerId> {
        self.current()
            .filter(|worker| worker.state() == State::Ready)
            .map(Worker::id)
    }

    /// All workers, the leaving ones first.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.leaving.iter().chain(&self.current)
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.leaving
            .iter_mut()
            .chain(&mut self.current)
            .find(|worker| worker.id() == id)
    }

    /// What to show of this slot: each worker, and the wait in place of the worker that failed.
    pub(super) fn views(&self) -> impl Iterator<Item = View> {
        let wait = self.backoff.map(|backoff| View {
            worker: self.latest,
            state: State::Backoff,
            since: backoff.since,
            restarts: self.restarts,
            restart_at: Some(backoff.until),
        });
        self.workers()
            .filter(move |worker| wait.is_none_or(|wait| wait.worker != worker.id()))
            .map(|worker| View {
                worker: worker.id(),
                state: worker.state(),
                since: worker.since(),
                restarts: self.restarts,
                restart_at: None,
            })
            .chain(wait)
    }
}
