//! PURE. From figures to the table that is printed: medians, the range they come from, and whether
//! the goal is met.

use super::{
    comparison::{Comparison, Side},
    decision::Decisions,
};
use crate::policy::Policy;

/// The least that round-robin may reach of the kernel's rate.
const RATIO_GOAL: f64 = 0.98;

/// The most that a decision may cost, in nanoseconds, beyond an empty program.
const DECISION_GOAL: f64 = 80.0;

/// The table of connections per second; at most 100 columns.
pub(super) fn comparisons(comparisons: &[Comparison]) -> String {
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
            let ratios = paired(&side.rates, &kernel.rates, |side, kernel| side / kernel);
            let (ratio, verdict) = match side.policy {
                Policy::Kernel => (String::new(), ""),
                _ => (ranged(&ratios, 3), verdict(median(&ratios) >= RATIO_GOAL)),
            };
            text += &format!(
                "{workers:>7}  {:<11}  {:>6.0}/s  {ratio:<21}  {verdict:<11}  {:>8.2}  {:>8.2}  {:>6}\n",
                side.policy,
                median(&side.rates),
                spread(&side.total.by_slot, *workers),
                side.switches as f64 / side.total.completed() as f64,
                side.total.failed,
            );
        }
    }
    for Comparison {
        workers,
        kernel: _,
        steered,
    } in comparisons
    {
        for Side {
            policy,
            total,
            group,
            ..
        } in steered
        {
            text += &format!(
                "{workers} workers, {policy}: the program chose {} times for {} connections; {} fell through\n",
                group.selected_total.unwrap_or(0),
                total.completed() + total.failed,
                group.fell_through_total.unwrap_or(0),
            );
        }
    }
    text
}

/// The table of nanoseconds per decision; at most 100 columns.
pub(super) fn decisions(decisions: &[Decisions]) -> String {
    let mut text = format!(
        "{:>7}  {:<11}  {:>8}  {:>8}  {:<21}  goal ≤ {DECISION_GOAL}\n",
        "members", "policy", "empty", "gross", "net of empty",
    );
    for Decisions {
        members,
        empty,
        round_robin,
        hash,
    } in decisions
    {
        for (policy, gross) in [(Policy::RoundRobin, round_robin), (Policy::Hash, hash)] {
            let net = paired(gross, empty, |gross, empty| gross - empty);
            text += &format!(
                "{members:>7}  {policy:<11}  {:>5.1} ns  {:>5.1} ns  {:<21}  {}\n",
                median(empty),
                median(gross),
                ranged(&net, 1),
                verdict(median(&net) <= DECISION_GOAL),
            );
        }
    }
    text
}

fn paired(a: &[f64], b: &[f64], with: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| with(a, b)).collect()
}

/// The middle value, or the mean of the two in the middle; not a number when there is none.
fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => f64::NAN,
        len => f64::midpoint(sorted[(len - 1) / 2], sorted[len / 2]),
    }
}

/// `0.993 (0.981–1.004)`: the median, and what the middle half of the values lies between. (The
/// extremes are whatever else the machine did.)
fn ranged(values: &[f64], decimals: usize) -> String {
    let sorted = sorted(values);
    let cut = sorted.len() / 4;
    let middle = &sorted[cut..sorted.len() - cut];
    let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
    let (least, greatest) = (end(middle.first()), end(middle.last()));
    let median = median(values);
    format!("{median:.decimals$} ({least:.decimals$}–{greatest:.decimals$})")
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The busiest worker's connections over the mean.
fn spread(by_slot: &[u64], workers: u32) -> f64 {
    let most = by_slot.iter().max().copied().unwrap_or(0);
    most as f64 * f64::from(workers) / by_slot.iter().sum::<u64>() as f64
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "NOT met" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_range_leaves_a_quarter_out_at_each_end() {
        assert_eq!(ranged(&[1.25, 0.5, 2.0], 2), "1.25 (0.50–2.00)");
        assert_eq!(ranged(&[9.0, 1.0, 2.0, -9.0], 1), "1.5 (1.0–2.0)");
    }

    #[test]
    fn workers_without_connections_count_in_the_spread() {
        assert_eq!(spread(&[10, 10], 4), 2.0);
    }

    #[test]
    fn the_tables_fit_100_columns() {
        let measured = Decisions {
            members: 8,
            empty: vec![85.0],
            round_robin: vec![160.0, 180.0],
            hash: vec![1000.0],
        };
        let text = decisions(&[measured]);
        assert!(
            text.contains("75.0 (75.0–75.0)") && text.contains("NOT met"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
    }
}
