//! What a turn costs, and how even turns are, when all CPUs take them from one counter, when each has
//! a cursor of its own, and when only the busy ones have.
//!
//! The kernel runs the programs over and over, so this is the worst that can happen to the counter:
//! between two turns of a CPU lies nothing, where there would be a connection. Evenness is computed,
//! with the code that the programs are made of, for as many CPUs as this machine need not have.

mod simulation;

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::{
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

pub(super) use self::simulation::{Evenness, simulate_all};
use super::Bench;
use crate::steer::measure::{Turns, Way};

/// How long each way is measured in a round.
pub(super) const LENGTH: Duration = Duration::from_millis(50);

/// How many measurements a round has.
pub(super) const MEASURED: u32 = 2 * Way::ALL.len() as u32;

/// Turns for which the kernel is asked at once: a few milliseconds.
const BATCH: u32 = 100_000;

/// What turns cost on so many CPUs at the same time.
#[derive(Debug)]
pub(super) struct Costs {
    pub(super) cpus: usize,
    /// For each way, by round.
    pub(super) ways: Vec<(Way, Vec<Cost>)>,
}

/// What a turn cost in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Nanoseconds of the CPU that took it.
    pub(super) nanoseconds: f64,
    /// Which part of the time each CPU was ours, from 0 to 1: where others took it, fewer CPUs than
    /// were meant had turns at the same time.
    pub(super) ours: f64,
}

/// Measures each way by turns: on one CPU alone, and on all at the same time.
pub(super) fn measure(bench: &Bench) -> Result<[Costs; 2]> {
    let turns = Turns::load()?;
    let affinity = sched_getaffinity(None).context("cannot tell which CPUs there are")?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| affinity.is_set(cpu))
        .collect();
    let mut costs = [&cpus[..1], &cpus].map(|cpus| Costs {
        cpus: cpus.len(),
        ways: Way::ALL.map(|way| (way, Vec::new())).into(),
    });
    for _ in 0..bench.options.rounds {
        for Costs { cpus: count, ways } in &mut costs {
            for (way, costs) in ways {
                let cost = cost(bench, &turns, *way, &cpus[..*count]);
                bench.interrupt.check()?;
                costs.push(cost?);
            }
        }
    }
    Ok(costs)
}

/// What a turn costs each of these CPUs while all of them take turns.
fn cost(bench: &Bench, turns: &Turns, way: Way, cpus: &[usize]) -> Result<Cost> {
    let before = turns.taken()?;
    let together = Barrier::new(cpus.len());
    let on = |cpu| {
        let mut only = CpuSet::new();
        only.set(cpu);
        let pinned = sched_setaffinity(None, &only);
        together.wait();
        pinned.context("cannot choose a CPU")?;
        let (began, start) = (Instant::now(), cpu_time());
        let mut taken: u64 = 0;
        while began.elapsed() < LENGTH && !bench.interrupt.came() {
            turns.take(way, BATCH)?;
            taken += u64::from(BATCH);
        }
        Ok((taken, cpu_time() - start, began.elapsed()))
    };
    let each: Result<Vec<(u64, Duration, Duration)>> = thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .map(|&cpu| scope.spawn(move || on(cpu)))
            .collect();
        let ends = threads.into_iter().map(|thread| thread.join());
        ends.map(|end| end.unwrap_or_else(|_| Err(anyhow!("a thread has panicked"))))
            .collect()
    });
    let each = each?;
    let taken: u64 = each.iter().map(|(taken, ..)| taken).sum();
    let counted = turns.taken()? - before;
    ensure!(
        counted == if way == Way::None { 0 } else { taken },
        "{taken} turns were asked for ({way}), but {counted} were taken"
    );
    let time: Duration = each.iter().map(|(_, time, _)| time).sum();
    let passed: Duration = each.iter().map(|(.., passed)| passed).sum();
    Ok(Cost {
        nanoseconds: time.as_secs_f64() * 1e9 / taken as f64,
        ours: time.as_secs_f64() / passed.as_secs_f64(),
    })
}

/// How long this thread has run.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
