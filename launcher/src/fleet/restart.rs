//! When a failed slot is tried again, and when trying has no sense any more.

use std::time::Duration;

/// The restart rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The delay after the first failure; it doubles with each further one in a row.
    pub first: Duration,
    /// What the doubling stops at. Jitter comes on top.
    pub longest: Duration,
    /// A worker that was healthy for so long clears its slot's failures.
    pub reset_after: Duration,
    /// Failures in a row of one slot after which a fleet that was never healthy gives up.
    pub give_up_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            reset_after: Duration::from_secs(30),
            give_up_after: 5,
        }
    }
}

impl Settings {
    /// The delay after this many failures in a row (from 1), without jitter.
    pub fn delay(&self, failures: u32) -> Duration {
        // More doublings than 2^31 wouldn't fit the factor, and are past any `longest` long before.
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

/// The jitter of the delays: workers that fell together don't rise together. A seeded splitmix64,
/// so that a simulated run can be repeated.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `delay` ±20 %.
    pub(super) fn spread(&mut self, delay: Duration) -> Duration {
        let permille = 800 + (self.next() % 401) as u32;
        (delay / 1000).saturating_mul(permille)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_limit() {
        let settings = Settings::default();
        let millis = |failures| settings.delay(failures).as_millis();
        assert_eq!([1, 2, 3, 9].map(millis), [100, 200, 400, 25_600]);
        assert_eq!([10, 32, 33, u32::MAX].map(millis), [30_000; 4]);
    }

    #[test]
    fn the_jitter_stays_within_a_fifth_and_uses_it() {
        let mut jitter = Jitter::new(7);
        let delays: Vec<u128> = (0..10_000)
            .map(|_| jitter.spread(Duration::from_secs(1)).as_millis())
            .collect();
        assert_eq!(delays.iter().min(), Some(&800));
        assert_eq!(delays.iter().max(), Some(&1200));
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The reference implementation's first values for seed 1234567.
        let mut jitter = Jitter::new(1_234_567);
        assert_eq!(jitter.next(), 6_457_827_717_110_365_317);
        assert_eq!(jitter.next(), 3_203_168_211_198_807_973);
    }
}
