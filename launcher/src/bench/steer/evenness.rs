//! How evenly each policy deals out connections, by the launcher's own count.

use anyhow::{Result, ensure};

use super::{
    Bench, launched,
    load::{self, Until},
};
use crate::policy::Policy;

/// Connections for each worker. Chance alone makes their numbers differ by 1 in √200.
pub(super) const FOR_EACH: u64 = 200;

/// What was dealt out.
#[derive(Debug)]
pub(super) struct Dealt {
    pub(super) policy: Policy,
    pub(super) workers: u16,
    /// Connections by slot.
    pub(super) by_slot: Vec<u64>,
    /// Connections that had no answer.
    pub(super) failed: u64,
}

/// Starts a launcher of so many workers, and counts which of them gets how many connections.
pub(super) fn measure(bench: &Bench, policy: Policy, workers: u16) -> Result<Dealt> {
    bench.interrupt.check()?;
    let launched = launched::start(policy, workers.into(), bench.runtime_dir.path())?;
    let connections = FOR_EACH * u64::from(workers);
    let (tally, _) = load::drive(bench, launched.address()?, Until::Connections(connections));
    bench.interrupt.check()?;
    let by_slot = if policy == Policy::Kernel {
        // Where no program chooses nothing is counted, but each answer tells who gave it.
        tally.by_slot.clone()
    } else {
        let workers = launched.snapshot()?.workers.into_iter();
        let by_slot: Vec<u64> = workers
            .filter_map(|worker| worker.connections_total)
            .collect();
        let (counted, answered) = (by_slot.iter().sum::<u64>(), tally.completed());
        ensure!(
            counted >= answered,
            "{answered} connections were answered under {policy}, but only {counted} counted"
        );
        by_slot
    };
    Ok(Dealt {
        policy,
        workers,
        by_slot,
        failed: tally.failed,
    })
}
