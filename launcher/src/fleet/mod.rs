//! The whole lifecycle of the workers, without I/O: [`Fleet::step`] takes what happened and the
//! time, and returns what to do. `worker` has the diagram of one worker's life, `table` its table,
//! `replace` how one worker takes another's place, `operation` what people ask for.
//!
//! What always holds:
//! - the steer set is that of the ready workers that have a place, a weight and nothing held against them;
//!   where no such worker is left, what is held against them doesn't count. It is told first, so
//!   that a worker is deselected before it is signalled or killed;
//! - an old worker is told to leave when its replacement is ready, and not before;
//! - a slot has at most one current worker and one that is to replace it, and each generation of
//!   it is spawned once;
//! - after a stop nothing is spawned, and [`Effect::Quit`] follows within the stop timeout and
//!   the few seconds that killed processes are given to vanish.

mod event;
pub mod health;
mod operation;
pub mod placement;
mod replace;
mod request;
pub mod restart;
mod slot;
pub mod stall;
mod table;
mod takeover;
#[cfg(test)]
mod tests;
mod worker;

use std::{collections::BTreeMap, time::Duration};

pub use self::{
    event::{Cause, Effect, Event, ExitStatus, Notice, Outcome, Reason, Recycle, StopMode, View},
    request::{Operation, Refusal, Request, Ticket, Unmet, Verb},
    takeover::Resumed,
    worker::State,
};
use self::{
    operation::{Drain, Job},
    restart::Jitter,
    slot::{Place, Slot},
    table::{Act, Input},
    worker::Worker,
};
use crate::worker::WorkerId;

/// What a fleet is to be like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of slots at the start, from 1.
    pub workers: u32,
    /// From the stop signal to the kill; when everything stops, from the stop to the kill.
    pub stop_timeout: Duration,
    /// For how long a worker that leaves may finish its connections; `None`: for ever.
    pub drain_timeout: Option<Duration>,
    /// How long a worker may take from its spawn until it is ready.
    pub ready_timeout: Duration,
    /// Whether every worker that exceeds the ready timeout has failed, not just one that is to
    /// replace another.
    pub ready_required: bool,
    /// After how long a worker that runs without listening is told to a person, and counts as
    /// healthy; unless it has to become ready.
    pub listen_warning: Duration,
    /// How many slots may be replaced at the same time, from 1.
    pub max_surge: u32,
    /// How long after it became ready a worker is replaced, ±10 %.
    pub max_age: Option<Duration>,
    /// When failed slots are tried again.
    pub restart: restart::Settings,
    /// Seeds the jitter.
    pub seed: u64,
}

/// Where the fleet is going.
#[derive(Clone, Debug)]
enum Course {
    Idle(Vec<Resumed>),
    Running,
    Stopping(Outcome),
    Ended,
}

/// All workers and their states.
#[derive(Clone, Debug)]
pub struct Fleet {
    settings: Settings,
    course: Course,
    /// How many slots there are to be, from 0 on.
    wanted: u32,
    /// Those, and removed ones: they may have workers left, and their generations go on if they
    /// come back.
    slots: BTreeMap<u32, Slot>,
    /// The last set told with [`Effect::Steer`].
    steered: Vec<WorkerId>,
    /// Whether the weights are still those that held when it was told.
    weights_told: bool,
    job: Option<Job>,
    drains: Vec<Drain>,
    /// A worker has become healthy, once: the command works, and giving up is out of the question.
    ever_healthy: bool,
    all_ready_told: bool,
    jitter: Jitter,
    /// What the step under way asks for.
    effects: Vec<Effect>,
}

impl Fleet {
    /// Whether a worker has ever been healthy, so that giving up is out of the question.
    pub fn ever_healthy(&self) -> bool {
        self.ever_healthy
    }

    /// A fleet that waits for [`Event::Start`].
    pub fn new(settings: Settings) -> Self {
        Self {
            course: Course::Idle(Vec::new()),
            wanted: settings.workers,
            slots: (0..settings.workers)
                .map(|slot| (slot, Slot::new(slot)))
                .collect(),
            steered: Vec::new(),
            weights_told: true,
            job: None,
            drains: Vec::new(),
            ever_healthy: false,
            all_ready_told: false,
            jitter: Jitter::new(settings.seed),
            effects: Vec::new(),
            settings,
        }
    }

