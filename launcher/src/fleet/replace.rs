//! How a worker takes another's place: the new one is started beside the old one, gets its place
//! when it is ready, and only then is the old one told to leave. Reloads, restarts, recycling and
//! failed health checks all go this way, through one pool with room for `max_surge` slots.

use std::time::Duration;

use super::{
    Fleet,
    event::{Effect, Notice, Reason},
    slot::{Place, Slot},
    table::{Act, Input},
};
use crate::worker::WorkerId;

/// The jitter of the age limit, in percent: workers that were started together aren't to be
/// replaced together for ever.
const AGE_JITTER: u16 = 10;

impl Fleet {
    /// A worker can take connections.
    pub(super) fn ready(&mut self, now: Duration, id: WorkerId) {
        let acts = self.feed(now, id, Input::Ready);
        self.perform(id, acts);
        if !acts.contains(&Act::TellReady) {
            return;
        }
        self.limit_age(now, id);
        let Self {
            slots, settings, ..
        } = self;
        let slot = slots.get_mut(&id.slot);
        if let Some((old, acts)) = slot.and_then(|slot| slot.place(now, settings)) {
            self.perform(old, acts);
        }
    }

    /// Sets when a worker that has become ready is to be recycled for its age.
    pub(super) fn limit_age(&mut self, now: Duration, id: WorkerId) {
        if let Some(max_age) = self.settings.max_age {
            let age = self.jitter.spread(max_age, AGE_JITTER);
            if let Some(worker) = self.worker_mut(id) {
                worker.set_age_limit(now.saturating_add(age));
            }
        }
    }

    /// The health checks of a worker have come to another result. Each time they find it
    /// unhealthy counts as a failure of its slot, so that a slot whose workers all fail them is
    /// replaced ever more slowly.
    pub(super) fn judge_health(&mut self, now: Duration, id: WorkerId, healthy: bool) {
        let place = self.place_of(id);
        let Some(worker) = self.worker_mut(id) else {
            return;
        };
        let healthy_for = worker.healthy_for(now);
        if !worker.set_healthy(healthy) {
            return;
        }
        self.tell(Notice::Health {
            worker: id,
            healthy,
        });
        if !healthy && place == Some(Place::Current) {
            self.count_illness(now, id, healthy_for);
        }
    }

    fn count_illness(&mut self, now: Duration, id: WorkerId, healthy_for: Option<Duration>) {
        let Self {
            slots,
            settings,
            jitter,
            ..
        } = self;
        if let Some(slot) = slots.get_mut(&id.slot) {
            let delay = slot.count_illness(now, healthy_for, settings, jitter);
            slot.hold_replacement(now, delay);
        }
    }

    /// The accept queue of a worker has got stuck, or moves again.
    pub(super) fn note_stall(&mut self, worker: WorkerId, stalled: bool) {
        let noted = self.worker_mut(worker);
        if noted.is_some_and(|noted| noted.set_stalled(stalled)) {
            self.tell(Notice::Stall { worker, stalled });
        }
    }

    /// A worker has finished its connections.
    pub(super) fn drained(&mut self, now: Duration, id: WorkerId) {
        let Some(slot) = self.slots.get_mut(&id.slot) else {
            return;
        };
        let parked = slot.is_parked();
        let Some(worker) = slot.worker_mut(id) else {
            return;
        };
        if worker.is_draining() || parked && worker.is_ready() {
            worker.set_drained(true);
        }
        self.apply(now, id, Input::Drained);
    }

    /// Starts what replacements there is room for: what people asked for first, then what is
    /// sick, then, one at a time and only where nothing else goes on, what is to be recycled.
    pub(super) fn start_replacements(&mut self, now: Duration) {
        while self.restarts() && self.replacing() < self.settings.max_surge.max(1) {
            let Some((slot, reason)) = self.next_replacement() else {
                return;
            };
            let drain_timeout = self.begin_in_job(slot, reason);
            let Some(slot) = self.slots.get_mut(&slot) else {
                return;
            };
            let old = slot.occupant();
            let new = slot.replace(now, reason, drain_timeout);
            if let Some(old) = old {
                self.tell(Notice::Replacing { old, new, reason });
            }
            self.effects.push(Effect::Spawn(new));
        }
    }

    /// How many slots are being replaced.
    fn replacing(&self) -> u32 {
        let replaced = |slot: &&Slot| slot.replacement().is_some();
        self.slots.values().filter(replaced).count() as u32
    }

    fn next_replacement(&self) -> Option<(u32, Reason)> {
        let asked_for = self.next_in_job();
        let wanted = |(number, slot): (&u32, &Slot)| Some((*number, slot.wants_replacement()?));
        let wanted = || self.slots.iter().filter_map(wanted);
        asked_for
            .or_else(|| wanted().find(|(_, reason)| *reason == Reason::Unhealthy))
            .or_else(|| wanted().next().filter(|_| self.replacing() == 0))
    }
}
