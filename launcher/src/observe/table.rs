//! The human forms of snapshots: one launcher in detail, or a list of launchers.

use serde::Serialize;

use super::{
    Snapshot, WorkerStatus,
    columns::{Align, Column, fit, lay_out},
    safeguards, steered,
};

/// The widest cell for what a worker says of itself.
const SAID_MAX: usize = 40;

/// What `ls` knows, and prints as JSON, about one launcher.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// `None` where it is there but did not say.
    pub status: Option<Snapshot>,
    /// Why it did not.
    pub error: Option<String>,
}

/// `status`: the launcher, its groups and its workers, in lines of at most `width` columns.
pub fn status(snapshot: &Snapshot, width: usize) -> String {
    let Snapshot {
        name,
        version,
        pid,
        command,
        started_at,
        capture,
        steering: _,
        hold: _,
        operation,
        groups,
        workers,
    } = snapshot;
    let mut lines = vec![
        format!(
            "{name} · {} of {} ready · pid {pid} · since {started_at} · version {version}",
            snapshot.ready(),
            snapshot.slots()
        ),
        format!("command {}", shown_command(command)),
        format!(
            "capture {capture} · {} · {}",
            steered(snapshot),
            safeguards(snapshot)
        ),
    ];
    if groups.is_empty() {
        lines.push("no listening socket".to_owned());
    }
    for group in groups {
        let waiting = match group.hold_backlog {
            Some(backlog) => format!("of {backlog} waiting"),
            None => "waiting".to_owned(),
        };
        let flows = match group.flows_max {
            Some(max) => format!("of {max} flows"),
            None => "flows".to_owned(),
        };
        let mut line = group.to_string();
        // What has never happened is not worth a word, except that nothing fell through.
        for (total, what, shown_at_zero) in [
            (group.selected_total, "selected", true),
            (group.migrated_total, "migrated", false),
            (group.held_total, "held", false),
            (group.held_now, &*waiting, false),
            (group.fell_through_total, "fell through", true),
            (group.refused_total, "refused", false),
            (group.missed_total, "retried", false),
            (group.flows_now, &*flows, true),
            (group.flows_evicted_total, "evicted", false),
        ] {
            if let Some(total) = total.filter(|total| shown_at_zero || *total > 0) {
                line.push_str(&format!(" · {total} {what}"));
            }
        }
        lines.push(line);
    }
    lines.extend(operation.as_ref().map(ToString::to_string));
    let mut lines: Vec<String> = lines.iter().map(|line| fit(line, width)).collect();
    lines.push(String::new());
    lines.extend(lay_out(&worker_columns(workers), workers.len(), width));
    lines.join("\n") + "\n"
}

/// `ls`: one line per launcher, of at most `width` columns.
pub fn list(launchers: &[Listed], width: usize) -> String {
    if launchers.is_empty() {
        return "no launcher runs\n".to_owned();
    }
    let column = |title, align, cell: &dyn Fn(&Listed) -> Option<String>| {
        Column::new(title, align, launchers.iter().map(cell))
    };
    let of =
        |launcher: &Listed, cell: &dyn Fn(&Snapshot) -> String| launcher.status.as_ref().map(cell);
    let columns = [
        column("NAME", Align::Left, &|it| Some(it.name.clone())),
        column("PID", Align::Right, &|it| of(it, &|s| s.pid.to_string())),
        column("READY", Align::Right, &|it| {
            let ready = of(it, &|s| format!("{} of {}", s.ready(), s.slots()));
            ready.or_else(|| it.error.clone())
        }),
        column("PORTS", Align::Left, &|it| {
            let groups = &it.status.as_ref()?.groups;
            let shown: Vec<String> = groups.iter().map(ToString::to_string).collect();
            (!shown.is_empty()).then(|| shown.join(", "))
        }),
        column("COMMAND", Align::Left, &|it| {
            of(it, &|s| shown_command(&s.command))
        }),
    ];
    lay_out(&columns, launchers.len(), width).join("\n") + "\n"
}

fn worker_columns(workers: &[WorkerStatus]) -> Vec<Column> {
    let connections: u64 = workers
        .iter()
        .filter_map(|worker| worker.connections_total)
        .sum();
    let column = |title, align, cell: &dyn Fn(&WorkerStatus) -> Option<String>| {
        Column::new(title, align, workers.iter().map(cell))
    };
    vec![
        column("SLOT", Align::Right, &|it| Some(it.slot.to_string())),
        column("STATE", Align::Left, &|it| Some(state(it))),
        column("PID", Align::Right, &|it| it.pid.map(|pid| pid.to_string())),
        column("CONNECTIONS", Align::Right, &|it| {
            it.connections_total.map(|n| n.to_string())
        }),
        column("SHARE", Align::Right, &|it| {
            share(it.connections_total?, connections)
        }),
        column("OPEN", Align::Right, &|it| {
            it.connections_active.map(|n| n.to_string())
        }),
        column("QUEUE", Align::Right, &|it| {
            it.accept_queue.map(|n| n.to_string())
        }),
        column("UPTIME", Align::Right, &|it| it.uptime_seconds.map(uptime)),
        column("RESTARTS", Align::Right, &|it| {
            Some(it.restarts.to_string())
        }),
        column("MEMORY", Align::Right, &|it| it.memory_bytes.map(bytes)),
        column("CPU", Align::Right, &|it| {
            it.cpu_seconds.map(|seconds| format!("{seconds:.1}s"))
        }),
        column("GENERATION", Align::Right, &|it| {
            Some(it.generation.to_string())
        }),
        column("WEIGHT", Align::Right, &|it| Some(it.weight.to_string())),
        column("HINT", Align::Right, &|it| it.hint.map(|n| n.to_string())),
        column("CPUS", Align::Left, &|it| cpus(&it.cpus)),
        column("STATUS", Align::Left, &|it| {
            it.status_text.as_deref().map(said)
        }),
    ]
}

/// `draining (3 open)`, `backoff 0.4s`
fn state(worker: &WorkerStatus) -> String {
    let state = &worker.state;
    match (worker.restart_in_seconds, worker.connections_active) {
        (Some(seconds), _) => format!("{state} {seconds:.1}s"),
        (None, Some(open)) if state == "draining" => format!("{state} ({open} open)"),
        (None, _) => state.clone(),
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

fn cpus(cpus: &[u32]) -> Option<String> {
    let shown: Vec<String> = cpus.iter().map(ToString::to_string).collect();
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

/// The command on one line. What could break the line or hide a boundary is quoted.
fn shown_command(command: &[String]) -> String {
    let plain = |argument: &str| {
        !argument.is_empty()
            && argument
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control() && c != '"')
    };
    let shown: Vec<String> = command
        .iter()
        .map(|argument| {
            if plain(argument) {
                argument.clone()
            } else {
                format!("{argument:?}")
            }
        })
        .collect();
    shown.join(" ")
}
