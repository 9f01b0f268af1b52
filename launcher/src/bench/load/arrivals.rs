//! When requests of the open pace are due.

use std::time::Duration;

use launcher_common::mix;

/// Poisson arrivals: the gaps between them are exponentially distributed, and the same for the same
/// seed.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    /// Per second.
    rate: f64,
    /// Of the next gap's chance.
    seed: u64,
    /// Seconds from the start to the arrival before.
    last: f64,
}

impl Arrivals {
    /// `rate` a second, above 0.
    pub(super) fn new(rate: f64, seed: u64) -> Self {
        Self {
            rate,
            // Seeds that follow each other must not give sequences that overlap.
            seed: mix(seed),
            last: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    /// The next one, from the start on. There is always one.
    fn next(&mut self) -> Option<Duration> {
        self.seed = self.seed.wrapping_add(1);
        // The upper 53 bits, as many as the number holds: below 1.
        let chance = (mix(self.seed) >> 11) as f64 / (1_u64 << 53) as f64;
        self.last += -(1.0 - chance).ln() / self.rate;
        Duration::try_from_secs_f64(self.last).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(rate: f64, seed: u64, count: usize) -> Vec<f64> {
        let mut last = 0.0;
        let arrivals = Arrivals::new(rate, seed).take(count);
        arrivals
            .map(|at| at.as_secs_f64() - std::mem::replace(&mut last, at.as_secs_f64()))
            .collect()
    }

    #[test]
    fn gaps_are_exponential() {
        const COUNT: usize = 200_000;
        for seed in [0, 1, u64::MAX] {
            let gaps = gaps(2000.0, seed, COUNT);
            let mean = gaps.iter().sum::<f64>() / COUNT as f64;
            assert!((mean * 2000.0 - 1.0).abs() < 0.01, "{mean}");
            let square = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / COUNT as f64;
            let variation = square.sqrt() / mean;
            assert!((variation - 1.0).abs() < 0.02, "{variation}");
            // Of an exponential distribution, this share is longer than so many means.
            for means in [0.1, 0.5, 1.0, 2.0, 4.0] {
                let longer = gaps.iter().filter(|&&gap| gap > means * mean).count();
                let share = longer as f64 / COUNT as f64;
                let expected = (-means).exp();
                assert!((share - expected).abs() < 0.005, "{means}: {share}");
            }
        }
    }

    #[test]
    fn gaps_do_not_follow_from_each_other() {
        let gaps = gaps(1.0, 7, 100_000);
        let pairs = gaps.iter().zip(&gaps[1..]);
        let together = pairs.map(|(a, b)| (a - 1.0) * (b - 1.0)).sum::<f64>();
        let correlation = together / gaps.len() as f64;
        assert!(correlation.abs() < 0.02, "{correlation}");
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(gaps(10.0, 3, 100), gaps(10.0, 3, 100));
        let [one, other] = [3, 4].map(|seed| gaps(10.0, seed, 100));
        let same = one.iter().filter(|gap| other.contains(gap)).count();
        assert_eq!(same, 0);
    }
}
