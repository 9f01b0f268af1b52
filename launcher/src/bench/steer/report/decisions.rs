//! Nanoseconds per decision.

use super::{median, paired, ranged, verdict};
use crate::{bench::steer::decision::Decisions, policy::Policy};

/// The most that a decision may cost, in nanoseconds, beyond an empty program: that of a policy which
/// only looks into its table, and that of one which searches up to 64 members.
const TABLE_GOAL: f64 = 60.0;
const SEARCH_GOAL: f64 = 200.0;

/// The table.
pub(in crate::bench::steer) fn decisions(decisions: &[Decisions]) -> String {
    let mut text = format!(
        "{:>7}  {:<11}  {:>8}  {:>8}  {:<21}  goal\n",
        "members", "policy", "empty", "gross", "net of empty",
    );
    for Decisions {
        members,
        empty,
        steered,
    } in decisions
    {
        for (policy, gross) in steered {
            let goal = if *policy == Policy::LeastConn {
                SEARCH_GOAL
            } else {
                TABLE_GOAL
            };
            let net = paired(gross, empty, |gross, empty| gross - empty);
            text += &format!(
                "{members:>7}  {policy:<11}  {:>5.1} ns  {:>5.1} ns  {:<21}  ≤ {goal}: {}\n",
                median(empty),
                median(gross),
                ranged(&net, 1),
                verdict(median(&net) <= goal),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_program_is_subtracted_round_by_round() {
        let measured = Decisions {
            members: 8,
            empty: vec![85.0, 95.0],
            steered: vec![
                (Policy::RoundRobin, vec![160.0, 170.0]),
                (Policy::Hash, vec![130.0, 140.0]),
            ],
        };
        let text = decisions(&[measured]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("75.0 (75.0–75.0)") && lines[1].ends_with("≤ 60: NOT met"));
        assert!(lines[2].contains("45.0 (45.0–45.0)") && lines[2].ends_with("≤ 60: met"));
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
    }
}
