//! What people ask for: whether it is possible, how far it has come, and how it ended.

use std::{ops::Range, time::Duration};

use super::{
    Course, Fleet,
    event::{Cause, Effect, Reason},
    placement::WORKERS_MAX,
    request::{Operation, Refusal, Request, Ticket, Unmet, Verb},
    slot::{Slot, Stage},
    worker::Worker,
};
use crate::worker::WorkerId;

/// The request that is being carried out.
#[derive(Clone, Debug)]
pub(super) struct Job {
    ticket: Ticket,
    work: Work,
    /// The slots that it is about.
    of: u32,
    /// What it failed of.
    failure: Option<(WorkerId, Cause)>,
}

#[derive(Clone, Debug)]
enum Work {
    /// Replaces workers.
    Replace {
        reason: Reason,
        drain_timeout: Option<Duration>,
        /// The slots whose turn is yet to come.
        pending: Vec<u32>,
        /// Those whose turn it is.
        active: Vec<u32>,
    },
    /// Waits until these slots are ready.
    Grow {
        slots: Range<u32>,
        deadline: Duration,
    },
    /// Waits until these slots are gone.
    Shrink { slots: Range<u32> },
}

/// A drained slot whose worker finishes its connections.
#[derive(Clone, Debug)]
pub(super) struct Drain {
    ticket: Ticket,
    worker: WorkerId,
    /// The drain timeout that it began with.
    timeout: Option<Duration>,
    /// When the waiting ends; `None`: never.
    pub(super) deadline: Option<Duration>,
}

impl Job {
    /// When it has failed if it isn't done.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.work {
            Work::Grow { deadline, .. } => Some(deadline),
            Work::Replace { .. } | Work::Shrink { .. } => None,
        }
    }
}

impl Fleet {
    /// What is being carried out, if something is.
    pub fn operation(&self) -> Option<Operation> {
        let job = self.job.as_ref()?;
        let (verb, open) = match &job.work {
            Work::Replace {
                reason,
                pending,
                active,
                ..
            } => {
                let verb = if *reason == Reason::Restart {
                    Verb::Restart
                } else {
                    Verb::Reload
                };
                (verb, pending.len() + active.len())
            }
            Work::Grow { slots, .. } => {
                let waits = |slot: &&Slot| !slot.current().is_some_and(Worker::is_ready);
                (Verb::Scale, self.slots_in(slots).filter(waits).count())
            }
            Work::Shrink { slots } => {
                let lives = |slot: &&Slot| slot.workers().next().is_some();
                (Verb::Scale, self.slots_in(slots).filter(lives).count())
            }
        };
        Some(Operation {
            verb,
            done: job.of.saturating_sub(open as u32),
            of: job.of,
        })
    }

    /// Takes a request, and answers it where that is possible at once.
    pub(super) fn request(&mut self, now: Duration, ticket: Ticket, request: Request) {
        let accepted = match request {
            _ if !matches!(self.course, Course::Running) => Err(Refusal::NotRunning),
            Request::Reload { drain_timeout } => {
                let drain_timeout = drain_timeout.unwrap_or(self.settings.drain_timeout);
                let pending = (0..self.wanted).collect();
                self.begin(ticket, Reason::Reload, drain_timeout, pending)
            }
            Request::Restart(slot) => self.known(slot).and_then(|slot| {
                let drain_timeout = self.settings.drain_timeout;
                self.begin(ticket, Reason::Restart, drain_timeout, vec![slot])
            }),
            Request::Scale(workers) => self.scale(now, ticket, i64::from(workers)),
            Request::ScaleBy(more) => {
                self.scale(now, ticket, i64::from(self.wanted) + i64::from(more))
            }
            Request::Drain(slot) => self
                .known(slot)
                .and_then(|slot| self.drain(now, ticket, slot)),
            Request::Undrain(slot) => self.known(slot).map(|slot| {
                self.slot(slot).set_parked(false);
                // Whoever waits for the opposite hears of it first.
                self.settle_drains(now);
                self.answer(ticket, Ok(()));
            }),
            Request::Weigh { slot, weight } => self
                .known(slot)
                .and_then(|slot| self.weigh(ticket, slot, weight)),
        };
        if let Err(refusal) = accepted {
            self.answer(ticket, Err(Unmet::Refused(refusal)));
        }
    }

    fn known(&self, slot: u32) -> Result<u32, Refusal> {
        let slots = self.wanted;
        let known = (slot < slots).then_some(slot);
        known.ok_or(Refusal::NoSuchSlot { slot, slots })
    }

    fn not_busy(&self) -> Result<(), Refusal> {
        self.operation()
            .map_or(Ok(()), |operation| Err(Refusal::Busy(operation)))
    }

    /// Whether connections have somewhere to go without the workers of these slots.
    fn spare(&self, slot: impl Fn(u32) -> bool) -> bool {
        self.steered.iter().any(|worker| !slot(worker.slot))
    }

