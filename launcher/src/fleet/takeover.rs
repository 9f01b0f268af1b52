//! A fleet that goes on with the workers of a launcher that is gone.

use std::{cmp::Reverse, time::Duration};

use super::{Course, Fleet, Settings, slot::Slot, table::Input, worker::Worker};
use crate::worker::WorkerId;

/// A worker that an earlier launcher has left running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// Which one.
    pub worker: WorkerId,
    /// Whether it was ready.
    pub ready: bool,
    /// How often its slot had been restarted after a failure.
    pub restarts: u64,
    /// Whether its slot was drained because a person wanted it so.
    pub parked: bool,
    /// Whether it was on its way out.
    pub leaving: bool,
}

impl Fleet {
    /// A fleet that waits for [`super::Event::Start`], and then takes these workers over: of
    /// each slot the ready and newest one stays, the others leave, as do those of slots that are
    /// one too many. `generations` are slots and the latest generations that were used there, so
    /// that none is used again; `weights` are slots' that are not 1. `ever_healthy`: as [`Fleet::ever_healthy`] of the fleet before.
    pub fn resume(
        settings: Settings,
        resumed: Vec<Resumed>,
        generations: impl IntoIterator<Item = (u32, u64)>,
        weights: impl IntoIterator<Item = (u32, u16)>,
        ever_healthy: bool,
    ) -> Self {
        let mut fleet = Self::new(settings);
        for (number, generation) in generations {
            fleet.slot(number).inherit(generation, 0, false);
        }
        for (number, weight) in weights {
            if number < fleet.wanted {
                fleet.slot(number).set_weight(weight);
            }
        }
        fleet.ever_healthy = ever_healthy;
        fleet.course = Course::Idle(resumed);
        fleet
    }

    pub(super) fn take_over(&mut self, now: Duration, mut resumed: Vec<Resumed>) {
        resumed.sort_by_key(|worker| {
            let WorkerId { slot, generation } = worker.worker;
            (slot, Reverse((!worker.leaving, worker.ready, generation)))
        });
        let must_be_ready = self.settings.ready_required;
        for Resumed {
            worker: id,
            ready,
            restarts,
            parked,
            leaving,
        } in resumed
        {
            let mut worker = Worker::new(id, now, must_be_ready);
            let taken = self
                .slots
                .get(&id.slot)
                .is_some_and(|slot| slot.current().is_some());
            let goes = leaving || taken || id.slot >= self.wanted;
            // It has told so already, to whoever was there. One that goes may have become ready when
            // nobody was there any more to write it down: then it has connections to finish.
            let input = if ready || goes {
                Input::Ready
            } else {
                Input::Spawned
            };
            worker.feed(now, input, &self.settings);
            self.ever_healthy |= ready;
            let slot = self.slot(id.slot);
            slot.inherit(id.generation, restarts, parked);
            slot.adopt(worker, leaving);
            if ready {
                self.limit_age(now, id);
            }
        }
        let mut kept = self.slots.range_mut(..self.wanted).map(|(_, slot)| slot);
        if kept.all(|slot| slot.is_parked() || slot.weight() == 0) {
            // Those that took the connections were in slots that are gone.
            for slot in self.slots.values_mut() {
                slot.set_parked(false);
                slot.set_weight(slot.weight().max(1));
            }
        }
        for worker in self.ids(|_| true) {
            let wanted = worker.slot < self.wanted;
            let slot = self.slots.get(&worker.slot);
            let is_current = slot
                .and_then(Slot::current)
                .is_some_and(|current| current.id() == worker);
            if !(wanted && is_current) {
                self.with_slot(worker, |slot, settings| slot.leave(now, worker, settings));
            }
        }
    }

    /// The slot of this number, which may be a removed one.
    pub(super) fn slot(&mut self, number: u32) -> &mut Slot {
        self.slots
            .entry(number)
            .or_insert_with(|| Slot::new(number))
    }
}
