//! The tables of workers and of groups.

use super::{
    GroupStatus, WorkerStatus,
    columns::{Align, Column, fit, lay_out},
    history::{History, Series},
};

/// The widest cell for what a worker says of itself.
const SAID_MAX: usize = 40;
/// The length of a bar, and of a line of rates, in columns.
const BAR: usize = 10;
/// An eighth of a column to seven of them.
const PARTS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// Rates from none to the highest.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The title and a line for each worker. Where they don't fit into `width` columns, what goes first
/// is STATUS, then HINT, WEIGHT, CONNECTIONS, CPUS, GEN, RESTARTS, UPTIME, PID, MEMORY, the bar, CPU,
/// QUEUE, OPEN, SHARE and STATE. `live` adds the connections per second and their course: of those, the
/// bar goes first, then COURSE, GEN, CONN/S, CPU, QUEUE and the rest.
pub(super) fn workers(
    workers: &[&WorkerStatus],
    history: &History,
    live: bool,
    width: usize,
) -> Vec<String> {
    let totals = || workers.iter().filter_map(|worker| worker.connections_total);
    let (sum, most) = (totals().sum::<u64>(), totals().max().unwrap_or(0));
    let highest = history.highest();
    let column = |rank, title, align, cell: &dyn Fn(&WorkerStatus) -> Option<String>| {
        Column::new(title, align, workers.iter().map(|worker| cell(worker))).rank(rank)
    };
    let columns = [
        column(0, "SLOT", Align::Right, &|it| Some(it.slot.to_string())),
        column(if live { 6 } else { 12 }, "GEN", Align::Right, &|it| {
            Some(it.generation.to_string())
        }),
        column(1, "STATE", Align::Left, &|it| Some(state(it))),
        column(9, "PID", Align::Right, &|it| {
            it.pid.map(|pid| pid.to_string())
        }),
        column(13, "CPUS", Align::Left, &|it| cpus(&it.cpus)),
        column(2, "SHARE", Align::Right, &|it| {
            share(it.connections_total?, sum)
        }),
        column(7, "", Align::Left, &|it| bar(it.connections_total?, most)),
        column(5, "CONN/S", Align::Right, &|it| {
            let rate = history.of(it)?.rate().filter(|_| live)?;
            Some(decimal(rate))
        }),
        column(6, "COURSE", Align::Right, &|it| {
            let series = history.of(it).filter(|_| live)?;
            Some(course(series, highest))
        }),
        column(3, "OPEN", Align::Right, &|it| {
            it.connections_active.map(|n| n.to_string())
        }),
        column(4, "QUEUE", Align::Right, &|it| {
            it.accept_queue.map(|n| n.to_string())
        }),
        column(if live { 4 } else { 5 }, "CPU", Align::Right, &|it| {
            let percent = history.of(it)?.cpu_percent()?;
            Some(format!("{}%", decimal(percent)))
        }),
        column(8, "MEMORY", Align::Right, &|it| it.memory_bytes.map(bytes)),
        column(11, "RESTARTS", Align::Right, &|it| {
            Some(it.restarts.to_string())
        }),
        column(10, "UPTIME", Align::Right, &|it| {
            it.uptime_seconds.map(uptime)
        }),
        column(14, "CONNECTIONS", Align::Right, &|it| {
            it.connections_total.map(|n| n.to_string())
        }),
        column(15, "WEIGHT", Align::Right, &|it| {
            Some(it.weight.to_string())
        }),
        column(16, "HINT", Align::Right, &|it| {
            it.hint.map(|n| n.to_string())
        }),
        column(17, "STATUS", Align::Left, &|it| {
            it.status_text.as_deref().map(said)
        }),
    ];
    lay_out(&columns, workers.len(), width)
}