    fn begin(
        &mut self,
        ticket: Ticket,
        reason: Reason,
        drain_timeout: Option<Duration>,
        pending: Vec<u32>,
    ) -> Result<(), Refusal> {
        self.not_busy()?;
        self.job = Some(Job {
            ticket,
            of: pending.len() as u32,
            work: Work::Replace {
                reason,
                drain_timeout,
                pending,
                active: Vec::new(),
            },
            failure: None,
        });
        Ok(())
    }

    fn scale(&mut self, now: Duration, ticket: Ticket, workers: i64) -> Result<(), Refusal> {
        self.not_busy()?;
        if workers < 1 {
            return Err(Refusal::NoSlots);
        }
        let known = u32::try_from(workers).ok();
        let workers = known
            .filter(|workers| *workers <= WORKERS_MAX)
            .ok_or(Refusal::TooManySlots)?;
        let before = self.wanted;
        let work = if workers < before {
            // Where they have nowhere to go as it is, that is no reason against it.
            if !self.steered.is_empty() && !self.spare(|slot| slot >= workers) {
                return Err(Refusal::LastWorker);
            }
            self.wanted = workers;
            self.remove_slots(now, workers);
            Work::Shrink {
                slots: workers..before,
            }
        } else {
            self.wanted = workers;
            let must_be_ready = self.settings.ready_required;
            for number in before..workers {
                let slot = self.slot(number);
                slot.set_parked(false);
                let worker = slot.spawn(now, must_be_ready);
                self.effects.push(Effect::Spawn(worker));
            }
            let deadline = now.saturating_add(self.settings.ready_timeout);
            Work::Grow {
                slots: before..workers,
                deadline,
            }
        };
        self.job = Some(Job {
            ticket,
            work,
            of: workers.abs_diff(before),
            failure: None,
        });
        Ok(())
    }

    fn remove_slots(&mut self, now: Duration, from: u32) {
        for (_, slot) in self.slots.range_mut(from..) {
            slot.retire();
            slot.set_weight(1);
        }
        for worker in self.ids(|worker| worker.id().slot >= from) {
            self.with_slot(worker, |slot, settings| slot.leave(now, worker, settings));
        }
    }

    fn drain(&mut self, now: Duration, ticket: Ticket, number: u32) -> Result<(), Refusal> {
        let parked = self.slot(number).is_parked();
        if !parked && !self.spare(|slot| slot == number) {
            return Err(Refusal::LastWorker);
        }
        let slot = self.slot(number);
        if !parked {
            slot.set_parked(true);
        }
        let ready = slot.current().filter(|worker| worker.is_ready());
        let Some(worker) = ready.map(Worker::id) else {
            // Nothing was ever sent to it.
            self.answer(ticket, Ok(()));
            return Ok(());
        };
        let timeout = self.settings.drain_timeout;
        self.drains.push(Drain {
            ticket,
            worker,
            timeout,
            deadline: timeout.map(|timeout| now.saturating_add(timeout)),
        });
        Ok(())
    }

    fn weigh(&mut self, ticket: Ticket, number: u32, weight: u16) -> Result<(), Refusal> {
        // Where nobody takes connections as it is, that is no reason against it.
        if weight == 0 && !self.steered.is_empty() && !self.spare(|slot| slot == number) {
            return Err(Refusal::LastWorker);
        }
        if self.slot(number).set_weight(weight) {
            self.weights_told = false;
        }
        self.answer(ticket, Ok(()));
        Ok(())
    }

    /// The next slot whose worker is to be replaced because somebody asked for it.
    pub(super) fn next_in_job(&self) -> Option<(u32, Reason)> {
        let Work::Replace {
            reason, pending, ..
        } = &self.job.as_ref()?.work
        else {
            return None;
        };
        let free = |number: &&u32| {
            let slot = self.slots.get(number);
            slot.is_some_and(|slot| slot.replacement().is_none())
        };
        pending.iter().find(free).map(|slot| (*slot, *reason))
    }

    /// Takes note of a replacement that begins. Returns its drain timeout.
    pub(super) fn begin_in_job(&mut self, slot: u32, why: Reason) -> Option<Duration> {
        if let Some(Job {
            work:
                Work::Replace {
                    reason,
                    drain_timeout,
                    pending,
                    active,
                },
            ..
        }) = &mut self.job
            && *reason == why
        {
            pending.retain(|pending| *pending != slot);
            active.push(slot);
            return *drain_timeout;
        }
        self.settings.drain_timeout
    }

