//! The page itself: one family after another.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    families::{self as f, Family},
    tallies::{Counts, GroupKey, Outcome, Restart, Tallies, Used},
    text::{Format, Text, Value},
};
use crate::observe::{GroupStatus, Snapshot, WorkerStatus};

/// The states of a worker, as the snapshot writes them.
pub(super) const STATES: [&str; 9] = [
    "starting",
    "listening",
    "ready",
    "unhealthy",
    "stalled",
    "draining",
    "drained",
    "stopping",
    "backoff",
];

/// What a decision of a group's program takes on the average, in seconds, where the kernel measures it.
pub type Decision = (GroupKey, f64);

/// The page of a launcher at this moment. What is not known is not on it.
#[must_use]
pub fn render(
    snapshot: &Snapshot,
    tallies: &Tallies,
    decisions: &[Decision],
    format: Format,
) -> String {
    let mut page = Page(Text::new(format));
    page.launcher(snapshot);
    page.groups(snapshot, tallies, decisions);
    page.workers(snapshot, tallies);
    page.reloads(tallies);
    page.0.finish()
}

struct Page(Text);

impl Page {
    fn launcher(&mut self, snapshot: &Snapshot) {
        let Snapshot {
            name,
            version,
            capture,
            steering,
            ..
        } = snapshot;
        self.0.family(f::BUILD);
        let labels = [("version", &**version)];
        self.0.sample(f::BUILD.name, "", &labels, Value::Whole(1));
        self.0.family(f::STEERING);
        let labels = [
            ("name", &**name),
            ("capture", capture),
            ("backend", &steering.backend),
            ("policy", &steering.policy),
            ("policy_udp", &steering.policy_udp),
        ];
        self.0
            .sample(f::STEERING.name, "", &labels, Value::Whole(1));
        for (family, count) in [(f::READY, snapshot.ready()), (f::SLOTS, snapshot.slots())] {
            self.0.family(family);
            self.0
                .sample(family.name, "", &[], Value::Whole(count as u64));
        }
    }

    fn groups(&mut self, snapshot: &Snapshot, tallies: &Tallies, decisions: &[Decision]) {
        let groups = &snapshot.groups;
        let gauge = |of: fn(&GroupStatus) -> Option<u64>| {
            let known = groups
                .iter()
                .filter_map(|group| Some((key(group), of(group)?)));
            known
                .map(|(key, value)| (key, Value::Whole(value)))
                .collect::<Vec<_>>()
        };
        let datagrams = |key: &GroupKey| key.0 == "udp";
        let counter = |of: fn(&Counts) -> u64, meant: &dyn Fn(&GroupKey) -> bool| {
            let known = tallies.groups().filter(|(key, _)| meant(key));
            known
                .map(|(key, counts)| (key.clone(), Value::Whole(of(&counts))))
                .collect::<Vec<_>>()
        };
        let all = |_: &GroupKey| true;
        let connections = |key: &GroupKey| !datagrams(key);
        self.by_group(f::MEMBERS, gauge(|it| Some(it.members.into())));
        self.by_group(f::SELECTED, counter(|it| it.selected, &all));
        self.by_group(f::MIGRATED, counter(|it| it.migrated, &connections));
        self.by_group(f::HELD, counter(|it| it.held, &connections));
        self.by_group(f::HELD_NOW, gauge(|it| it.held_now));
        let backlog = gauge(|it| it.hold_backlog.map(u64::from));
        self.by_group(f::HOLD_BACKLOG, backlog);
        self.by_group(f::FELL_THROUGH, counter(|it| it.fell_through, &all));
        self.by_group(f::REFUSED, counter(|it| it.refused, &connections));
        self.by_group(f::MISSED, counter(|it| it.missed, &all));
        self.by_group(f::FLOWS, gauge(|it| it.flows_now));
        self.by_group(f::FLOWS_MAX, gauge(|it| it.flows_max.map(u64::from)));
        self.by_group(f::FLOWS_EVICTED, counter(|it| it.evicted, &datagrams));
        let decisions = decisions.iter().cloned();
        let decisions = decisions.map(|(key, seconds)| (key, Value::Real(seconds)));
        self.by_group(f::DECISION, decisions.collect());
    }

