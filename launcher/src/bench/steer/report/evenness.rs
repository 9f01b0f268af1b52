//! How connections were dealt out.

use super::spread;
use crate::bench::steer::evenness::Dealt;

/// The table.
pub(in crate::bench::steer) fn dealt(dealt: &[Dealt]) -> String {
    let mut text = format!(
        "{:>7}  {:<11}  {:>11}  {:>8}  {:>9}  {:>6}  {:>6}  {}\n",
        "workers", "policy", "connections", "max/mean", "variation", "least", "most", "failed"
    );
    for Dealt {
        policy,
        workers,
        by_slot,
        failed,
    } in dealt
    {
        let workers = usize::from(*workers);
        // A worker without a connection may be missing.
        let unused = workers.saturating_sub(by_slot.len());
        let all = || by_slot.iter().copied().chain(vec![0; unused]);
        text += &format!(
            "{workers:>7}  {policy:<11}  {:>11}  {:>8.2}  {:>9.3}  {:>6}  {:>6}  {failed:>6}\n",
            all().sum::<u64>(),
            spread(by_slot, workers),
            variation(all()),
            all().min().unwrap_or_default(),
            all().max().unwrap_or_default(),
        );
    }
    text
}

/// The coefficient of variation: the standard deviation over the mean.
fn variation(counts: impl Iterator<Item = u64> + Clone) -> f64 {
    let len = counts.clone().count() as f64;
    let mean = counts.clone().sum::<u64>() as f64 / len;
    let squares = counts.map(|count| (count as f64 - mean).powi(2));
    (squares.sum::<f64>() / len).sqrt() / mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn workers_without_a_connection_are_uneven() {
        assert_eq!(variation([2, 2].into_iter()), 0.0);
        assert_eq!(variation([4, 0].into_iter()), 1.0);
        let text = dealt(&[Dealt {
            policy: Policy::Kernel,
            workers: 2,
            by_slot: vec![400],
            failed: 0,
        }]);
        assert!(
            text.contains("400      2.00      1.000       0     400"),
            "{text}"
        );
    }
}
