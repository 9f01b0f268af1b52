//! Connections per second.

use super::{median, paired, ranged, spread, verdict};
use crate::{
    bench::steer::comparison::{Comparison, Side},
    policy::Policy,
};

/// The least that a policy may reach of the kernel's rate, unless it needs counts.
const RATIO_GOAL: f64 = 0.98;

/// The least that the policy which needs counts may reach of round-robin's rate: what differs is the
/// counting, and the search.
const COUNTING_GOAL: f64 = 0.97;

/// The table, what the programs counted, and what counting costs.
pub(in crate::bench::steer) fn comparisons(comparisons: &[Comparison]) -> String {
    let mut text = format!(
        "{:>7}  {:<11}  {:>8}  {:<21}  {:<11}  {:>8}  {:>8}  {}\n",
        "workers",
        "policy",
        "rate",
        "ratio to kernel",
        format!("goal ≥ {RATIO_GOAL}"),
        "max/mean",
        "switches",
        "failed"
    );
    for Comparison {
        workers,
        kernel,
        steered,
    } in comparisons
    {
        for side in [kernel].into_iter().chain(steered) {
            text += &row(*workers, side, kernel);
        }
    }
    text.extend(comparisons.iter().map(chosen));
    text.extend(comparisons.iter().filter_map(counting));
    text
}

fn row(workers: u32, side: &Side, kernel: &Side) -> String {
    let ratios = paired(&side.rates, &kernel.rates, |side, kernel| side / kernel);
    let judged = if side.policy == Policy::Kernel {
        ""
    } else if side.policy == Policy::LeastConn {
        "see below"
    } else {
        verdict(median(&ratios) >= RATIO_GOAL)
    };
    let ratio = match side.policy {
        Policy::Kernel => String::new(),
        _ => ranged(&ratios, 3),
    };
    format!(
        "{workers:>7}  {:<11}  {:>6.0}/s  {ratio:<21}  {judged:<11}  {:>8.2}  {:>8.2}  {:>6}\n",
        side.policy,
        median(&side.rates),
        spread(&side.total.by_slot, workers as usize),
        side.switches as f64 / side.total.completed() as f64,
        side.total.failed,
    )
}

/// That the programs have run: what they counted.
fn chosen(comparison: &Comparison) -> String {
    let sides = comparison.steered.iter().map(|side| {
        let Side {
            policy,
            total,
            group,
            ..
        } = side;
        format!(
            "{} workers, {policy}: the program chose {} times for {} connections; {} fell through\n",
            comparison.workers,
            group.selected_total.unwrap_or(0),
            total.completed() + total.failed,
            group.fell_through_total.unwrap_or(0),
        )
    });
    sides.collect()
}

/// What counting costs: the policy that needs it beside one that is as even.
fn counting(comparison: &Comparison) -> Option<String> {
    let of = |policy| {
        let mut sides = comparison.steered.iter();
        sides.find(|side| side.policy == policy)
    };
    let (counting, round_robin) = (of(Policy::LeastConn)?, of(Policy::RoundRobin)?);
    let ratios = paired(&counting.rates, &round_robin.rates, |a, b| a / b);
    Some(format!(
        "{} workers, least-conn over round-robin: {}, goal ≥ {COUNTING_GOAL}: {}\n",
        comparison.workers,
        ranged(&ratios, 3),
        verdict(median(&ratios) >= COUNTING_GOAL)
    ))
}
