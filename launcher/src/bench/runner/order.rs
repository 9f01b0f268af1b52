//! In which order modes are measured, when workers are disturbed, and how many rounds there is time for.

use std::time::Duration;

/// The order of so many modes in a round, from 1. Each mode is the first one equally often, and comes
/// after others in other rounds: the round says with which mode to begin, and how many to go on by each
/// time.
pub(super) fn order(modes: usize, round: u32) -> Vec<usize> {
    // A step that has no divisor in common with their number comes to all of them.
    let steps = (1..=modes).filter(|&step| common_divisor(step, modes) == 1);
    let steps: Vec<usize> = steps.collect();
    let round = round as usize;
    let step = steps.get(round % steps.len().max(1)).copied().unwrap_or(1);
    (0..modes)
        .map(|turn| (round + turn * step) % modes)
        .collect()
}

/// The greatest one (Euclid).
fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
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
    use std::collections::BTreeSet;

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
    }

    #[test]
    fn each_mode_is_the_first_one_equally_often_and_comes_after_several_others() {
        let mut first = [0; 8];
        let mut before_the_last = BTreeSet::new();
        for round in 1..=16 {
            let order = order(8, round);
            first[order[0]] += 1;
            let place = order.iter().position(|&mode| mode == 7).unwrap();
            before_the_last.extend(place.checked_sub(1).map(|place| order[place]));
        }
        assert_eq!(first, [2; 8]);
        assert_eq!(before_the_last, BTreeSet::from([0, 2, 4, 6]));
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