    /// Has other times and limits hold for what begins from now on. The number of workers, and what makes
    /// one ready, stay as they are.
    pub fn adjust(&mut self, settings: Settings) {
        self.settings = Settings {
            workers: self.settings.workers,
            ready_required: self.settings.ready_required,
            seed: self.settings.seed,
            ..settings
        };
    }

    /// Takes an event and the time since some fixed point, which never runs backwards. Returns
    /// what to do, in order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        if matches!(self.course, Course::Ended) {
            return Vec::new();
        }
        match event {
            Event::Start => self.start(now),
            Event::Spawned { worker } => self.apply(now, worker, Input::Spawned),
            Event::SpawnFailed { worker, reason } => self.spawn_failed(now, worker, reason),
            Event::Listening { worker } => self.apply(now, worker, Input::Listening),
            Event::Ready { worker } => self.ready(now, worker),
            Event::Drained { worker } => self.drained(now, worker),
            Event::Exited { worker, status } => self.exited(now, worker, status),
            Event::Emptied { worker } => self.emptied(now, worker),
            Event::Health { worker, healthy } => self.judge_health(now, worker, healthy),
            Event::Stall { worker, stalled } => self.note_stall(worker, stalled),
            Event::Recycle { worker, reason } => {
                if let Some(worker) = self.worker_mut(worker) {
                    worker.set_recycle(reason);
                }
            }
            Event::Request { ticket, request } => self.request(now, ticket, request),
            Event::Stop(mode) => self.stop(now, mode, Outcome::Stopped),
            Event::Fatal { reason } => {
                self.stop(now, StopMode::Graceful, Outcome::Fatal { reason });
            }
            Event::Tick => {}
        }
        self.expire(now);
        self.settle(now);
        self.give_up_if_hopeless(now);
        self.tell_readiness();
        self.quit_if_done();
        for slot in self.slots.values_mut() {
            slot.refresh(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due. Always later than the last step.
    pub fn next_deadline(&self) -> Option<Duration> {
        let restarts = self.slots.values().filter_map(Slot::restart_at);
        self.workers()
            .filter_map(Worker::deadline)
            .chain(restarts.filter(|_| self.restarts()))
            .chain(self.slots.values().filter_map(Slot::retry_at))
            .chain(self.job.as_ref().and_then(Job::deadline))
            .chain(self.drains.iter().filter_map(|drain| drain.deadline))
            .min()
    }

    /// Every worker, and every slot that waits for its restart, by slot and generation.
    pub fn views(&self) -> Vec<View> {
        self.slots.values().flat_map(Slot::views).collect()
    }

    /// The workers that take new connections, sorted: what [`Effect::Steer`] told last.
    pub fn steered(&self) -> &[WorkerId] {
        &self.steered
    }

    /// The number of slots that there are to be.
    pub fn workers_wanted(&self) -> u32 {
        self.wanted
    }

    /// The weights of the slots that have another one than 1: what [`Effect::Steer`] goes by.
    pub fn weights(&self) -> BTreeMap<u32, u16> {
        let slots = self.slots.iter();
        slots
            .map(|(&slot, state)| (slot, state.weight()))
            .filter(|&(_, weight)| weight != 1)
            .collect()
    }

    /// Slots, and the latest generations that they had: for [`Fleet::resume`].
    pub fn generations(&self) -> Vec<(u32, u64)> {
        let slots = self.slots.iter();
        slots
            .map(|(&slot, state)| (slot, state.latest().generation))
            .collect()
    }

    /// Whether the fleet is on its way to [`Effect::Quit`], or there.
    pub fn is_stopping(&self) -> bool {
        match self.course {
            Course::Idle(_) | Course::Running => false,
            Course::Stopping(_) | Course::Ended => true,
        }
    }

    fn start(&mut self, now: Duration) {
        let Course::Idle(resumed) = &mut self.course else {
            return;
        };
        let resumed = std::mem::take(resumed);
        self.course = Course::Running;
        self.take_over(now, resumed);
        let must_be_ready = self.settings.ready_required;
        let empty = |slot: &&mut Slot| slot.current().is_none();
        for slot in self.slots.range_mut(..self.wanted).map(|(_, slot)| slot) {
            if empty(&slot) {
                let worker = slot.spawn(now, must_be_ready);
                self.effects.push(Effect::Spawn(worker));
            }
        }
    }

    fn spawn_failed(&mut self, now: Duration, worker: WorkerId, reason: String) {
        let place = self.place_of(worker);
        let acts = self.feed(now, worker, Input::SpawnFailed);
        if acts.is_empty() {
            return;
        }
        self.perform(worker, acts);
        let cause = Cause::NotSpawned(reason.clone());
        let restart_in = self.failed(now, worker, place, cause, None);
        self.tell(Notice::SpawnFailed {
            worker,
            reason,
            restart_in,
        });
    }

    fn exited(&mut self, now: Duration, id: WorkerId, status: ExitStatus) {
        let place = self.place_of(id);
        let Some(worker) = self.worker_mut(id) else {
            return;
        };
        let (was_ready, healthy_for) = (worker.was_ready(), worker.healthy_for(now));
        let Some(input) = worker.main_exited() else {
            return;
        };
        let acts = self.feed(now, id, input);
        let restart_in = self.failed(now, id, place, Cause::Exited(status), healthy_for);
        self.tell(Notice::Exited {
            worker: id,
            status,
            restart_in,
            was_ready,
        });
        self.perform(id, acts);
    }

    fn late(&mut self, now: Duration, worker: WorkerId) {
        let place = self.place_of(worker);
        let after = self.settings.ready_timeout;
        let acts = self.feed(now, worker, Input::Late);
        let restart_in = self.failed(now, worker, place, Cause::NotReady(after), None);
        self.tell(Notice::NotReady {
            worker,
            after,
            restart_in,
        });
        self.perform(worker, acts);
    }

    fn emptied(&mut self, now: Duration, id: WorkerId) {
        if let Some(input) = self.worker_mut(id).and_then(Worker::tree_emptied) {
            self.apply(now, id, input);
        }
    }

    /// Takes the failure of a worker that had this place. Returns when it is tried again, if it
    /// is.
    fn failed(
        &mut self,
        now: Duration,
        worker: WorkerId,
        place: Option<Place>,
        cause: Cause,
        healthy_for: Option<Duration>,
    ) -> Option<Duration> {
        let place = place.filter(|place| *place != Place::Leaving)?;
        self.fail_job(worker, &cause);
        let asked_for = self.slots.get(&worker.slot)?.replacement_is_asked_for();
        if place == Place::Next && asked_for {
            // Not the fault of the slot, whose worker goes on. The operation ends with it.
            self.slots.get_mut(&worker.slot)?.replacement_failed(worker);
            return None;
        }
        let delay = self.count_failure(now, (worker, cause), healthy_for)?;
        let slot = self.slots.get_mut(&worker.slot)?;
        slot.replacement_failed(worker);
        if place == Place::Next {
            slot.hold_replacement(now, delay);
        } else if slot.promote() {
            return None;
        } else {
            slot.back_off(now, worker, delay);
        }
        self.restarts().then_some(delay)
    }

    fn count_failure(
        &mut self,
        now: Duration,
        failure: (WorkerId, Cause),
        healthy_for: Option<Duration>,
    ) -> Option<Duration> {
        let Self {
            slots,
            settings,
            jitter,
            ..
        } = self;
        let slot = slots.get_mut(&failure.0.slot)?;
        Some(slot.count_failure(now, failure, healthy_for, settings, jitter))
    }

    /// Stops everything; the first to ask for it decides how it is called.
    fn stop(&mut self, now: Duration, mode: StopMode, outcome: Outcome) {
        if !self.is_stopping() {
            self.course = Course::Stopping(outcome);
            self.answer_all();
        }
        self.slots.values_mut().for_each(Slot::retire);
        for worker in self.ids(|_| true) {
            match mode {
                StopMode::Graceful => {
                    self.with_slot(worker, |slot, settings| slot.stop(now, worker, settings))
                }
                StopMode::Now => self.apply(now, worker, Input::Kill),
            }
        }
    }

    fn expire(&mut self, now: Duration) {
        self.expire_workers(now);
        self.slots.values_mut().for_each(|slot| slot.expire(now));
        if self.restarts() {
            let must_be_ready = self.settings.ready_required;
            for slot in self.slots.values_mut() {
                if slot.restart_at().is_some_and(|at| at <= now) {
                    let worker = slot.spawn(now, must_be_ready);
                    self.effects.push(Effect::Spawn(worker));
                }
            }
        }
    }

    fn expire_workers(&mut self, now: Duration) {
        // One deadline may follow at once on another: timeouts of zero are allowed.
        while let Some((worker, input)) = self.overdue(now) {
            match input {
                Input::Late => self.late(now, worker),
                input => self.apply(now, worker, input),
            }
        }
    }

    fn overdue(&self, now: Duration) -> Option<(WorkerId, Input)> {
        let input = |worker: &Worker| Some((worker.id(), worker.overdue(now)?));
        self.workers().find_map(input)
    }

    /// Whether workers are started. Not while the fleet is about to give up: workers that are
    /// still undecided are waited for, and new ones would only put the decision off.
    fn restarts(&self) -> bool {
        matches!(self.course, Course::Running) && self.hopeless().is_none()
    }

    /// The slot that has failed too often in a fleet that never had a healthy worker.
    fn hopeless(&self) -> Option<&Slot> {
        if self.ever_healthy {
            return None;
        }
        let limit = self.settings.restart.give_up_after;
        self.slots.values().find(|slot| slot.failures() >= limit)
    }

    fn give_up_if_hopeless(&mut self, now: Duration) {
        // Where none was ever healthy, every current worker is undecided.
        let undecided = self.slots.values().any(|slot| slot.current().is_some());
        if undecided || self.is_stopping() {
            return;
        }
        if let Some(outcome) = self.hopeless().and_then(Slot::gave_up) {
            self.stop(now, StopMode::Now, outcome);
        }
    }

    /// The workers that are to take new connections. Something may be held against one of them;
    /// but a bad worker is better than none.
    fn steer_set(&self) -> Vec<WorkerId> {
        if !matches!(self.course, Course::Running) {
            return Vec::new();
        }
        let willing = || self.slots.values().filter_map(Slot::steerable);
        let ids = |worker: &Worker| worker.id();
        let well: Vec<WorkerId> = willing()
            .filter(|worker| !worker.is_ailing())
            .map(ids)
            .collect();
        if well.is_empty() {
            willing().map(ids).collect()
        } else {
            well
        }
    }

    /// Tells the steer set where it changed: before all else, so that nothing is sent to a worker
    /// that still gets connections.
    fn tell_readiness(&mut self) {
        let ready = |slot: &Slot| slot.current().is_some_and(Worker::is_ready);
        let mut wanted = self.slots.range(..self.wanted).map(|(_, slot)| slot);
        if !self.all_ready_told && wanted.all(ready) {
            self.all_ready_told = true;
            self.tell(Notice::AllReady);
        }
        let steered = self.steer_set();
        let weights_told = std::mem::replace(&mut self.weights_told, true);
        if steered != self.steered || !weights_told {
            self.effects.insert(0, Effect::Steer(steered.clone()));
            self.steered = steered;
        }
    }

    fn quit_if_done(&mut self) {
        if self.workers().next().is_none()
            && let Course::Stopping(outcome) = &self.course
        {
            self.effects.push(Effect::Quit(outcome.clone()));
            self.course = Course::Ended;
        }
    }

    fn apply(&mut self, now: Duration, worker: WorkerId, input: Input) {
        let acts = self.feed(now, worker, input);
        self.perform(worker, acts);
    }

    fn feed(&mut self, now: Duration, worker: WorkerId, input: Input) -> &'static [Act] {
        let Self {
            slots, settings, ..
        } = self;
        let slot = slots.get_mut(&worker.slot);
        slot.map_or(&[], |slot| slot.feed(now, worker, input, settings))
    }

    /// Does something to a worker's slot, and what follows from it for the worker.
    fn with_slot(
        &mut self,
        worker: WorkerId,
        act: impl FnOnce(&mut Slot, &Settings) -> &'static [Act],
    ) {
        if let Some(slot) = self.slots.get_mut(&worker.slot) {
            let acts = act(slot, &self.settings);
            self.perform(worker, acts);
        }
    }

    fn perform(&mut self, worker: WorkerId, acts: &[Act]) {
        for act in acts {
            self.ever_healthy |= matches!(act, Act::TellReady | Act::TellNotListening);
            self.effects.push(act.effect(worker, &self.settings));
        }
    }

    fn tell(&mut self, notice: Notice) {
        self.effects.push(Effect::Notice(notice));
    }

    fn place_of(&self, worker: WorkerId) -> Option<Place> {
        self.slots.get(&worker.slot)?.place_of(worker)
    }

    fn worker_mut(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        self.slots.get_mut(&worker.slot)?.worker_mut(worker)
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.values().flat_map(Slot::workers)
    }

    fn ids(&self, wanted: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.workers()
            .filter(|worker| wanted(worker))
            .map(Worker::id)
            .collect()
    }
}
