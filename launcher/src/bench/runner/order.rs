//! In which order modes are measured, when workers are disturbed, and how many rounds there is time for.

use std::time::Duration;

/// The order of so many modes in a round, from 1. It is as good as random, so that none is always
/// measured after the same other one, and the same in each run.
pub(super) fn order(modes: usize, round: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..modes).collect();
    let mut chance = u64::from(round);
    for last in (1..modes).rev() {
        let other = mixed(&mut chance) % (last as u64 + 1);
        order.swap(last, other as usize);
    }
    order
}

/// The next number of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// When workers are disturbed in a measurement of `seconds`: about `every` so many seconds and at least
/// once, evenly spread, and as far from the end as from the beginning.
pub(super) fn disturbances(seconds: f64, every: f64) -> Vec<Duration> {
    let count = (seconds / every).floor().max(1.0);
    (0..count as u32)
        .map(|number| Duration::from_secs_f64((f64::from(number) + 0.5) * seconds / count))
        .collect()
}

/// What the rounds of both parts (the peak, and the loads) take, and what there is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// All that there is; none: as long as it takes.
    pub(super) limit: Option<Duration>,
    /// How much longer a round of the second part takes than one of the first.
    pub(super) longer: Duration,
}

impl Budget {
    /// Whether there is time for another round of the first part, and then for as many of the second;
    /// `done` have taken `elapsed`.
    pub(super) fn allows_peak(&self, done: u32, elapsed: Duration) -> bool {
        let Some(limit) = self.limit else { return true };
        if done == 0 {
            return true;
        }
        let round = elapsed / done;
        let all = round * 2 + self.longer;
        all * (done + 1) <= limit
    }

    /// Whether there is time for another round of the second part; `done` of them have taken `taken`,
    /// and all until now `elapsed`.
    pub(super) fn allows_loads(&self, done: u32, taken: Duration, elapsed: Duration) -> bool {
        match self.limit {
            Some(limit) if done > 0 => elapsed + taken / done <= limit,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_each_mode_once_in_an_order_of_its_own() {
        for modes in 0..12 {
            for round in 1..50 {
                let mut modes_of_round = order(modes, round);
                assert_eq!(modes_of_round, order(modes, round));
                modes_of_round.sort_unstable();
                assert!(modes_of_round.into_iter().eq(0..modes));
            }
        }
        // Each is about as often the first: within five standard deviations.
        let mut first = [0_i32; 8];
        for round in 1..=800 {
            first[order(8, round)[0]] += 1;
        }
        assert!(
            first.iter().all(|&times| (times - 100).abs() < 50),
            "{first:?}"
        );
    }

    #[test]
    fn disturbances_are_spread_and_leave_time_at_the_end() {
        let at = |seconds, every| -> Vec<f64> {
            let times = disturbances(seconds, every);
            times.iter().map(Duration::as_secs_f64).collect()
        };
        assert_eq!(at(5.0, 1.0), [0.5, 1.5, 2.5, 3.5, 4.5]);
        assert_eq!(at(5.0, 2.0), [1.25, 3.75]);
        assert_eq!(at(0.3, 1.0), [0.15]);
    }

    #[test]
    fn there_is_always_time_for_one_round() {
        let budget = Budget {
            limit: Some(Duration::from_secs(1)),
            longer: Duration::from_secs(20),
        };
        assert!(budget.allows_peak(0, Duration::ZERO));
        assert!(!budget.allows_peak(1, Duration::from_secs(10)));
        assert!(budget.allows_loads(0, Duration::ZERO, Duration::from_secs(10)));
        let taken = Duration::from_secs(30);
        assert!(!budget.allows_loads(1, taken, Duration::from_secs(40)));
    }

    #[test]
    fn rounds_fit_the_time() {
        let seconds = Duration::from_secs;
        let budget = Budget {
            limit: Some(seconds(160)),
            longer: seconds(20),
        };
        // A round is 10 s for the peak, and 30 s for the loads: four fit.
        let mut done = 0;
        while budget.allows_peak(done, seconds(10) * done) {
            done += 1;
        }
        assert_eq!(done, 4);
        let mut loads = 0;
        while loads < done
            && budget.allows_loads(
                loads,
                seconds(30) * loads,
                seconds(40 + 30 * u64::from(loads)),
            )
        {
            loads += 1;
        }
        assert_eq!(loads, 4);
        let unlimited = Budget {
            limit: None,
            ..budget
        };
        assert!(unlimited.allows_peak(1000, seconds(1 << 20)));
    }
}
