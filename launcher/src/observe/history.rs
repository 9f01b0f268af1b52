//! What only several snapshots tell: how fast what they count grows.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Snapshot, WorkerStatus};
use crate::worker::WorkerId;

/// Rates kept of each worker.
const RATES: usize = 60;

/// The workers of the last snapshot, and what became of them before.
#[derive(Clone, Debug, Default)]
pub struct History(BTreeMap<WorkerId, Series>);

/// One worker.
#[derive(Clone, Debug, Default)]
pub struct Series {
    connections_total: Option<u64>,
    cpu_seconds: Option<f64>,
    cpu_percent: Option<f64>,
    rates: VecDeque<f64>,
}

impl History {
    /// Takes the next snapshot, `elapsed` after the one before. A worker's first one tells no rate
    /// yet; who is not in it any more is forgotten.
    pub fn add(&mut self, snapshot: &Snapshot, elapsed: Duration) {
        let mut before = std::mem::take(&mut self.0);
        for worker in &snapshot.workers {
            let mut series = before.remove(&id(worker)).unwrap_or_default();
            series.add(worker, elapsed.as_secs_f64());
            self.0.insert(id(worker), series);
        }
    }

    /// What is known of this worker.
    pub fn of(&self, worker: &WorkerStatus) -> Option<&Series> {
        self.0.get(&id(worker))
    }

    /// The highest rate of any worker, in connections per second.
    pub fn highest(&self) -> f64 {
        let rates = self.0.values().flat_map(|series| &series.rates);
        rates.copied().fold(0.0, f64::max)
    }

    /// Connections per second of all workers together; `None` where none is known.
    pub fn rate(&self) -> Option<f64> {
        self.0
            .values()
            .filter_map(Series::rate)
            .reduce(|a, b| a + b)
    }
}

impl Series {
    fn add(&mut self, worker: &WorkerStatus, seconds: f64) {
        let Self {
            connections_total,
            cpu_seconds,
            cpu_percent,
            rates,
        } = self;
        if seconds > 0.0 {
            if let (Some(before), Some(now)) = (*connections_total, worker.connections_total) {
                // A launcher that started anew counts from zero.
                rates.push_back(now.saturating_sub(before) as f64 / seconds);
                rates.drain(..rates.len().saturating_sub(RATES));
            }
            *cpu_percent = (*cpu_seconds)
                .zip(worker.cpu_seconds)
                .map(|(before, now)| (now - before).max(0.0) / seconds * 100.0);
        }
        *connections_total = worker.connections_total;
        *cpu_seconds = worker.cpu_seconds;
    }

    /// CPU time between the last two snapshots, in per cent of one CPU.
    pub fn cpu_percent(&self) -> Option<f64> {
        self.cpu_percent
    }

    /// Connections per second between the last two snapshots.
    pub fn rate(&self) -> Option<f64> {
        self.rates.back().copied()
    }

    /// The rates so far, the oldest first.
    pub fn rates(&self) -> impl ExactSizeIterator<Item = f64> {
        self.rates.iter().copied()
    }
}

fn id(worker: &WorkerStatus) -> WorkerId {
    WorkerId {
        slot: worker.slot,
        generation: worker.generation,
    }
}
