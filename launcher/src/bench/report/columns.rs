//! What is told of each mode, in columns: the same on the terminal and on the page.

use super::{
    show,
    summary::{LevelSummary, ModeSummary, unit},
};
use crate::bench::{
    model::Report,
    stats::{Compared, Verdict},
};

/// A mode that answers less than this share of what is offered can't carry it.
const ENOUGH: f64 = 0.97;

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// How a text looks, where there is colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Strong,
    Faint,
    Good,
    Bad,
}

/// A column with its title.
pub(super) struct Column {
    pub(super) title: String,
    pub(super) align: Align,
    pub(super) cells: Vec<String>,
    /// By cell; plain where there is none.
    pub(super) inks: Vec<Ink>,
}

impl Column {
    pub(super) fn new(title: &str, align: Align, cells: Vec<String>) -> Self {
        Self {
            title: title.to_owned(),
            align,
            cells,
            inks: Vec::new(),
        }
    }

    /// With an ink for each cell.
    pub(super) fn inked(self, inks: Vec<Ink>) -> Self {
        Self { inks, ..self }
    }

    /// With another title.
    pub(super) fn titled(self, title: &str) -> Self {
        Self {
            title: title.to_owned(),
            ..self
        }
    }
}

/// Columns that belong together, under a title of their own.
pub(super) struct Group {
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
}

impl Group {
    pub(super) fn new(title: impl Into<String>, columns: Vec<Column>) -> Self {
        Self {
            title: title.into(),
            columns,
        }
    }
}

/// What is told of each mode, the most important first.
pub(super) fn groups(report: &Report, level: &LevelSummary) -> Vec<Group> {
    let mut groups = Vec::new();
    if level.disturbed() {
        groups.push(failures(level));
    }
    groups.push(throughput(report, level));
    groups.push(latency(report, level));
    groups.push(spread(level));
    groups.push(cpu(level));
    groups.push(switches(level));
    groups.push(overflows(level));
    groups
}

fn right(title: &str, level: &LevelSummary, cell: impl Fn(&ModeSummary) -> String) -> Column {
    let cells = level.modes.iter().map(cell).collect();
    Column::new(title, Align::Right, cells)
}

fn failures(level: &LevelSummary) -> Group {
    Group::new(
        "failed requests",
        vec![
            right("PER EVENT", level, |mode| {
                or_dash(mode.failed_per_disturbance.map(show::three))
            }),
            right("EVENTS", level, |mode| show::whole(mode.disturbed.into())),
        ],
    )
}

fn throughput(report: &Report, level: &LevelSummary) -> Group {
    let rate = |mode: &ModeSummary| {
        let least = if mode.generator_limited > 0 {
            "≥ "
        } else {
            ""
        };
        format!("{least}{}", show::three(mode.rate))
    };
    let mut columns = vec![right("PER S", level, rate)];
    if level.offered.is_some() {
        columns.push(carried(level));
    } else {
        columns.push(ratios(report, level, |mode| mode.rate_ratio));
    }
    Group::new(unit(report.shape), columns)
}

/// The share of what was offered. Arrivals by chance come to a little more or less.
fn carried(level: &LevelSummary) -> Column {
    let percent = |carried: f64| format!("{:.0} %", carried.min(1.0) * 100.0);
    let inks = level.modes.iter().map(|mode| match mode.carried {
        Some(carried) if carried < ENOUGH => Ink::Bad,
        _ => Ink::Plain,
    });
    let inks = inks.collect();
    right("CARRIED", level, |mode| or_dash(mode.carried.map(percent))).inked(inks)
}

/// In one unit for the whole load, so that the cells need none.
fn latency(report: &Report, level: &LevelSummary) -> Group {
    let least = level
        .modes
        .iter()
        .filter_map(|mode| Some(mode.latency?.p50))
        .fold(f64::INFINITY, f64::min);
    let (unit, name) = match least {
        ns if ns < 100e3 => (1e3, "µs"),
        _ => (1e6, "ms"),
    };
    let cell = |title: &str, of: &dyn Fn(&ModeSummary) -> Option<f64>| {
        right(title, level, |mode| {
            or_dash(of(mode).map(|ns| show::three(ns / unit)))
        })
    };
    let mut columns = vec![
        cell("P50", &|mode| Some(mode.latency?.p50)),
        cell("P90", &|mode| Some(mode.latency?.p90)),
        cell("P99", &|mode| Some(mode.latency?.p99)),
        cell("P99.9", &|mode| Some(mode.latency?.p999)),
        cell("MAX", &|mode| Some(mode.latency?.max as f64)),
    ];
    if level.offered.is_some() {
        columns.push(ratios(report, level, |mode| mode.p99_ratio).titled("P99, RATIO"));
    }
    Group::new(format!("latency, {name}"), columns)
}

fn spread(level: &LevelSummary) -> Group {
    let cell = |title: &str, of: &dyn Fn(&ModeSummary) -> Option<f64>| {
        right(title, level, |mode| {
            or_dash(of(mode).map(|value| format!("{value:.3}")))
        })
    };
    Group::new(
        "spread over workers",
        vec![
            cell("MAX/MEAN", &|mode| Some(mode.spread?.max_over_mean)),
            cell("CV", &|mode| Some(mode.spread?.variation)),
            cell("JAIN", &|mode| Some(mode.spread?.jain)),
        ],
    )
}

fn cpu(level: &LevelSummary) -> Group {
    let cell = |title: &str, of: &dyn Fn(&ModeSummary) -> Option<f64>| {
        right(title, level, |mode| or_dash(of(mode).map(show::three)))
    };
    Group::new(
        "CPU s / 10 000 requests",
        vec![
            cell("WORKERS", &|mode| Some(mode.cpu?.workers)),
            cell("DISPATCH", &|mode| Some(mode.cpu?.dispatcher)),
            cell("LOAD", &|mode| Some(mode.cpu?.generator)),
        ],
    )
}

fn switches(level: &LevelSummary) -> Group {
    let cell = |mode: &ModeSummary| or_dash(mode.switches.map(show::three));
    Group::new("switches", vec![right("PER REQ.", level, cell)])
}

fn overflows(level: &LevelSummary) -> Group {
    let cell = |mode: &ModeSummary| show::whole(mode.listen_overflows);
    Group::new("listen", vec![right("OVERFLOW", level, cell)])
}

/// Green and red only for what is no noise.
fn ratios(
    report: &Report,
    level: &LevelSummary,
    of: impl Fn(&ModeSummary) -> Option<Compared>,
) -> Column {
    let mut cells = Vec::new();
    let mut inks = Vec::new();
    for mode in &level.modes {
        let compared = of(mode);
        let (cell, ink) = if mode.mode == report.baseline {
            ("baseline".to_owned(), Ink::Faint)
        } else {
            let ink = match compared.and_then(|compared| compared.verdict) {
                Some(Verdict::Better) => Ink::Good,
                Some(Verdict::Worse) => Ink::Bad,
                Some(Verdict::NoDifference) | None => Ink::Faint,
            };
            (or_dash(compared.map(|it| show::compared(&it))), ink)
        };
        cells.push(cell);
        inks.push(ink);
    }
    Column::new("RATIO", Align::Left, cells).inked(inks)
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "–".to_owned())
}

/// The column that each table begins with.
pub(super) fn names(level: &LevelSummary) -> Column {
    let names = level.modes.iter().map(|mode| show::clean(&mode.mode));
    Column::new("MODE", Align::Left, names.collect())
}
