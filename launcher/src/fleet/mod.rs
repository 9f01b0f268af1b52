//! The whole lifecycle of the workers, without I/O: [`Fleet::step`] takes what happened and the
//! time, and returns what to do. `worker` has the diagram of one worker's life, `table` its table.
//!
//! What always holds:
//! - the steer set is the set of ready workers, so that whatever takes a worker out of readiness
//!   has it deselected before it is signalled or killed;
//! - a slot has at most one current worker, and each generation of it is spawned once;
//! - after a stop nothing is spawned, and [`Effect::Quit`] follows within the stop timeout and
//!   the few seconds that killed processes are given to vanish.

mod event;
pub mod placement;
pub mod restart;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod worker;

use std::time::Duration;

pub use self::{
    event::{Cause, Effect, Event, ExitStatus, Notice, Outcome, StopMode, View},
    worker::State,
};
use self::{
    restart::Jitter,
    slot::Slot,
    table::{Act, Input},
    worker::Worker,
};
use crate::worker::WorkerId;

/// What a fleet is to be like.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The number of slots, from 1.
    pub workers: u32,
    /// From the stop signal to the kill.
    pub stop_timeout: Duration,
    /// After how long a worker that runs without listening is told to a person, and counts as
    /// healthy.
    pub listen_warning: Duration,
    /// When failed slots are tried again.
    pub restart: restart::Settings,
    /// Seeds the jitter of the restarts.
    pub seed: u64,
}

/// Where the fleet is going.
#[derive(Clone, Debug)]
enum Course {
    Idle,
    Running,
    Stopping(Outcome),
    Ended,
}

/// All workers and their states.
#[derive(Clone, Debug)]
pub struct Fleet {
    settings: Settings,
    course: Course,
    slots: Vec<Slot>,
    /// The last set told with [`Effect::Steer`].
    steered: Vec<WorkerId>,
    /// A worker has become healthy, once: the command works, and giving up is out of the question.
    ever_healthy: bool,
    all_ready_told: bool,
    jitter: Jitter,
    /// What the step under way asks for.
    effects: Vec<Effect>,
}

impl Fleet {
    /// A fleet that waits for [`Event::Start`].
    pub fn new(settings: Settings) -> Self {
        Self {
            course: Course::Idle,
            slots: (0..settings.workers).map(Slot::new).collect(),
            steered: Vec::new(),
            ever_healthy: false,
            all_ready_told: false,
            jitter: Jitter::new(settings.seed),
            effects: Vec::new(),
            settings,
        }
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
            Event::Exited { worker, status } => self.exited(now, worker, status),
            Event::Emptied { worker } => self.emptied(now, worker),
            Event::Stop(mode) => self.stop(now, mode, Outcome::Stopped),
            Event::Fatal { reason } => {
                self.stop(now, StopMode::Graceful, Outcome::Fatal { reason });
            }
            Event::Tick => {}
        }
        self.expire(now);
        self.give_up_if_hopeless(now);
        self.tell_readiness();
        self.quit_if_done();
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due. Always later than the last step.
    pub fn next_deadline(&self) -> Option<Duration> {
        let waiting: &[Slot] = if self.restarts() { &self.slots } else { &[] };
        self.workers()
            .filter_map(Worker::deadline)
            .chain(waiting.iter().filter_map(Slot::restart_at))
            .min()
    }

    /// Every worker, and every slot that waits for its restart, by slot and generation.
    pub fn views(&self) -> Vec<View> {
        self.slots.iter().flat_map(Slot::views).collect()
    }

    /// Whether the fleet is on its way to [`Effect::Quit`], or there.
    pub fn is_stopping(&self) -> bool {
        match self.course {
            Course::Idle | Course::Running => false,
            Course::Stopping(_) | Course::Ended => true,
        }
    }

    fn start(&mut self, now: Duration) {
        if matches!(self.course, Course::Idle) {
            self.course = Course::Running;
            self.effects.extend(
                self.slots
                    .iter_mut()
                    .map(|slot| Effect::Spawn(slot.spawn(now))),
            );
        }
    }

    fn spawn_failed(&mut self, now: Duration, worker: WorkerId, reason: String) {
        let current = self.is_current(worker);
        let acts = self.feed(now, worker, Input::SpawnFailed);
        if acts.is_empty() {
            return;
        }
        self.perform(worker, acts);
        let cause = Cause::NotSpawned(reason.clone());
        let restart_in = current
            .then(|| self.back_off(now, worker, cause, None))
            .flatten();
        self.tell(Notice::SpawnFailed {
            worker,
            reason,
            restart_in,
        });
    }

