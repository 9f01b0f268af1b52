//! What is counted, thread by thread.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::lost::Lost;
use crate::{
    bench::{
        latency,
        model::{Errors, LoadResult},
    },
    failure::Failure,
};

/// What a thread has counted.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) errors: Errors,
    /// That carried a request that is counted.
    pub(super) connections: u64,
    pub(super) by_worker: Vec<u64>,
    latency: Histogram<u64>,
    late: Histogram<u64>,
    /// CPU time from the first request that is counted to the end of the last.
    pub(super) cpu: Duration,
    /// The share of the counted time that the thread was on a CPU.
    pub(super) busy: f64,
}

impl Tally {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            sent: 0,
            answered: 0,
            errors: Errors::default(),
            connections: 0,
            by_worker: Vec::new(),
            latency: latency::histogram()?,
            late: latency::histogram()?,
            cpu: Duration::ZERO,
            busy: 0.0,
        })
    }

    pub(super) fn answered(&mut self, took: Duration, worker: Option<usize>) {
        self.answered += 1;
        self.latency.saturating_record(nanoseconds(took));
        if let Some(worker) = worker {
            if self.by_worker.len() <= worker {
                self.by_worker.resize(worker + 1, 0);
            }
            if let Some(count) = self.by_worker.get_mut(worker) {
                *count += 1;
            }
        }
    }

    pub(super) fn lost(&mut self, kind: Lost) {
        kind.count(&mut self.errors);
    }

    pub(super) fn late(&mut self, by: Duration) {
        self.late.saturating_record(nanoseconds(by));
    }

    /// Adds another thread's.
    ///
    /// # Errors
    /// Never: all histograms have the same bounds.
    pub(super) fn join(&mut self, other: &Self) -> Result<(), Failure> {
        let Self {
            sent,
            answered,
            errors,
            connections,
            by_worker,
            latency,
            late,
            cpu,
            busy,
        } = other;
        self.sent += sent;
        self.answered += answered;
        self.errors += *errors;
        self.connections += connections;
        let workers = self.by_worker.len().max(by_worker.len());
        self.by_worker.resize(workers, 0);
        for (sum, count) in self.by_worker.iter_mut().zip(by_worker) {
            *sum += count;
        }
        for (sum, other) in [(&mut self.latency, latency), (&mut self.late, late)] {
            sum.add(other).map_err(|error| {
                Failure::new(
                    "cannot add latencies",
                    error,
                    "this is a fault of the program: report it",
                )
            })?;
        }
        self.cpu += *cpu;
        self.busy = self.busy.max(*busy);
        Ok(())
    }

    /// What all threads together found.
    pub(super) fn result(self, counted: Duration) -> LoadResult {
        LoadResult {
            seconds: counted.as_secs_f64(),
            sent: self.sent,
            answered: self.answered,
            errors: self.errors,
            connections: self.connections,
            latency: latency::encode(&self.latency),
            by_worker: self.by_worker,
            cpu_seconds: self.cpu.as_secs_f64(),
            busiest_thread: self.busy,
            // An empty histogram has 0.
            late_p99: self.late.value_at_quantile(0.99),
        }
    }
}

/// Longer ones than a `u64` holds are as good as the longest.
fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}
