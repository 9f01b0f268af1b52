//! From what was measured to the table that is printed.

use kernel_tests::{
    figures::{median, ranged},
    load::{Kind, Report},
};

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

    /// The latency, in milliseconds and by round, that this share of the answered requests did not
    /// exceed.
    fn latencies(&self, share: f64) -> Vec<f64> {
        let runs = self.runs.iter();
        runs.map(|(report, _)| f64::from(report.latency(share)) / 1000.0)
            .collect()
    }

    /// The same share of all requests, where one that was lost took longer than any answer. (Otherwise a
    /// system would gain by losing those that it was slow with.)
    fn latencies_of_all(&self, share: f64) -> Vec<f64> {
        let runs = self.runs.iter();
        runs.map(|(report, _)| {
            let share = share * report.sent() as f64 / report.answered() as f64;
            if share > 1.0 {
                f64::INFINITY
            } else {
                f64::from(report.latency(share)) / 1000.0
            }
        })
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
        "{title}:\n{:<17}{:>7}{:>21}{:>21}{:>8}{:>9}{:>7}  lost\n",
        "", "p50 ms", "p99 of all", "of the answered", "max ms", "workers", "sent"
    );
    for side in measured {
        let runs = side.runs.iter();
        text += &format!(
            "{:<17}{:>7.1}{:>21}{:>21}{:>8.1}{:>9}{:>7}  {}\n",
            side.system,
            median(&side.latencies(0.5)),
            ranged(&side.latencies_of_all(0.99), 1),
            ranged(&side.latencies(0.99), 1),
            median(&side.latencies(1.0)),
            runs.clone().map(|(_, workers)| workers).sum::<usize>(),
            runs.map(|(report, _)| report.sent()).sum::<u64>(),
            side.lost(),
        );
    }
    let ratios = |latencies: fn(&Measured, f64) -> Vec<f64>| {
        let p99s = |system| {
            let found = measured.iter().find(|side| side.system == system);
            found.map_or_else(Vec::new, |side| latencies(side, 0.99))
        };
        let (ours, shared) = (p99s(System::Launch), p99s(System::SharedHandle));
        let pairs = ours.iter().zip(shared);
        pairs
            .map(|(ours, shared)| ours / shared)
            .collect::<Vec<f64>>()
    };
    let of_all = ratios(Measured::latencies_of_all);
    let verdict = if median(&of_all) <= GOAL {
        "met"
    } else {
        "NOT met"
    };
    let (of_all, answered) = (ranged(&of_all, 2), ranged(&ratios(Measured::latencies), 2));
    text + &format!(
        "p99 over that of the shared handle, by round: {of_all}; goal ≤ {GOAL}: {verdict}. \
         Of the answered alone: {answered}\n"
    )
}
