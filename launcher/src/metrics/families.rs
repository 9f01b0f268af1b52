//! The metrics that there are. docs/METRICS.md says more of each; a test keeps the two alike.

/// What stands before every name.
pub(super) const PREFIX: &str = "reuseport_launch_";

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never goes back while the fleet lives; its name ends with `_total`.
    Counter,
    /// A value at this moment.
    Gauge,
    /// Always 1: its labels are what it says. Its name ends with `_info`.
    Info,
    /// A count and a sum, `_count` and `_sum`.
    Summary,
}

impl Kind {
    /// As the documentation has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
            Self::Summary => "summary",
        }
    }
}

/// A metric: all samples of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// What its samples are called behind the prefix; those of a summary have an ending more.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One line for people, without a full stop.
    pub help: &'static str,
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal, $help:literal;)*) => {
        $(pub(super) const $id: Family = Family { name: $name, kind: Kind::$kind, help: $help };)*
        /// All of them, in the order of the page.
        pub const FAMILIES: &[Family] = &[$($id),*];
    };
}

families! {
    BUILD: Info "build_info", "The launcher's version";
    STEERING: Info "steering_info", "How connections and datagrams are dealt out";
    READY: Gauge "ready_workers", "Workers that are ready";
    SLOTS: Gauge "slots", "Slots: how many workers there are to be";
    MEMBERS: Gauge "group_members", "Sockets of workers in the group";
    SELECTED: Counter "selected_total", "Connections (UDP: datagrams) that the program gave to a worker";
    MIGRATED: Counter "migrated_total", "Connections that moved from a socket that had gone to another worker";
    HELD: Counter "held_total", "Connections that had to wait until a worker was ready";
    HELD_NOW: Gauge "held_now", "Connections that wait for a worker to be ready";
    HOLD_BACKLOG: Gauge "hold_backlog", "Connections that can wait for a worker to be ready";
    FELL_THROUGH: Counter "fell_through_total", "Decisions left to the kernel's hash because no member could be selected";
    REFUSED: Counter "refused_total", "Connections refused because no worker took any";
    MISSED: Counter "missed_total", "Decisions for which the chosen member had just gone and another was tried";
    FLOWS: Gauge "udp_flows", "UDP flows that stay with their worker";
    FLOWS_MAX: Gauge "udp_flows_max", "UDP flows that there is room for";
    FLOWS_EVICTED: Counter "udp_flows_evicted_total", "UDP flows that had to make room for others";
    DECISION: Gauge "steering_decision_seconds", "Mean time of a decision of the program, as the kernel measured it";
    STATE: Gauge "worker_state", "Workers of the slot in this state";
    GENERATION: Gauge "worker_generation", "Generation of the slot's latest worker";
    WEIGHT: Gauge "worker_weight", "Share of new connections, relative to the other slots'";
    UPTIME: Gauge "worker_uptime_seconds", "Time since the start of the slot's latest worker";
    CONNECTIONS: Counter "connections_total", "Connections (UDP: datagrams) that the slot's workers were given";
    ACTIVE: Gauge "connections_active", "Connections that the slot's workers have open";
    QUEUE: Gauge "accept_queue", "Connections that wait for the slot's workers to accept them";
    CPU: Counter "cpu_seconds_total", "CPU time that the slot's workers used, with their children";
    MEMORY: Gauge "memory_bytes", "Memory charged to the slot's workers and their children";
    RESTARTS: Counter "restarts_total", "Times another worker was started in the slot, or was due to be, by reason";
    RELOADS: Summary "reload_duration_seconds", "Reloads, by outcome, and how long they took";
}
