//! Puts together what status shows.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
};

use super::launcher::Launcher;
use crate::{
    fleet::View,
    observe::{GroupStatus, Operation, Snapshot, Steering, WorkerStatus, startup},
    steer::GroupView,
    sys::listeners::{self, Listener, Protocol},
    worker::WorkerId,
};

impl Launcher {
    /// What there is to know right now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let listeners = listeners::by_cookie(Protocol::Tcp);
        let counted = self.steering.counts_open();
        let open = (!counted).then(|| self.open_connections()).flatten();
        let policies = self.steering.policies();
        let backend = if policies.steers() { "ebpf" } else { "kernel" };
        let policy = match &self.plan.steer_object {
            Some(path) => format!("object:{}", path.display()),
            None => policies.connections().to_string(),
        };
        Snapshot {
            name: self.plan.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            command: self
                .plan
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            started_at: self.started_at.clone(),
            capture: match self.cgroup.is_shared() {
                true => "cgroup of the launcher".to_owned(),
                false => "cgroup".to_owned(),
            },
            steering: Steering {
                backend: backend.to_owned(),
                policy,
                policy_udp: policies.datagrams().to_string(),
                migration: self.steering.migrates() == Some(true),
            },
            hold: self.steering.holds(),
            operation: self.fleet.operation().map(|operation| Operation {
                verb: operation.verb.to_string(),
                done: operation.done,
                of: operation.of,
            }),
            groups: self
                .steering
                .groups()
                .into_iter()
                .map(|view| group(view, &listeners))
                .collect(),
            workers: self
                .fleet
                .views()
                .into_iter()
                .map(|view| self.worker(&view, &listeners, open.as_ref()))
                .collect(),
        }
    }

    /// The one line that says what runs.
    pub(super) fn startup_line(&self) -> String {
        let scaled = self.fleet.workers_wanted() != self.plan.workers;
        startup::line(
            &self.snapshot(),
            if scaled {
                "scaled"
            } else {
                &self.plan.workers_reason
            },
            io::stdin().is_terminal(),
        )
    }

    fn worker(
        &self,
        view: &View,
        listeners: &HashMap<u64, Listener>,
        open: Option<&HashMap<WorkerId, u64>>,
    ) -> WorkerStatus {
        let worker = view.worker;
        let running = self.running.get(&worker);
        let accept_queue = self
            .steering
            .cookies(worker)
            .iter()
            .filter_map(|cookie| listeners.get(cookie))
            .map(|listener| u64::from(listener.queue))
            .reduce(|a, b| a + b);
        WorkerStatus {
            slot: worker.slot,
            generation: worker.generation,
            pid: running.and_then(|running| running.pid),
            state: view.state.to_string(),
            status_text: running.and_then(|running| running.status_text.clone()),
            cpus: self
                .plan
                .pinning
                .cpus_for(worker.slot, &self.plan.cpus)
                .unwrap_or_default(),
            weight: self
                .fleet
                .weights()
                .get(&worker.slot)
                .map_or(1, |&weight| weight.into()),
            hint: self.steering.hint(worker),
            uptime_seconds: running.map(|running| running.started.elapsed().as_secs()),
            restarts: view.restarts,
            connections_total: self.steering.connections(worker),
            connections_active: self
                .looks
                .open(worker)
                .or_else(|| self.steering.active(worker))
                .or_else(|| open?.get(&worker).copied()),
            accept_queue,
            memory_bytes: running.and_then(|running| running.cgroup.memory_bytes()),
            cpu_seconds: running.and_then(|running| running.cgroup.cpu_seconds()),
            restart_in_seconds: view
                .restart_at
                .map(|at| at.saturating_sub(self.started.elapsed()).as_secs_f64()),
        }
    }
}

fn group(group: GroupView, listeners: &HashMap<u64, Listener>) -> GroupStatus {
    let GroupView {
        endpoint,
        members,
        steered: _,
        counted,
        flows,
        holding,
    } = group;
    let holding = holding.and_then(|cookie| listeners.get(&cookie));
    GroupStatus {
        protocol: endpoint.protocol.to_string(),
        address: endpoint.address.ip().to_string(),
        port: endpoint.address.port(),
        members,
        selected_total: counted.map(|counted| counted.selected),
        migrated_total: counted.map(|counted| counted.migrated),
        held_total: holding.and(counted).map(|counted| counted.held),
        held_now: holding.map(|listener| u64::from(listener.queue)),
        hold_backlog: holding.map(|listener| listener.backlog),
        fell_through_total: counted.map(|counted| counted.fell_through),
        refused_total: counted.map(|counted| counted.refused),
        missed_total: counted.map(|counted| counted.missed),
        flows_now: flows.map(|flows| flows.now),
        flows_max: flows.map(|flows| flows.max),
        flows_evicted_total: flows.map(|flows| flows.evicted),
    }
}
