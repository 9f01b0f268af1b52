//! The human forms of snapshots: one launcher in detail, or a list of launchers.

use serde::Serialize;

use super::{
    Snapshot, WorkerStatus,
    columns::{Align, Column, fit, lay_out},
    history::History,
    safeguards, steered, workers,
};

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

/// `status`: the launcher, its workers and its groups, in lines of at most `width` columns.
pub fn status(snapshot: &Snapshot, history: &History, width: usize) -> String {
    let Snapshot {
        name: _,
        version,
        pid: _,
        command,
        started_at,
        capture,
        steering: _,
        hold: _,
        operation: _,
        groups: _,
        workers,
    } = snapshot;
    let mut lines = vec![
        format!(
            "{} · since {started_at} · version {version}",
            summary(snapshot)
        ),
        format!("command {}", shown_command(command)),
        format!(
            "capture {capture} · {} · {}",
            steered(snapshot),
            safeguards(snapshot)
        ),
    ];
    lines.extend(snapshot.operation.as_ref().map(ToString::to_string));
    let mut lines: Vec<String> = lines.iter().map(|line| fit(line, width)).collect();
    lines.push(String::new());
    let workers: Vec<&WorkerStatus> = workers.iter().collect();
    lines.extend(workers::workers(&workers, history, false, width));
    lines.push(String::new());
    lines.extend(groups(snapshot, width));
    lines.join("\n") + "\n"
}

/// What `top` shows above the workers: `shop · 2 of 2 ready · pid 4211 · steer round-robin (eBPF) ·
/// 123 connections/s · reload: 1 of 2 slots done`, in at most `width` columns.
pub fn head(snapshot: &Snapshot, history: &History, width: usize) -> String {
    let mut line = format!("{} · {}", summary(snapshot), steered(snapshot));
    if let Some(rate) = history.rate() {
        line.push_str(&format!(" · {rate:.0} connections/s"));
    }
    if let Some(operation) = &snapshot.operation {
        line.push_str(&format!(" · {operation}"));
    }
    fit(&line, width)
}

/// The title and a line for each of these workers, of at most `width` columns, with what only a
/// history tells.
pub fn live(workers: &[&WorkerStatus], history: &History, width: usize) -> Vec<String> {
    workers::workers(workers, history, true, width)
}

/// The title and a line for each group, of at most `width` columns.
pub fn groups(snapshot: &Snapshot, width: usize) -> Vec<String> {
    if snapshot.groups.is_empty() {
        return vec![fit("no listening socket", width)];
    }
    workers::groups(&snapshot.groups, width)
}

/// `shop · 2 of 2 ready · pid 4211`
fn summary(snapshot: &Snapshot) -> String {
    let Snapshot { name, pid, .. } = snapshot;
    let (ready, slots) = (snapshot.ready(), snapshot.slots());
    format!("{name} · {ready} of {slots} ready · pid {pid}")
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
