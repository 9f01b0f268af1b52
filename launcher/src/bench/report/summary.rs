//! From raw rounds to the figures that are shown, the same in every form of the report.

mod rounds;

use serde::Serialize;

use self::rounds::Figures;
pub(super) use self::rounds::merged;

use crate::bench::{
    model::{Errors, Level, Measured, ModeResult, Report, Shape},
    stats::{Compared, Interval, Spread},
};

/// CPU seconds and the like are told for so many requests.
const REQUESTS: f64 = 10_000.0;

/// All figures, level by level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    /// The peak first, then from the least load to the greatest. Those with disturbances come before
    /// all others.
    pub(super) levels: Vec<LevelSummary>,
}

/// All modes under one load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct LevelSummary {
    /// Which load.
    pub(super) level: Level,
    /// Requests per second that were offered; none at the peak.
    pub(super) offered: Option<f64>,
    /// Those that were measured, in the report's order.
    pub(super) modes: Vec<ModeSummary>,
}

/// A mode under a load. Medians are of the rounds, counts are of all rounds together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ModeSummary {
    pub(super) mode: String,
    pub(super) rounds: u32,
    /// Median of the good answers per second.
    pub(super) rate: f64,
    /// Of that median. One round has none.
    pub(super) rate_interval: Option<Interval>,
    pub(super) rate_ratio: Option<Compared>,
    /// Median share of the offered requests that were answered well, 0 to 1; none at the peak.
    pub(super) carried: Option<f64>,
    pub(super) latency: Option<Latency>,
    pub(super) p99_ratio: Option<Compared>,
    pub(super) sent: u64,
    pub(super) errors: Errors,
    pub(super) disturbed: u32,
    /// Failed requests per disturbance; none where there was none.
    pub(super) failed_per_disturbance: Option<f64>,
    pub(super) spread: Option<Spread>,
    pub(super) cpu: Option<Cpu>,
    /// Of workers and dispatcher together, per request.
    pub(super) cpu_ratio: Option<Compared>,
    /// Median of the server's context switches per answered request.
    pub(super) switches: Option<f64>,
    pub(super) listen_overflows: u64,
    pub(super) listen_drops: u64,
    /// In how many rounds the generator was the limit.
    pub(super) generator_limited: u32,
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    /// Of all rounds.
    pub(super) max: u64,
}

/// CPU seconds per 10 000 answered requests, medians of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Cpu {
    pub(super) workers: f64,
    pub(super) dispatcher: f64,
    pub(super) generator: f64,
}

impl Summary {
    pub(super) fn of(report: &Report) -> Self {
        let mut levels: Vec<Level> = Vec::new();
        for measured in report.modes.iter().flat_map(|mode| &mode.measured) {
            if !levels.contains(&measured.level) && !measured.rounds.is_empty() {
                levels.push(measured.level);
            }
        }
        let mut levels: Vec<LevelSummary> = levels
            .iter()
            .map(|&level| LevelSummary::of(report, level))
            .collect();
        levels.sort_by_key(|level| {
            let percent = match level.level {
                Level::Peak => 0,
                Level::Percent(percent) => percent,
            };
            (!level.disturbed(), percent)
        });
        Self { levels }
    }
}

impl LevelSummary {
    fn of(report: &Report, level: Level) -> Self {
        let baseline = report
            .modes
            .iter()
            .find(|mode| mode.mode == report.baseline)
            .and_then(|mode| measured(mode, level))
            .map(|measured| Figures::all(&measured.rounds))
            .unwrap_or_default();
        let found: Vec<(&ModeResult, &Measured)> = report
            .modes
            .iter()
            .filter_map(|mode| Some((mode, measured(mode, level)?)))
            .collect();
        Self {
            level,
            offered: found.iter().find_map(|(_, measured)| measured.offered),
            modes: found
                .iter()
                .map(|(mode, measured)| ModeSummary::of(mode, measured, &baseline))
                .collect(),
        }
    }

    /// Whether workers were disturbed under this load.
    pub(super) fn disturbed(&self) -> bool {
        self.modes.iter().any(|mode| mode.disturbed > 0)
    }

    /// `peak`, or `70 % of the baseline's peak`.
    pub(super) fn name(&self) -> String {
        match self.level {
            Level::Peak => "peak".to_owned(),
            Level::Percent(percent) => format!("{percent} % of the baseline's peak"),
        }
    }
}

/// The rounds of `mode` under `level`, if there are any.
pub(super) fn measured(mode: &ModeResult, level: Level) -> Option<&Measured> {
    mode.measured
        .iter()
        .find(|measured| measured.level == level && !measured.rounds.is_empty())
}

/// What a request is here: with a connection for each, connections are what is counted.
pub(super) fn unit(shape: Shape) -> &'static str {
    match shape {
        Shape::Connection => "connections",
        Shape::KeepAlive { .. } | Shape::LongLived => "requests",
    }
}
