//! PURE. What a launcher shows of itself: the snapshot that `status --json` prints, and its forms
//! for people. Field names, their order and their units are a promise to scripts.

mod columns;
pub mod history;
pub mod startup;
pub mod table;
#[cfg(test)]
mod tests;
mod workers;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

/// All there is to know about one launcher at one moment. `None` is unknown, or not measured with
/// the capture and policy in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The launcher's name.
    pub name: String,
    /// The launcher's version.
    pub version: String,
    /// The launcher's process id.
    pub pid: u32,
    /// The command and its arguments, `{slot}` not replaced.
    pub command: Vec<String>,
    /// When the launcher started, RFC 3339.
    pub started_at: String,
    /// How the workers' sockets are noticed: `cgroup`.
    pub capture: String,
    /// How connections are dealt out.
    pub steering: Steering,
    /// Whether TCP connections wait while no worker takes any, instead of being refused.
    pub hold: bool,
    /// What is being done to the workers as a whole.
    pub operation: Option<Operation>,
    /// The shared ports.
    pub groups: Vec<GroupStatus>,
    /// By slot, then generation.
    pub workers: Vec<WorkerStatus>,
}

/// How connections are dealt out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steering {
    /// What evaluates the policy: `ebpf`, or `kernel` where no program is attached.
    pub backend: String,
    /// That of connections: `round-robin`, `least-conn`, `hash`, `source` (or `source:V4/V6`), `cpu`,
    /// `random` or `kernel`; or `object:FILE`.
    pub policy: String,
    /// That of datagrams; not `least-conn`.
    pub policy_udp: String,
    /// Whether connections that wait in a dead worker's queue move to another worker.
    pub migration: bool,
}

/// A reload, scale or restart that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `reload`, `scale` or `restart`.
    pub verb: String,
    /// Slots that are done.
    pub done: u32,
    /// Slots that it is about.
    pub of: u32,
}

/// One shared port. The totals count from the start of the launcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The IP address, without brackets.
    pub address: String,
    /// 1–65535.
    pub port: u16,
    /// Sockets of workers in the group.
    pub members: u32,
    /// Connections (UDP: packets) that the program gave to a member.
    pub selected_total: Option<u64>,
    /// Connections that moved from a dead member to a live one.
    pub migrated_total: Option<u64>,
    /// Connections that had to wait until a worker was ready.
    pub held_total: Option<u64>,
    /// Those that wait now.
    pub held_now: Option<u64>,
    /// How many can wait; `None` where none can.
    pub hold_backlog: Option<u32>,
    /// Connections that the program left to the kernel's hash.
    pub fell_through_total: Option<u64>,
    /// Connections refused because no member took any.
    pub refused_total: Option<u64>,
    /// Times a chosen member had just gone and another was tried.
    pub missed_total: Option<u64>,
    /// UDP flows that stay with their worker: those that are not idle. `None` where none do: for TCP,
    /// and under policies that send each datagram for itself.
    pub flows_now: Option<u64>,
    /// How many have room.
    pub flows_max: Option<u32>,
    /// Flows that had to make room for others, idle or not.
    pub flows_evicted_total: Option<u64>,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// `0..workers`.
    pub slot: u32,
    /// Grows with each replacement, from 1.
    pub generation: u64,
    /// The main process; `None` between a crash and the restart.
    pub pid: Option<u32>,
    /// `starting`, `listening` (but not ready yet), `ready`, `unhealthy`, `stalled`, `draining`,
    /// `drained`, `stopping` or `backoff`.
    pub state: String,
    /// What it says of itself (sd_notify's `STATUS=`).
    pub status_text: Option<String>,
    /// The CPUs it is pinned to; empty: not pinned.
    pub cpus: Vec<u32>,
    /// Its share of new connections, relative to the others'.
    pub weight: u32,
    /// What it has told the steering object; `None` where that takes no hints.
    #[serde(default)]
    pub hint: Option<u64>,
    /// Since its start; `None` where it does not run.
    pub uptime_seconds: Option<u64>,
    /// Restarts of its slot since the start of the launcher.
    pub restarts: u64,
    /// Connections (UDP: packets) it was given.
    pub connections_total: Option<u64>,
    /// Connections open now; known at least while it drains.
    pub connections_active: Option<u64>,
    /// Connections that wait to be accepted.
    pub accept_queue: Option<u64>,
    /// Memory charged to the worker and its children.
    pub memory_bytes: Option<u64>,
    /// CPU time used by the worker and its children.
    pub cpu_seconds: Option<f64>,
    /// Time to the restart; `None` where none is due.
    pub restart_in_seconds: Option<f64>,
}

impl Snapshot {
    /// How many workers are ready.
    pub fn ready(&self) -> usize {
        self.workers
            .iter()
            .filter(|worker| worker.state == "ready")
            .count()
    }

    /// How many slots there are: while one is being replaced, it has two workers.
    pub fn slots(&self) -> usize {
        let slots: BTreeSet<u32> = self.workers.iter().map(|worker| worker.slot).collect();
        slots.len()
    }
}

/// `reload: 1 of 4 slots done`
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, done, of } = self;
        let plural = if *of == 1 { "" } else { "s" };
        write!(f, "{verb}: {done} of {of} slot{plural} done")
    }
}

/// `steer round-robin (eBPF)`; `steer round-robin (eBPF), UDP hash (eBPF)` where there is both.
fn steered(snapshot: &Snapshot) -> String {
    let Steering {
        backend,
        policy,
        policy_udp,
        migration: _,
    } = &snapshot.steering;
    let how = |policy: &str| match (policy, backend.as_str()) {
        ("kernel", _) => format!("{policy} (hash only)"),
        (_, "ebpf") => format!("{policy} (eBPF)"),
        (_, other) => format!("{policy} ({other})"),
    };
    let has = |protocol| snapshot.groups.iter().any(|it| it.protocol == protocol);
    match (has("tcp"), has("udp")) {
        (_, false) => format!("steer {}", how(policy)),
        (false, true) => format!("steer {}", how(policy_udp)),
        (true, true) => format!("steer {}, UDP {}", how(policy), how(policy_udp)),
    }
}

impl GroupStatus {
    /// `tcp [::]:443`
    fn endpoint(&self) -> String {
        let Self {
            protocol,
            address,
            port,
            ..
        } = self;
        if address.contains(':') {
            format!("{protocol} [{address}]:{port}")
        } else {
            format!("{protocol} {address}:{port}")
        }
    }
}

/// `tcp [::]:443 ×4`
impl fmt::Display for GroupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ×{}", self.endpoint(), self.members)
    }
}

/// `migration on · hold on`
fn safeguards(snapshot: &Snapshot) -> String {
    let word = |on| if on { "on" } else { "off" };
    format!(
        "migration {} · hold {}",
        word(snapshot.steering.migration),
        word(snapshot.hold)
    )
}
