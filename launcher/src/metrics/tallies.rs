//! Counters that never go back: what was read last of each source that may go, and the sum of those
//! that have gone. They are part of the state file, so a later launcher goes on with them.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::worker::WorkerId;

/// What a group is known by: protocol, address, port.
pub type GroupKey = (String, String, u16);

/// All that is counted over workers, groups and launchers that have gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tallies {
    groups: Vec<(GroupKey, Group)>,
    slots: BTreeMap<u32, Slot>,
    reloads: BTreeMap<Outcome, Reloads>,
}

/// What the kernel counts for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections (UDP: datagrams) that the program gave to a member.
    pub selected: u64,
    /// Connections that moved.
    pub migrated: u64,
    /// Connections that went to the holding socket.
    pub held: u64,
    /// Decisions left to the kernel.
    pub fell_through: u64,
    /// Connections refused.
    pub refused: u64,
    /// Decisions for which the chosen member had gone.
    pub missed: u64,
    /// Flows that had to make room.
    pub evicted: u64,
}

/// What a worker has used; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Connections (UDP: datagrams) it was given.
    pub connections: Option<u64>,
    /// CPU time.
    pub cpu_seconds: Option<f64>,
}

/// Why another worker was started in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// The worker ended unasked.
    Exited,
    /// It could not be started.
    NotStarted,
    /// It was not ready in time.
    NotReady,
    /// A reload.
    Reload,
    /// Somebody asked for it.
    Restart,
    /// It failed its health checks.
    Unhealthy,
    /// It had been given enough connections.
    MaxConnections,
    /// It used too much memory.
    MaxMemory,
    /// It was old.
    MaxAge,
}

impl Restart {
    /// All of them, and how they are written.
    pub(super) const ALL: [(Self, &str); 9] = [
        (Self::Exited, "exited"),
        (Self::NotStarted, "not-started"),
        (Self::NotReady, "not-ready"),
        (Self::Reload, "reload"),
        (Self::Restart, "restart"),
        (Self::Unhealthy, "unhealthy"),
        (Self::MaxConnections, "max-connections"),
        (Self::MaxMemory, "max-memory"),
        (Self::MaxAge, "max-age"),
    ];
}

/// How a reload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All workers are replaced.
    Done,
    /// It was called off on the way.
    Failed,
    /// It was not begun: the configuration is wrong, or something else was going on.
    Refused,
}

impl Outcome {
    /// All of them, and how they are written.
    pub(super) const ALL: [(Self, &str); 3] = [
        (Self::Done, "done"),
        (Self::Failed, "failed"),
        (Self::Refused, "refused"),
    ];
}

/// The reloads of one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reloads {
    pub(super) count: u64,
    pub(super) seconds: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Group {
    /// Of its counters that are gone.
    gone: Counts,
    /// Of those that it has; `None`: nothing counts for it now.
    present: Option<Counts>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    /// Of its workers that are gone.
    gone: Used,
    /// Of those that it has, by generation.
    present: BTreeMap<u64, Used>,
    restarts: BTreeMap<Restart, u64>,
}

impl Counts {
    /// Each of them, with its counterpart of another.
    fn merge(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            selected: with(self.selected, other.selected),
            migrated: with(self.migrated, other.migrated),
            held: with(self.held, other.held),
            fell_through: with(self.fell_through, other.fell_through),
            refused: with(self.refused, other.refused),
            missed: with(self.missed, other.missed),
            evicted: with(self.evicted, other.evicted),
        }
    }
}

impl Used {
    fn merge(self, other: Self, whole: fn(u64, u64) -> u64, real: fn(f64, f64) -> f64) -> Self {
        let connections = [self.connections, other.connections].into_iter().flatten();
        let seconds = [self.cpu_seconds, other.cpu_seconds].into_iter().flatten();
        Self {
            connections: connections.reduce(whole),
            cpu_seconds: seconds.reduce(real),
        }
    }

    fn plus(self, other: Self) -> Self {
        self.merge(other, u64::saturating_add, |a, b| a + b)
    }
}

