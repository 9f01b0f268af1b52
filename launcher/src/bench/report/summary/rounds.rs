//! From the rounds of a mode under a load to its figures.

use hdrhistogram::Histogram;

use super::{Cpu, Latency, ModeSummary, REQUESTS};
use crate::bench::{
    latency,
    model::{Errors, Measured, ModeResult, Round},
    stats::{Better, Spread, compare, interval, median, spread},
};

/// All latencies under a load, of all rounds together. None where nothing was answered.
pub(in crate::bench::report) fn merged(measured: &Measured) -> Option<Histogram<u64>> {
    // It grows: the greatest of the rounds need not be in the first.
    let mut all = Histogram::new(3).ok()?;
    for round in measured.rounds.iter().filter_map(histogram) {
        all.add(round).ok()?;
    }
    (!all.is_empty()).then_some(all)
}

fn histogram(round: &Round) -> Option<Histogram<u64>> {
    let histogram = latency::decode(&round.load.latency).ok()?;
    (!histogram.is_empty()).then_some(histogram)
}

/// What one round comes to. Not a number where it comes to nothing.
pub(super) struct Figures {
    round: u32,
    rate: f64,
    quantiles: [f64; 4],
    max: u64,
    workers_cpu: f64,
    dispatcher_cpu: f64,
    generator_cpu: f64,
    switches: f64,
}

impl Figures {
    pub(super) fn all(rounds: &[Round]) -> Vec<Self> {
        rounds.iter().map(Self::of).collect()
    }

    fn of(round: &Round) -> Self {
        let Round { load, usage, .. } = round;
        let histogram = histogram(round);
        let quantile = |quantile: f64| match &histogram {
            Some(histogram) => histogram.value_at_quantile(quantile) as f64,
            None => f64::NAN,
        };
        let answered = load.answered as f64;
        Self {
            round: round.round,
            rate: load.answered as f64 / load.seconds,
            quantiles: [0.5, 0.9, 0.99, 0.999].map(quantile),
            max: histogram.as_ref().map_or(0, Histogram::max),
            workers_cpu: usage.workers_cpu / answered * REQUESTS,
            dispatcher_cpu: usage.dispatcher_cpu / answered * REQUESTS,
            generator_cpu: load.cpu_seconds / answered * REQUESTS,
            switches: usage.switches as f64 / answered,
        }
    }
}

impl ModeSummary {
    pub(super) fn of(mode: &ModeResult, measured: &Measured, baseline: &[Figures]) -> Self {
        let rounds = &measured.rounds;
        let figures = Figures::all(rounds);
        let middle =
            |of: &dyn Fn(&Figures) -> f64| median(&figures.iter().map(of).collect::<Vec<f64>>());
        let against = |better, of: &dyn Fn(&Figures) -> f64| {
            let same = |round| baseline.iter().find(|it| it.round == round);
            let pairs: Vec<(f64, f64)> = figures
                .iter()
                .filter_map(|it| Some((of(it), of(same(it.round)?))))
                .collect();
            compare(&pairs, better)
        };
        let sum = |of: &dyn Fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
        let mut errors = Errors::default();
        rounds.iter().for_each(|round| errors += round.load.errors);
        let disturbed = rounds.iter().map(|round| round.disturbed).sum();
        Self {
            mode: mode.mode.clone(),
            rounds: rounds.len() as u32,
            rate: middle(&|it| it.rate).unwrap_or_default(),
            rate_interval: interval(&figures.iter().map(|it| it.rate).collect::<Vec<f64>>()),
            rate_ratio: against(Better::More, &|it| it.rate),
            carried: measured.offered.and_then(|offered| {
                let rate = middle(&|it| it.rate)?;
                (offered > 0.0).then_some(rate / offered)
            }),
            latency: latencies(&figures, &middle),
            p99_ratio: against(Better::Less, &|it| it.quantiles[2]),
            sent: sum(&|round| round.load.sent),
            errors,
            disturbed,
            failed_per_disturbance: (disturbed > 0)
                .then(|| errors.total() as f64 / f64::from(disturbed)),
            spread: spread_of(rounds, mode.workers as usize),
            cpu: cpu(&middle),
            cpu_ratio: against(Better::Less, &|it| it.workers_cpu + it.dispatcher_cpu),
            switches: middle(&|it| it.switches),
            listen_overflows: sum(&|round| round.usage.listen_overflows),
            listen_drops: sum(&|round| round.usage.listen_drops),
            generator_limited: rounds.iter().filter(|it| it.generator_limited).count() as u32,
        }
    }
}

type Middle<'a> = dyn Fn(&dyn Fn(&Figures) -> f64) -> Option<f64> + 'a;

fn latencies(figures: &[Figures], middle: &Middle<'_>) -> Option<Latency> {
    Some(Latency {
        p50: middle(&|it| it.quantiles[0])?,
        p90: middle(&|it| it.quantiles[1])?,
        p99: middle(&|it| it.quantiles[2])?,
        p999: middle(&|it| it.quantiles[3])?,
        max: figures.iter().map(|it| it.max).max()?,
    })
}

fn cpu(middle: &Middle<'_>) -> Option<Cpu> {
    Some(Cpu {
        workers: middle(&|it| it.workers_cpu)?,
        dispatcher: middle(&|it| it.dispatcher_cpu)?,
        generator: middle(&|it| it.generator_cpu)?,
    })
}

/// Medians over the rounds. What the answers themselves say goes before what the server counted: it is
/// of the counted time alone.
fn spread_of(rounds: &[Round], workers: usize) -> Option<Spread> {
    let spreads: Vec<Spread> = rounds
        .iter()
        .filter_map(|round| {
            let said = Some(&round.load.by_worker).filter(|counts| !counts.is_empty());
            let mut counts = said.or(round.usage.by_worker.as_ref())?.clone();
            // Those at the end may have got nothing, and so said nothing.
            counts.resize(counts.len().max(workers), 0);
            spread(&counts)
        })
        .collect();
    let middle =
        |of: &dyn Fn(&Spread) -> f64| median(&spreads.iter().map(of).collect::<Vec<f64>>());
    Some(Spread {
        max_over_mean: middle(&|it| it.max_over_mean)?,
        variation: middle(&|it| it.variation)?,
        jain: middle(&|it| it.jain)?,
    })
}
