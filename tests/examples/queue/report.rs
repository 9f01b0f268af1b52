//! From what was measured to the table that is printed, and whether the goals are met.

use kernel_tests::figures::{median, ranged};

use crate::{
    load::Outcome,
    system::{KERNEL, System},
};

/// The most that the lateness of sends may be of the latencies, or the load was what was measured:
/// of the median and of the 99th percentile.
const LATENESS: [(Part, f64); 2] = [(Part::P50, 0.05), (Part::P99, 0.1)];

/// The most that the machine's CPUs may be busy, or what waits for one is in the figures.
const BUSY: f64 = 0.95;

/// A part of the latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What half of the requests did not exceed.
    P50,
    /// What 99 % of them did not exceed.
    P99,
}

impl Part {
    const fn share(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P99 => 0.99,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P99 => "p99",
        }
    }
}

/// What the issue asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    system: &'static str,
    part: Part,
    beside: &'static str,
    at_most: f64,
}

impl Goal {
    /// This part of that system's latencies shall be at most so many times that of another one's.
    pub(crate) const fn of(
        system: &'static str,
        part: Part,
        beside: &'static str,
        at_most: f64,
    ) -> Self {
        Self {
            system,
            part,
            beside,
            at_most,
        }
    }

    fn judge(self, measured: &[Measured]) -> String {
        let Self {
            system,
            part,
            beside,
            at_most,
        } = self;
        let goal = format!("{system}: {} ≤ {at_most} × that of {beside}", part.name());
        let (Some(ours), Some(theirs)) = (find(measured, system), find(measured, beside)) else {
            return format!("goal {goal}: NOT measured\n");
        };
        let ratios = ours.ratios(theirs, part);
        let verdict = if median(&ratios) <= at_most {
            "met"
        } else {
            "NOT met"
        };
        format!("goal {goal}: {verdict}, {}\n", ranged(&ratios, 2))
    }
}

/// What was measured of a system.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Whose.
    pub(crate) system: System,
    /// What came of each load, by round.
    pub(crate) runs: Vec<Outcome>,
    /// See [`Running::chosen`](crate::system::Running::chosen).
    pub(crate) chosen: Option<(u64, u64)>,
    workers: u16,
    warm_up: u64,
}

impl Measured {
    /// Nothing yet, but so many requests that warmed it up.
    pub(crate) fn new(system: System, workers: u16, warm_up: u64) -> Self {
        Self {
            system,
            runs: Vec::new(),
            chosen: None,
            workers,
            warm_up,
        }
    }

    fn each(&self, figure: impl Fn(&Outcome) -> f64) -> Vec<f64> {
        self.runs.iter().map(figure).collect()
    }

    /// By round, in milliseconds.
    fn latencies(&self, part: Part) -> Vec<f64> {
        self.each(|run| run.latency(part.share()) * 1e3)
    }

    /// By round.
    fn ratios(&self, beside: &Self, part: Part) -> Vec<f64> {
        let (ours, theirs) = (self.latencies(part), beside.latencies(part));
        ours.iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect()
    }

    /// How many requests were sent in all.
    fn sent(&self) -> u64 {
        let measured: usize = self.runs.iter().map(|run| run.latencies.len()).sum();
        self.warm_up + measured as u64
    }

    fn unanswered(&self) -> u64 {
        self.runs.iter().map(|run| run.unanswered).sum()
    }

    /// The busiest worker's requests over the mean.
    fn spread(&self) -> f64 {
        let mut by_slot = vec![0; usize::from(self.workers)];
        for run in &self.runs {
            for (sum, count) in by_slot.iter_mut().zip(&run.by_slot) {
                *sum += count;
            }
        }
        let most = by_slot.iter().max().copied().unwrap_or_default();
        most as f64 * f64::from(self.workers) / by_slot.iter().sum::<u64>() as f64
    }

    /// Which part of the latencies is the load's own doing, if one is.
    fn spoiled(&self) -> Option<Part> {
        let spoiled = |&(part, most): &(Part, f64)| {
            let shares = self.each(|run| run.late(part.share()) / run.latency(part.share()));
            // A median that is not a number is no proof of anything.
            (median(&shares) > most || median(&shares).is_nan()).then_some(part)
        };
        LATENESS.iter().find_map(spoiled)
    }

    fn row(&self, kernel: &Self) -> String {
        let late = self.each(|run| run.late(0.99) * 1e3);
        format!(
            "{:<13} {:>8.2} {:>23} {:>10.2} {:>20} {:>8.2} {:>6.2} {:>5}\n",
            self.system,
            median(&self.latencies(Part::P50)),
            ranged(&self.latencies(Part::P99), 1),
            median(&self.ratios(kernel, Part::P50)),
            ranged(&self.ratios(kernel, Part::P99), 2),
            self.spread(),
            median(&late),
            self.unanswered(),
        )
    }

