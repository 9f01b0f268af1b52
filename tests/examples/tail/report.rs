//! From what was measured to the table that is printed.

use kernel_tests::load::{Kind, Report};

use crate::system::System;

/// The most that the launcher's p99 may be of the shared handle's.
const GOAL: f64 = 1.0;

/// What was measured of a system, by round.
pub(crate) struct Measured {
    /// Whose.
    pub(crate) system: System,
    /// What came of each load, and how many workers were killed or replaced meanwhile.
    pub(crate) runs: Vec<(Report, usize)>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(system: System) -> Self {
        let runs = Vec::new();
        Self { system, runs }
    }

    /// The latency, in milliseconds and by round, that this share of the requests did not exceed.
    fn latencies(&self, share: f64) -> Vec<f64> {
        let runs = self.runs.iter();
        runs.map(|(report, _)| f64::from(report.latency(share)) / 1000.0)
            .collect()
    }

    /// `2 reset, 1 cut`, over all rounds.
    fn lost(&self) -> String {
        let counts = Kind::ALL.map(|kind| {
            let runs = self.runs.iter();
            (
                kind,
                runs.map(|(report, _)| report.count(kind)).sum::<usize>(),
            )
        });
        let lost: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{count} {kind:?}").to_lowercase())
            .collect();
        if lost.is_empty() {
            return "0".to_owned();
        }
        lost.join(", ")
    }
}

/// The table of one kind of trouble, and whether the goal is met.
pub(crate) fn table(title: &str, measured: &[Measured]) -> String {
    let mut text = format!(
        "{title}:\n{:<18}{:>8}{:>26}{:>10}{:>9}{:>9}  lost\n",
        "", "p50 ms", "p99 ms", "max ms", "workers", "sent"
    );
    for side in measured {
        let runs = side.runs.iter();
        text += &format!(
            "{:<18}{:>8.1}{:>26}{:>10.1}{:>9}{:>9}  {}\n",
            side.system,
            median(&side.latencies(0.5)),
            ranged(&side.latencies(0.99), 1),
            median(&side.latencies(1.0)),
            runs.clone().map(|(_, workers)| workers).sum::<usize>(),
            runs.map(|(report, _)| report.sent()).sum::<u64>(),
            side.lost(),
        );
    }
    let p99s = |system| {
        let found = measured.iter().find(|side| side.system == system);
        found.map_or_else(Vec::new, |side| side.latencies(0.99))
    };
    let (ours, shared) = (p99s(System::Launch), p99s(System::SharedHandle));
    let ratios: Vec<f64> = ours
        .iter()
        .zip(shared)
        .map(|(ours, shared)| ours / shared)
        .collect();
    let verdict = if median(&ratios) <= GOAL {
        "met"
    } else {
        "NOT met"
    };
    let ratios = ranged(&ratios, 2);
    text + &format!(
        "p99 over that of the shared handle, by round: {ratios}; goal ≤ {GOAL}: {verdict}\n"
    )
}

/// The middle value, or the mean of the two in the middle; not a number when there is none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len => f64::midpoint(sorted[(len - 1) / 2], sorted[len / 2]),
    }
}

/// `0.99 (0.91–1.04)`: the median, the least and the greatest.
fn ranged(values: &[f64], decimals: usize) -> String {
    let least = values.iter().copied().fold(f64::NAN, f64::min);
    let greatest = values.iter().copied().fold(f64::NAN, f64::max);
    let median = median(values);
    format!("{median:.decimals$} ({least:.decimals$}–{greatest:.decimals$})")
}