    fn exited(&mut self, now: Duration, id: WorkerId, status: ExitStatus) {
        let current = self.is_current(id);
        let Some(worker) = self.worker_mut(id) else {
            return;
        };
        let (was_ready, healthy_for) = (worker.was_ready(), worker.healthy_for(now));
        let Some(input) = worker.main_exited() else {
            return;
        };
        let acts = self.feed(now, id, input);
        let cause = Cause::Exited(status);
        let restart_in = current
            .then(|| self.back_off(now, id, cause, healthy_for))
            .flatten();
        self.tell(Notice::Exited {
            worker: id,
            status,
            restart_in,
            was_ready,
        });
        self.perform(id, acts);
    }

    fn emptied(&mut self, now: Duration, id: WorkerId) {
        if let Some(input) = self.worker_mut(id).and_then(Worker::tree_emptied) {
            self.apply(now, id, input);
        }
    }

    /// Stops everything; the first to ask for it decides how it is called.
    fn stop(&mut self, now: Duration, mode: StopMode, outcome: Outcome) {
        if !self.is_stopping() {
            self.course = Course::Stopping(outcome);
        }
        self.slots.iter_mut().for_each(Slot::forget_restart);
        for worker in self.ids(|_| true) {
            self.apply(now, worker, Input::Stop(mode));
        }
    }

    fn expire(&mut self, now: Duration) {
        for worker in self.ids(|worker| worker.is_overdue(now)) {
            self.apply(now, worker, Input::Overdue);
        }
        if self.restarts() {
            for slot in &mut self.slots {
                if slot.restart_at().is_some_and(|at| at <= now) {
                    self.effects.push(Effect::Spawn(slot.spawn(now)));
                }
            }
        }
    }

    /// Whether slots are restarted. Not while the fleet is about to give up: workers that are
    /// still undecided are waited for, and new ones would only put the decision off.
    fn restarts(&self) -> bool {
        matches!(self.course, Course::Running) && self.hopeless().is_none()
    }

    /// The slot that has failed too often in a fleet that never had a healthy worker.
    fn hopeless(&self) -> Option<&Slot> {
        let limit = self.settings.restart.give_up_after;
        let failed = self.slots.iter().find(|slot| slot.failures() >= limit);
        failed.filter(|_| !self.ever_healthy)
    }

    fn give_up_if_hopeless(&mut self, now: Duration) {
        // Where none was ever healthy, every current worker is undecided.
        let undecided = self.slots.iter().any(|slot| slot.current().is_some());
        if undecided || self.is_stopping() {
            return;
        }
        if let Some(outcome) = self.hopeless().and_then(Slot::gave_up) {
            self.stop(now, StopMode::Now, outcome);
        }
    }

    /// Tells the steer set where it changed: before all else, so that nothing is sent to a worker
    /// that still gets connections.
    fn tell_readiness(&mut self) {
        let ready: Vec<WorkerId> = self.slots.iter().filter_map(Slot::ready).collect();
        if ready.len() == self.slots.len() && !self.all_ready_told {
            self.all_ready_told = true;
            self.tell(Notice::AllReady);
        }
        if ready != self.steered {
            self.effects.insert(0, Effect::Steer(ready.clone()));
            self.steered = ready;
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
        let slot = slots.get_mut(worker.slot as usize);
        slot.map_or(&[], |slot| slot.feed(now, worker, input, settings))
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

    /// Sets the restart of a slot whose worker has just failed. Returns the delay, unless the
    /// fleet is about to give up.
    fn back_off(
        &mut self,
        now: Duration,
        worker: WorkerId,
        cause: Cause,
        healthy_for: Option<Duration>,
    ) -> Option<Duration> {
        let Self {
            slots,
            settings,
            jitter,
            ..
        } = self;
        let slot = slots.get_mut(worker.slot as usize)?;
        let delay = slot.back_off(now, cause, healthy_for, settings, jitter);
        self.restarts().then_some(delay)
    }

    fn is_current(&self, worker: WorkerId) -> bool {
        let slot = self.slots.get(worker.slot as usize);
        slot.and_then(Slot::current)
            .is_some_and(|current| current.id() == worker)
    }

    fn worker_mut(&mut self, worker: WorkerId) -> Option<&mut Worker> {
        self.slots.get_mut(worker.slot as usize)?.worker_mut(worker)
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().flat_map(Slot::workers)
    }

    fn ids(&self, wanted: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.workers()
            .filter(|worker| wanted(worker))
            .map(Worker::id)
            .collect()
    }
}
