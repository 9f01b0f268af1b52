//! Smooth weighted round-robin, nginx's algorithm: over one period each member appears exactly as
//! often as its weight says, and as evenly spread as the weights allow.

use launcher_common::ENTRIES_MAX;

use super::Weighted;

/// One period of the round: Σ weights ÷ their greatest common divisor entries, and where that is
/// more than [`ENTRIES_MAX`], the nearest weights that fit, none below 1.
///
/// The members are distinct, at most `MEMBERS_MAX` and have a weight.
pub(super) fn build(members: &[Weighted]) -> Vec<u16> {
    let weights = fit(members);
    let total: i64 = weights.iter().sum();
    let mut credits = vec![0i64; members.len()];
    let mut entries = Vec::with_capacity(total as usize);
    for _ in 0..total {
        let mut best = 0;
        for (index, weight) in weights.iter().enumerate() {
            credits[index] += weight;
            if credits[index] > credits[best] {
                best = index;
            }
        }
        credits[best] -= total;
        entries.push(members[best].member);
    }
    entries
}

/// The members' weights in lowest terms, scaled so that their sum is at most [`ENTRIES_MAX`].
fn fit(members: &[Weighted]) -> Vec<i64> {
    let weights = reduce(
        members
            .iter()
            .map(|member| i64::from(member.weight))
            .collect(),
    );
    let total: i64 = weights.iter().sum();
    if total <= ENTRIES_MAX as i64 {
        return weights;
    }
    // Rounding, or raising 0 to 1, adds at most 1 to each: kept free, so that the sum fits.
    let space = (ENTRIES_MAX - members.len()) as i64;
    reduce(
        weights
            .iter()
            .map(|weight| ((weight * space + total / 2) / total).max(1))
            .collect(),
    )
}

/// Divides `weights` by their greatest common divisor.
fn reduce(mut weights: Vec<i64>) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    for weight in &mut weights {
        *weight /= divisor;
    }
    weights
}

fn greatest_common_divisor(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