    /// Takes note of a worker's failure, if it is the failure of what is being carried out.
    pub(super) fn fail_job(&mut self, worker: WorkerId, cause: &Cause) {
        let slot = self.slots.get(&worker.slot);
        let replacement = slot.and_then(Slot::replacement);
        let starting = replacement.is_some_and(|replacement| {
            replacement.new == worker && replacement.stage == Stage::Starting
        });
        let Some(job) = &mut self.job else {
            return;
        };
        let concerned = match &job.work {
            Work::Replace { active, .. } => starting && active.contains(&worker.slot),
            Work::Grow { slots, .. } => slots.contains(&worker.slot),
            Work::Shrink { .. } => false,
        };
        if concerned {
            job.failure.get_or_insert((worker, cause.clone()));
        }
    }

    /// Moves on what goes on over several steps, and answers what has come to an end.
    pub(super) fn settle(&mut self, now: Duration) {
        self.finish_replacements();
        self.settle_job(now);
        self.start_replacements(now);
        self.settle_drains(now);
    }

    fn finish_replacements(&mut self) {
        for (number, slot) in &mut self.slots {
            // One that failed ends the job: see `settle_job`.
            let over = slot.finish_replacement();
            if over.is_some_and(|replacement| replacement.stage == Stage::Placed)
                && let Some(Job {
                    work: Work::Replace { active, .. },
                    ..
                }) = &mut self.job
            {
                active.retain(|active| active != number);
            }
        }
    }

    fn settle_job(&mut self, now: Duration) {
        let Some(operation) = self.operation() else {
            return;
        };
        self.expire_growth(now, operation);
        let Some(job) = &mut self.job else {
            return;
        };
        let answer = match job.failure.take() {
            Some((worker, cause)) => Err(Unmet::Failed {
                operation,
                worker,
                cause,
            }),
            None if operation.done == operation.of => Ok(()),
            None => return,
        };
        if let Some(Job { ticket, work, .. }) = self.job.take() {
            if let Work::Replace { active, .. } = work {
                self.cancel(now, &active);
            }
            self.answer(ticket, answer);
        }
    }

    /// New slots that wait for a worker which has no duty to become ready aren't waited for
    /// longer than for one that has.
    fn expire_growth(&mut self, now: Duration, operation: Operation) {
        let waits = |slot: &&Slot| !slot.current().is_some_and(Worker::is_ready);
        if let Some(Job {
            work: Work::Grow { slots, deadline },
            failure,
            ..
        }) = &mut self.job
            && *deadline <= now
            && operation.done < operation.of
            && let Some(slot) = self
                .slots
                .range(slots.clone())
                .map(|(_, slot)| slot)
                .find(waits)
        {
            let cause = Cause::NotReady(self.settings.ready_timeout);
            failure.get_or_insert((slot.latest(), cause));
        }
    }

    /// Gives up the replacements in these slots that aren't ready.
    fn cancel(&mut self, now: Duration, slots: &[u32]) {
        for number in slots {
            let slot = self.slots.get_mut(number);
            if let Some((worker, acts)) = slot.and_then(|slot| slot.cancel(now, &self.settings)) {
                self.perform(worker, acts);
            }
        }
        // Where the stop timeout is zero, they are overdue at once.
        self.expire_workers(now);
    }

    fn settle_drains(&mut self, now: Duration) {
        let mut drains = std::mem::take(&mut self.drains);
        drains.retain(|drain| match self.outcome_of(now, drain) {
            Some(answer) => {
                self.answer(drain.ticket, answer);
                false
            }
            None => true,
        });
        self.drains = drains;
    }

    fn outcome_of(&self, now: Duration, drain: &Drain) -> Option<Result<(), Unmet>> {
        let worker = drain.worker;
        let slot = self.slots.get(&worker.slot);
        let found = slot.and_then(|slot| slot.worker(worker));
        if found.is_some_and(Worker::is_drained) {
            return Some(Ok(()));
        }
        if !slot.is_some_and(Slot::is_parked) {
            let slot = worker.slot;
            return Some(Err(Unmet::Undrained { slot }));
        }
        let finishes = |worker: &Worker| worker.is_ready() || worker.is_draining();
        if !found.is_some_and(finishes) {
            return Some(Err(Unmet::Ended { worker }));
        }
        let after = drain.timeout?;
        let overdue = drain.deadline.is_some_and(|deadline| deadline <= now);
        overdue.then_some(Err(Unmet::StillOpen { worker, after }))
    }

    /// Answers whatever is open, because the fleet stops.
    pub(super) fn answer_all(&mut self) {
        let drains = std::mem::take(&mut self.drains);
        let tickets = self.job.take().map(|job| job.ticket).into_iter();
        for ticket in tickets.chain(drains.into_iter().map(|drain| drain.ticket)) {
            self.answer(ticket, Err(Unmet::Stopped));
        }
    }

    fn answer(&mut self, ticket: Ticket, answer: Result<(), Unmet>) {
        self.effects.push(Effect::Answer { ticket, answer });
    }

    fn slots_in(&self, slots: &Range<u32>) -> impl Iterator<Item = &Slot> {
        self.slots.range(slots.clone()).map(|(_, slot)| slot)
    }
}