impl Tallies {
    /// Takes note of what the groups have counted; those that are not among them are gone, and so
    /// are the counters of those of which nothing is known.
    pub fn see_groups(&mut self, groups: impl IntoIterator<Item = (GroupKey, Option<Counts>)>) {
        let seen: BTreeMap<GroupKey, Option<Counts>> = groups.into_iter().collect();
        for (key, group) in &mut self.groups {
            let now = seen.get(key).copied().flatten();
            group.see(now);
        }
        for (key, counts) in seen {
            if counts.is_some() && !self.groups.iter().any(|(known, _)| *known == key) {
                let group = Group {
                    present: counts,
                    ..Group::default()
                };
                self.groups.push((key, group));
            }
        }
    }

    /// Takes note of what a worker has used. What was known before, and is more, stays.
    pub fn see_worker(&mut self, worker: WorkerId, used: Used) {
        let slot = self.slots.entry(worker.slot).or_default();
        let seen = slot.present.entry(worker.generation).or_default();
        *seen = seen.merge(used, u64::max, f64::max);
    }

    /// A worker is gone.
    pub fn end_worker(&mut self, worker: WorkerId) {
        if let Some(slot) = self.slots.get_mut(&worker.slot)
            && let Some(used) = slot.present.remove(&worker.generation)
        {
            slot.gone = slot.gone.plus(used);
        }
    }

    /// Goes on with what an earlier launcher has counted: of its workers, these are still there.
    #[must_use]
    pub fn resume(mut self, alive: impl Fn(WorkerId) -> bool) -> Self {
        let known: Vec<WorkerId> = self
            .slots
            .iter()
            .flat_map(|(&slot, of)| {
                let generations = of.present.keys();
                generations.map(move |&generation| WorkerId { slot, generation })
            })
            .collect();
        for worker in known.into_iter().filter(|&worker| !alive(worker)) {
            self.end_worker(worker);
        }
        self
    }

    /// Another worker is started in this slot.
    pub fn restart(&mut self, slot: u32, reason: Restart) {
        let restarts = &mut self.slots.entry(slot).or_default().restarts;
        *restarts.entry(reason).or_default() += 1;
    }

    /// A reload has ended.
    pub fn reload(&mut self, outcome: Outcome, took: Duration) {
        let reloads = self.reloads.entry(outcome).or_default();
        reloads.count += 1;
        reloads.seconds += took.as_secs_f64();
    }

    /// What was counted for each group that there ever was.
    pub(super) fn groups(&self) -> impl Iterator<Item = (&GroupKey, Counts)> {
        self.groups.iter().map(|(key, group)| {
            let present = group.present.unwrap_or_default();
            (key, group.gone.merge(present, u64::saturating_add))
        })
    }

    /// What the workers of each slot that there ever was have used.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, Used)> {
        self.slots.iter().map(|(&number, slot)| {
            let present = slot.present.values().copied();
            (number, present.fold(slot.gone, Used::plus))
        })
    }

    /// How often another worker was started in this slot.
    pub(super) fn restarts(&self, slot: u32, reason: Restart) -> u64 {
        let restarts = self.slots.get(&slot).map(|slot| &slot.restarts);
        restarts
            .and_then(|it| it.get(&reason))
            .copied()
            .unwrap_or(0)
    }

    /// The reloads of this outcome.
    pub(super) fn reloads(&self, outcome: Outcome) -> Reloads {
        self.reloads.get(&outcome).copied().unwrap_or_default()
    }
}

impl Group {
    fn see(&mut self, now: Option<Counts>) {
        let Some(before) = self.present else {
            self.present = now;
            return;
        };
        match now {
            // They began anew.
            Some(now) if now.selected < before.selected || now.held < before.held => {
                self.gone = self.gone.merge(before, u64::saturating_add);
                self.present = Some(now);
            }
            // What is a difference of two counters may waver.
            Some(now) => self.present = Some(before.merge(now, u64::max)),
            None => {
                self.gone = self.gone.merge(before, u64::saturating_add);
                self.present = None;
            }
        }
    }
}
