//! Connections per second with the program selecting, and with the kernel's own hash.
//!
//! All launchers run at the same time and are loaded by turns (A B C, C B A, …), so that whatever
//! else the machine does meets all alike. Those that are not loaded sleep.
//!
//! `hash` spreads connections as unevenly as the kernel does, so its ratio is the price of the
//! program. The others' include what another spread changes, which is why the workers' context
//! switches are shown beside them; `least-conn`'s includes the counting of connections.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{
    Bench,
    launched::{self, Launched},
    load::{self, Tally, Until},
};
use crate::{observe::GroupStatus, policy::Policy};

/// Load that is not measured: caches, tables and the CPU's clock come up to speed.
const WARM_UP: Duration = Duration::from_millis(500);

/// What was measured with one number of workers.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) workers: u32,
    /// What the others are compared with.
    pub(super) kernel: Side,
    pub(super) steered: Vec<Side>,
}

/// What was measured of one launcher.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) policy: Policy,
    /// Connections per second, by round.
    pub(super) rates: Vec<f64>,
    /// All connections, the warm-up's too.
    pub(super) total: Tally,
    /// The workers' context switches meanwhile.
    pub(super) switches: u64,
    /// What the launcher shows of the shared port at the end.
    pub(super) group: GroupStatus,
}

/// Loads launchers of so many workers by turns.
pub(super) fn measure(bench: &Bench, workers: u32) -> Result<Comparison> {
    let mut kernel = Running::start(bench, Policy::Kernel, workers)?;
    let mut steered = Vec::new();
    for policy in bench.options.steering() {
        steered.push(Running::start(bench, policy, workers)?);
    }
    for round in 0..bench.options.rounds {
        let mut order: Vec<_> = [&mut kernel].into_iter().chain(&mut steered).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            let rate = side.load(bench, bench.options.seconds)?;
            side.rates.push(rate);
        }
    }
    Ok(Comparison {
        workers,
        kernel: kernel.finish()?,
        steered: steered
            .into_iter()
            .map(Running::finish)
            .collect::<Result<_>>()?,
    })
}

struct Running {
    policy: Policy,
    launched: Launched,
    rates: Vec<f64>,
    total: Tally,
}

impl Running {
    fn start(bench: &Bench, policy: Policy, workers: u32) -> Result<Self> {
        bench.interrupt.check()?;
        let mut running = Self {
            policy,
            launched: launched::start(policy, workers, bench.runtime_dir.path())?,
            rates: Vec::new(),
            total: Tally::default(),
        };
        running.load(bench, WARM_UP)?;
        Ok(running)
    }

    /// Returns the connections per second.
    fn load(&mut self, bench: &Bench, duration: Duration) -> Result<f64> {
        let (tally, took) = load::drive(bench, self.launched.address()?, Until::Elapsed(duration));
        bench.interrupt.check()?;
        self.total.join(&tally);
        Ok(tally.completed() as f64 / took.as_secs_f64())
    }

    fn finish(self) -> Result<Side> {
        let Self {
            policy,
            launched,
            rates,
            total,
        } = self;
        // Another may be where a launcher of this name listened before.
        let mut groups = launched.snapshot()?.groups.into_iter();
        let group = groups.find(|group| group.members > 0);
        Ok(Side {
            policy,
            rates,
            total,
            switches: launched.context_switches()?,
            group: group.context("a launcher lost its port while it was measured")?,
        })
    }
}
