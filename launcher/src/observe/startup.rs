//! The line that says, once the workers are up, what runs and on which rung of the ladder.

use super::{Snapshot, safeguards, steered};

/// More groups than this are counted instead of shown.
const GROUPS_SHOWN: usize = 4;

/// `8 workers (affinity 16, cpu.max 7.5 → 8) · tcp 0.0.0.0:3000 ×8 · steer round-robin (eBPF) ·
/// migration on · hold on · reload: kill -HUP 4211`
///
/// `count_reason` explains the number of workers; empty where there is nothing to explain. A
/// capture other than the default is named. Where HUP is the terminal's hang-up (`on_terminal`),
/// it is not what reloads.
pub fn line(snapshot: &Snapshot, count_reason: &str, on_terminal: bool) -> String {
    let mut parts = vec![workers(snapshot.slots(), count_reason), groups(snapshot)];
    if snapshot.capture != "cgroup" {
        parts.push(format!("capture {}", snapshot.capture));
    }
    parts.push(steered(snapshot));
    parts.push(safeguards(snapshot));
    parts.push(if on_terminal {
        format!("reload: reuseport-launch reload {}", snapshot.name)
    } else {
        format!("reload: kill -HUP {}", snapshot.pid)
    });
    parts.join(" · ")
}

fn workers(count: usize, reason: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    match reason {
        "" => format!("{count} worker{plural}"),
        reason => format!("{count} worker{plural} ({reason})"),
    }
}

fn groups(snapshot: &Snapshot) -> String {
    let groups = &snapshot.groups;
    if groups.is_empty() {
        return "no listening socket".to_owned();
    }
    let shown: Vec<String> = groups
        .iter()
        .take(GROUPS_SHOWN)
        .map(ToString::to_string)
        .collect();
    match groups.len().saturating_sub(GROUPS_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} … and {more} more", shown.join(", ")),
    }
}