    fn by_group(&mut self, family: Family, samples: Vec<(GroupKey, Value)>) {
        if samples.is_empty() {
            return;
        }
        self.0.family(family);
        for ((protocol, address, port), value) in samples {
            let port = port.to_string();
            let labels = [
                ("protocol", &*protocol),
                ("address", &*address),
                ("port", &*port),
            ];
            self.0.sample(family.name, "", &labels, value);
        }
    }

    fn workers(&mut self, snapshot: &Snapshot, tallies: &Tallies) {
        let mut slots: BTreeMap<u32, Vec<&WorkerStatus>> = BTreeMap::new();
        for worker in &snapshot.workers {
            slots.entry(worker.slot).or_default().push(worker);
        }
        // The slot's workers together: while one is being replaced there are two.
        let sum = |of: fn(&WorkerStatus) -> Option<u64>| {
            let sums = slots.iter().filter_map(|(&slot, workers)| {
                let known = workers.iter().filter_map(|worker| of(worker));
                Some((slot, Value::Whole(known.reduce(u64::saturating_add)?)))
            });
            sums.collect::<Vec<_>>()
        };
        let latest = |of: fn(&WorkerStatus) -> Option<u64>| {
            let values = slots.iter().filter_map(|(&slot, workers)| {
                let latest = workers.iter().max_by_key(|worker| worker.generation)?;
                Some((slot, Value::Whole(of(latest)?)))
            });
            values.collect::<Vec<_>>()
        };
        let used = |of: fn(Used) -> Option<Value>| {
            let known = tallies.used();
            let known = known.filter_map(|(slot, used)| Some((slot, of(used)?)));
            known.collect::<Vec<_>>()
        };

        self.states(&slots);
        self.by_slot(f::GENERATION, latest(|it| Some(it.generation)));
        self.by_slot(f::WEIGHT, latest(|it| Some(it.weight.into())));
        self.by_slot(f::UPTIME, latest(|it| it.uptime_seconds));
        let connections = used(|it| it.connections.map(Value::Whole));
        self.by_slot(f::CONNECTIONS, connections);
        self.by_slot(f::ACTIVE, sum(|it| it.connections_active));
        self.by_slot(f::QUEUE, sum(|it| it.accept_queue));
        self.by_slot(f::CPU, used(|it| it.cpu_seconds.map(Value::Real)));
        self.by_slot(f::MEMORY, sum(|it| it.memory_bytes));

        let present = slots.keys().copied();
        let known: BTreeSet<u32> = present
            .chain(tallies.used().map(|(slot, _)| slot))
            .collect();
        if !known.is_empty() {
            self.0.family(f::RESTARTS);
        }
        for slot in known {
            for (reason, word) in Restart::ALL {
                let number = slot.to_string();
                let labels = [("slot", &*number), ("reason", word)];
                let value = Value::Whole(tallies.restarts(slot, reason));
                self.0.sample(f::RESTARTS.name, "", &labels, value);
            }
        }
    }

    fn states(&mut self, slots: &BTreeMap<u32, Vec<&WorkerStatus>>) {
        if !slots.is_empty() {
            self.0.family(f::STATE);
        }
        for (slot, workers) in slots {
            for state in STATES {
                let number = slot.to_string();
                let labels = [("slot", &*number), ("state", state)];
                let count = workers.iter().filter(|worker| worker.state == state);
                let value = Value::Whole(count.count() as u64);
                self.0.sample(f::STATE.name, "", &labels, value);
            }
        }
    }

    fn by_slot(&mut self, family: Family, samples: Vec<(u32, Value)>) {
        if samples.is_empty() {
            return;
        }
        self.0.family(family);
        for (slot, value) in samples {
            let slot = slot.to_string();
            self.0.sample(family.name, "", &[("slot", &*slot)], value);
        }
    }

    fn reloads(&mut self, tallies: &Tallies) {
        self.0.family(f::RELOADS);
        for (outcome, word) in Outcome::ALL {
            let reloads = tallies.reloads(outcome);
            let labels = [("outcome", word)];
            let name = f::RELOADS.name;
            let (sum, count) = (Value::Real(reloads.seconds), Value::Whole(reloads.count));
            self.0.sample(name, "_sum", &labels, sum);
            self.0.sample(name, "_count", &labels, count);
        }
    }
}

fn key(group: &GroupStatus) -> GroupKey {
    (group.protocol.clone(), group.address.clone(), group.port)
}
