//! What a launcher leaves behind when it is killed, and the file by which the next one of its name
//! finds it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::warn;

use super::failed;
use crate::{
    config::Plan,
    failure::Failure,
    sys::{
        cgroup::FleetCgroup,
        hierarchy::Hierarchy,
        runtime::{Name, RuntimeDir, State},
    },
};

/// The state file, which tells the next launcher what to clear away should this one be killed.
pub(super) struct StateFile<'a> {
    directory: &'a RuntimeDir,
    name: Name,
}

impl<'a> StateFile<'a> {
    pub(super) fn write(
        plan: &Plan,
        directory: &'a RuntimeDir,
        hierarchy: &Hierarchy,
        started_at: &str,
    ) -> Result<Self, Failure> {
        let state = State {
            pid: std::process::id(),
            cgroup: hierarchy
                .fleet_path(plan.name.as_str())
                .to_string_lossy()
                .into_owned(),
            started_at: started_at.to_owned(),
            name: plan.name.to_string(),
        };
        state
            .write(directory, &plan.name)
            .map_err(|error| failed("write the state file", &error))?;
        Ok(Self {
            directory,
            name: plan.name.clone(),
        })
    }
}

impl Drop for StateFile<'_> {
    fn drop(&mut self) {
        if let Err(error) = State::remove(self.directory, &self.name) {
            warn!("the state file could not be removed: {error}");
        }
    }
}

/// What a launcher that was killed has left: its workers still run, and hold the ports.
pub(super) fn clear(plan: &Plan, runtime_dir: &RuntimeDir, hierarchy: &Hierarchy) {
    let state = State::read(runtime_dir, &plan.name).ok().flatten();
    let recorded = state.as_ref().map(|state| PathBuf::from(&state.cgroup));
    let own = hierarchy.fleet_path(plan.name.as_str());
    let mut paths = vec![own];
    paths.extend(recorded.filter(|path| *path != paths[0]));
    let who = state.map_or_else(String::new, |state| format!(" (pid {})", state.pid));
    let fleets: Vec<FleetCgroup> = paths
        .iter()
        .filter_map(|path| hierarchy.left_behind(path))
        .collect();
    for fleet in fleets {
        let workers = fleet.workers().unwrap_or_default();
        let running = workers.iter().filter(|worker| worker.populated()).count();
        warn!(
            "a launcher named {}{who} was killed; stopping the {running} workers it left and removing its cgroup",
            plan.name
        );
        for worker in &workers {
            worker.signal(plan.stop_signal);
        }
        let deadline = Instant::now() + plan.stop_timeout;
        for worker in &workers {
            let left = deadline.saturating_duration_since(Instant::now());
            if !worker.wait_until_empty(left) {
                worker.kill();
                // Bounded: an unkillable process must not keep us from starting.
                let _ = worker.wait_until_empty(Duration::from_secs(5));
            }
        }
    }
}