    /// Both parts of the latencies, round after round, and what the machine did.
    fn rounds(&self) -> String {
        let rounds = self.runs.iter().map(|run| {
            let [p50, p99] = [Part::P50, Part::P99].map(|part| run.latency(part.share()) * 1e3);
            format!(" {p50:.2}/{p99:.1}/{:.0}%", 100.0 * run.busy)
        });
        format!("{:<13}{}\n", self.system, rounds.collect::<String>())
    }

    /// What has to be known of the figures to believe them.
    fn health(&self) -> String {
        let occupied = self.each(|run| {
            let length = run.length.as_secs_f64() * f64::from(self.workers);
            100.0 * run.occupied / length
        });
        let busy = median(&self.each(|run| run.busy));
        let mut text = format!(
            "{:<13} workers occupied {:.0} %, the machine's CPUs {:.0} %",
            self.system,
            median(&occupied),
            100.0 * busy,
        );
        if let Some((selected, fell_through)) = self.chosen {
            let sent = self.sent();
            text += &format!(
                "; {selected} of {sent} chosen by the program, {fell_through} fell through"
            );
        }
        if let Some(part) = self.spoiled() {
            let part = part.name();
            text += &format!("\n  NOT KEPT UP: of its {part}, much is how late the load sent");
        }
        if busy > BUSY {
            text += "\n  NO CPU LEFT: the time that requests wait for one is in its figures";
        }
        text + "\n"
    }
}

/// The table of one case, and whether its goals are met; at most 100 columns, but for the rounds.
pub(crate) fn table(title: &str, measured: &[Measured], goals: &[Goal]) -> String {
    let mut text = format!(
        "{title}:\n{:<13} {:>8} {:>23} {:>10} {:>20} {:>8} {:>6} {:>5}\n",
        "", "p50 ms", "p99 ms", "p50/kernel", "p99/kernel", "max/mean", "late", "lost"
    );
    let Some(kernel) = find(measured, KERNEL) else {
        return text + "nothing to compare with: the kernel's hash was not measured\n";
    };
    text.extend(measured.iter().map(|side| side.row(kernel)));
    text += "p50/p99 in ms/how busy the machine's CPUs were, by round:\n";
    text.extend(measured.iter().map(Measured::rounds));
    text += "beside them:\n";
    text.extend(measured.iter().map(Measured::health));
    text.extend(goals.iter().map(|goal| goal.judge(measured)));
    text
}

fn find<'a>(measured: &'a [Measured], system: &str) -> Option<&'a Measured> {
    measured
        .iter()
        .find(|side| side.system.to_string() == system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(system: System, p99s: [f64; 2]) -> Measured {
        let mut measured = Measured::new(system, 2, 0);
        measured.runs.extend(p99s.map(|p99| Outcome {
            latencies: vec![p99 / 2.0, p99],
            lateness: vec![0.0, 0.0],
            by_slot: vec![3, 1],
            ..Outcome::default()
        }));
        measured
    }

    #[test]
    fn goals_are_judged_by_the_ratios_of_the_rounds() {
        let kernel = measured(System::Policy(KERNEL.to_owned()), [0.1, 0.2]);
        let ideal = measured(System::SharedQueue, [0.02, 0.1]);
        let sides = [kernel, ideal];
        let judge = |at_most| Goal::of("shared queue", Part::P99, KERNEL, at_most).judge(&sides);
        assert!(judge(0.36).contains(": met, 0.35 (0.20–0.50)"));
        assert!(judge(0.34).contains(": NOT met"));
        let absent = Goal::of("random", Part::P99, KERNEL, 1.0);
        assert!(absent.judge(&sides).contains("NOT measured"));
    }

    #[test]
    fn a_load_that_is_late_spoils_the_figures() {
        let mut side = measured(System::SharedQueue, [0.1, 0.1]);
        assert_eq!(side.spoiled(), None);
        for run in &mut side.runs {
            run.lateness = vec![0.0, 0.02];
        }
        assert_eq!(side.spoiled(), Some(Part::P99));
        assert!(side.health().contains("NOT KEPT UP"));
    }

    #[test]
    fn the_table_fits_100_columns() {
        let sides = [
            measured(System::Policy(KERNEL.to_owned()), [0.0361, 0.0342]),
            // Workers that were asked more than they can do.
            measured(System::SharedQueue, [3.3906, 3.4331]),
        ];
        let text = table("", &sides, &[]);
        assert_eq!(sides[0].spread(), 1.5);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{text}");
    }
}
