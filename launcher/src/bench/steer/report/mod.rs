//! PURE. From figures to the tables that are printed: medians, the range they come from, and whether
//! the goals are met. At most 100 columns.

mod decisions;
mod evenness;
mod rates;
mod turns;

pub(super) use self::{
    decisions::decisions,
    evenness::dealt,
    rates::comparisons,
    turns::{costs, turns},
};

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
fn spread(by_slot: &[u64], workers: usize) -> f64 {
    let most = by_slot.iter().max().copied().unwrap_or(0);
    most as f64 * workers as f64 / by_slot.iter().sum::<u64>() as f64
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
}
