//! When a failed slot is tried again, and when trying has no sense any more.

use std::{collections::VecDeque, time::Duration};

/// The restart rules. A failure of a worker that had been healthy (ready, or running for long
/// without listening) is an accident, and answered at once, until there are too many of them; that
/// of one that never was is likely to repeat itself, and answered ever more slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The delay after an accident: there is one worker less as long as it lasts, and the others
    /// have its share. Not 0, so that a fleet that is killed as a whole is seen to be.
    pub accident: Duration,
    /// The shortest delay otherwise: long enough not to burn a CPU on what fails at once, short
    /// enough not to be missed.
    pub first: Duration,
    /// What the doubling stops at, jitter aside: how long somebody who has just repaired the cause
    /// waits at most.
    pub longest: Duration,
    /// How many failures within `window` are answered after `accident`, as long as the workers
    /// become healthy in between. Some servers crash on a bad request; a client that repeats it shall
    /// have to work for it.
    pub burst: usize,
    /// The length of the sliding window. A worker that was healthy for as long clears its slot's
    /// failures.
    pub window: Duration,
    /// Failures in a row of one slot after which a fleet that was never healthy gives up.
    pub give_up_after: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accident: Duration::from_millis(10),
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            burst: 10,
            window: Duration::from_mins(1),
            give_up_after: 5,
        }
    }
}

impl Settings {
    /// `first`, doubled so often.
    fn delay(&self, doublings: u32) -> Duration {
        // More doublings than 31 wouldn't fit the factor, and are past any `longest` long before.
        let factor = 1 << doublings.min(31);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// The failures of one slot, as far as they matter to the next delay.
#[derive(Clone, Debug, Default)]
pub(super) struct Failures {
    /// When the last ones were, within the window; no more than the burst and one.
    recent: VecDeque<Duration>,
    /// How many in a row never became healthy.
    in_a_row: u32,
    /// How many came after the burst was used up.
    excess: u32,
}

impl Failures {
    /// Counts a failure of a worker that was healthy for `healthy_for`, if it ever was. Returns
    /// the delay until the next try, without jitter.
    pub(super) fn count(
        &mut self,
        now: Duration,
        healthy_for: Option<Duration>,
        settings: &Settings,
    ) -> Duration {
        if healthy_for.is_some_and(|healthy| healthy >= settings.window) {
            *self = Self::default();
        }
        self.in_a_row = match healthy_for {
            Some(_) => 0,
            None => self.in_a_row.saturating_add(1),
        };
        self.recent
            .retain(|at| now.saturating_sub(*at) < settings.window);
        self.recent.push_back(now);
        // Once begun, the doubling goes on: the delays themselves would empty the window.
        if self.excess > 0 || self.recent.len() > settings.burst {
            self.excess = self.excess.saturating_add(1);
            self.recent.pop_front();
        }
        if self.excess == 0 && self.in_a_row == 0 {
            return settings.accident;
        }
        settings.delay(self.excess.max(self.in_a_row.saturating_sub(1)))
    }

    /// Failures in a row without a healthy worker.
    pub(super) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

/// The jitter of delays: workers that fell together don't rise together. A seeded splitmix64, so
/// that a simulated run can be repeated.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `delay` ± so many percent, at most 100.
    pub(super) fn spread(&mut self, delay: Duration, percent: u16) -> Duration {
        let width = u64::from(percent.min(100)) * 10;
        let permille = 1000 - width + self.next() % (2 * width + 1);
        // At most 2000.
        (delay / 1000).saturating_mul(permille as u32)
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

    /// The delays of failures that come so long after each other.
    fn delays(count: usize, every: Duration, healthy_for: Option<Duration>) -> Vec<u128> {
        let settings = Settings::default();
        let mut failures = Failures::default();
        (1..=count as u32)
            .map(|index| failures.count(every * index, healthy_for, &settings))
            .map(|delay| delay.as_millis())
            .collect()
    }

    #[test]
    fn workers_that_never_become_healthy_double_the_delay_up_to_its_limit() {
        let delays = delays(40, Duration::from_secs(31), None);
        assert_eq!(delays[..4], [100, 200, 400, 800]);
        assert_eq!(delays[8..11], [25_600, 30_000, 30_000]);
        assert_eq!(delays[39], 30_000);
    }

    #[test]
    fn ten_accidents_in_a_minute_are_free_and_the_next_ones_double_the_delay() {
        let delays = delays(
            25,
            Duration::from_millis(5_500),
            Some(Duration::from_secs(1)),
        );
        assert_eq!(delays[..10], [10; 10]);
        assert_eq!(delays[10..13], [200, 400, 800], "the window is full");
        assert_eq!(delays[24], 30_000);
    }

    #[test]
    fn rare_accidents_stay_free() {
        let delays = delays(50, Duration::from_secs(6), Some(Duration::from_secs(5)));
        assert_eq!(delays, [10; 50]);
    }

    #[test]
    fn the_doubling_ends_with_a_worker_that_was_healthy_for_the_whole_window() {
        let settings = Settings::default();
        let mut failures = Failures::default();
        let mut count = |at, healthy_for: u64| {
            let healthy_for = Some(Duration::from_secs(healthy_for));
            failures
                .count(Duration::from_secs(at), healthy_for, &settings)
                .as_millis()
        };
        for at in 0..12 {
            count(at, 0);
        }
        assert_eq!(count(100, 59), 800, "an empty window is not enough");
        assert_eq!(count(200, 60), 10);
        assert_eq!(count(201, 0), 10);
    }

    #[test]
    fn becoming_healthy_ends_the_row() {
        let settings = Settings::default();
        let mut failures = Failures::default();
        for at in 0..4 {
            failures.count(Duration::from_secs(at), None, &settings);
        }
        assert_eq!(failures.in_a_row(), 4);
        let delay = failures.count(Duration::from_secs(5), Some(Duration::ZERO), &settings);
        assert_eq!((delay, failures.in_a_row()), (settings.accident, 0));
    }

    #[test]
    fn the_jitter_stays_within_its_limits_and_uses_them() {
        for (percent, least, most) in [(20, 800, 1200), (10, 900, 1100), (0, 1000, 1000)] {
            let mut jitter = Jitter::new(7);
            let delays: Vec<u128> = (0..10_000)
                .map(|_| jitter.spread(Duration::from_secs(1), percent).as_millis())
                .collect();
            assert_eq!(delays.iter().min(), Some(&least));
            assert_eq!(delays.iter().max(), Some(&most));
        }
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The reference implementation's first values for seed 1234567.
        let mut jitter = Jitter::new(1_234_567);
        assert_eq!(jitter.next(), 6_457_827_717_110_365_317);
        assert_eq!(jitter.next(), 3_203_168_211_198_807_973);
    }
}