/// The title and a line for each group. Where they don't fit into `width` columns, EVICTED goes
/// first, then FLOWS, RETRIED, REFUSED, WAITING, SELECTED, MEMBERS, FELL THROUGH, MIGRATED and HELD.
pub(super) fn groups(groups: &[GroupStatus], width: usize) -> Vec<String> {
    let column = |rank, title, cell: &dyn Fn(&GroupStatus) -> Option<String>| {
        Column::new(title, Align::Right, groups.iter().map(cell)).rank(rank)
    };
    let total = |total: Option<u64>| total.map(|total| total.to_string());
    // What has never happened to any group is not worth a column.
    let happened = |cell: &dyn Fn(&GroupStatus) -> Option<u64>| {
        groups
            .iter()
            .any(|group| cell(group).is_some_and(|n| n > 0))
    };
    let (refused, missed, evicted) = (
        happened(&|it| it.refused_total),
        happened(&|it| it.missed_total),
        happened(&|it| it.flows_evicted_total),
    );
    let waits = happened(&|it| it.held_now);
    let group = Column::new(
        "GROUP",
        Align::Left,
        groups.iter().map(|group| Some(group.endpoint())),
    );
    let columns = [
        group,
        column(4, "MEMBERS", &|it| Some(it.members.to_string())),
        column(5, "SELECTED", &|it| total(it.selected_total)),
        column(2, "MIGRATED", &|it| total(it.migrated_total)),
        column(1, "HELD", &|it| total(it.held_total)),
        column(6, "WAITING", &|it| {
            let now = it.held_now.filter(|_| waits)?;
            Some(match it.hold_backlog {
                Some(backlog) => format!("{now} of {backlog}"),
                None => now.to_string(),
            })
        }),
        column(3, "FELL THROUGH", &|it| total(it.fell_through_total)),
        column(7, "REFUSED", &|it| {
            total(it.refused_total).filter(|_| refused)
        }),
        column(8, "RETRIED", &|it| {
            total(it.missed_total).filter(|_| missed)
        }),
        column(9, "FLOWS", &|it| {
            let now = it.flows_now?;
            Some(match it.flows_max {
                Some(max) => format!("{now} of {max}"),
                None => now.to_string(),
            })
        }),
        column(10, "EVICTED", &|it| {
            total(it.flows_evicted_total).filter(|_| evicted)
        }),
    ];
    lay_out(&columns, groups.len(), width)
}

/// `draining`, `backoff 0.4s`
fn state(worker: &WorkerStatus) -> String {
    let state = &worker.state;
    match worker.restart_in_seconds {
        Some(seconds) => format!("{state} {seconds:.1}s"),
        None => state.clone(),
    }
}

/// What a worker says of itself, so that it can neither fill the table nor write to the terminal.
fn said(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    fit(&text, SAID_MAX)
}

fn share(connections: u64, of: u64) -> Option<String> {
    (of > 0).then(|| format!("{:.1}%", connections as f64 / of as f64 * 100.0))
}

/// The longest is that of the worker with the most connections.
fn bar(connections: u64, most: u64) -> Option<String> {
    (most > 0).then(|| {
        let eighths = (connections as f64 / most as f64 * (BAR * 8) as f64).round() as usize;
        let part = (eighths % 8).checked_sub(1).map(|part| PARTS[part]);
        let bar: String = "█".repeat(eighths / 8).chars().chain(part).collect();
        format!("{bar:·<BAR$}")
    })
}

/// The last rates, the newest on the right; all workers have the same scale.
fn course(series: &Series, highest: f64) -> String {
    let rates = series.rates();
    let skipped = rates.len().saturating_sub(BAR);
    let level = |rate: f64| match rate {
        rate if rate <= 0.0 => LEVELS[0],
        rate => LEVELS[((rate / highest * 7.0).ceil() as usize).clamp(1, 7)],
    };
    let line: String = rates.skip(skipped).map(level).collect();
    format!("{line:>BAR$}")
}

/// One digit behind the point where there are few before it.
fn decimal(value: f64) -> String {
    if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Runs as ranges: `0-3,8`.
fn cpus(cpus: &[u32]) -> Option<String> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if cpu.checked_sub(1) == Some(*last) => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let shown: Vec<String> = runs
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    (!shown.is_empty()).then(|| shown.join(","))
}

/// The two largest units: `3d 4h`, `2m 5s`, `40s`.
fn uptime(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// At most four characters and a unit: `512 B`, `25.0 MiB`, `980 MiB`.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1_000.0 {
            break;
        }
        value /= 1_024.0;
        unit = larger;
    }
    if unit == "B" || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}
