//! When the results of health checks change what is thought of a worker.

/// Turns one worker's check results into changes of its health. It begins healthy, falls ill with
/// so many failures in a row, and recovers with the first success: a worker that is out of the
/// table is being replaced anyway, and to fall ill again takes it the whole threshold.
#[derive(Clone, Debug)]
pub struct Thresholds {
    /// Failures in a row that make it unhealthy; at least 1.
    limit: u32,
    /// Failures in a row so far, up to the limit.
    failures: u32,
}

impl Thresholds {
    /// A healthy worker, and the failures in a row (0 counts as 1) that make it unhealthy.
    pub fn new(limit: u32) -> Self {
        Self {
            limit: limit.max(1),
            failures: 0,
        }
    }

    /// Takes the result of a check. Returns whether the worker is healthy, where that changed.
    pub fn result(&mut self, passed: bool) -> Option<bool> {
        let was_healthy = self.is_healthy();
        self.failures = if passed {
            0
        } else {
            self.failures.saturating_add(1).min(self.limit)
        };
        let healthy = self.is_healthy();
        (healthy != was_healthy).then_some(healthy)
    }

    fn is_healthy(&self) -> bool {
        self.failures < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(limit: u32, results: &[bool]) -> Vec<Option<bool>> {
        let mut thresholds = Thresholds::new(limit);
        results
            .iter()
            .map(|passed| thresholds.result(*passed))
            .collect()
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let results = [false, false, true, false, false, false, false];
        let expected = [None, None, None, None, None, Some(false), None];
        assert_eq!(changes(3, &results), expected);
    }

    #[test]
    fn one_success_is_enough_to_recover_and_the_count_starts_anew() {
        let results = [false, false, true, true, false, false];
        let expected = [None, Some(false), Some(true), None, None, Some(false)];
        assert_eq!(changes(2, &results), expected);
    }

    #[test]
    fn a_threshold_of_nothing_is_one() {
        assert_eq!(changes(0, &[true, false]), [None, Some(false)]);
    }
}
