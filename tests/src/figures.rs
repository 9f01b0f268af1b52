//! What a benchmark's rounds come to.

/// The middle value, or the mean of the two in the middle; not a number when there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len => f64::midpoint(sorted[(len - 1) / 2], sorted[len / 2]),
    }
}

/// `0.99 (0.91–1.04)`: the median, the least and the greatest.
#[must_use]
pub fn ranged(values: &[f64], decimals: usize) -> String {
    let least = values.iter().copied().fold(f64::NAN, f64::min);
    let greatest = values.iter().copied().fold(f64::NAN, f64::max);
    let median = median(values);
    format!("{median:.decimals$} ({least:.decimals$}–{greatest:.decimals$})")
}
