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

/// Stops the workers that a launcher of this name has left when it was killed, and removes their
/// cgroups. `before` is the state file it left; its fleet may have lived in another cgroup than
/// `own`, if it was started from elsewhere.
pub(super) fn clear(plan: &Plan, before: Option<&State>, hierarchy: &Hierarchy, own: &FleetCgroup) {
    let recorded = before.map(|state| PathBuf::from(&state.cgroup));
    let elsewhere = recorded
        .filter(|path| *path != hierarchy.fleet_path(plan.name.as_str()))
        .and_then(|path| hierarchy.left_behind(&path));
    let who = before.map_or_else(String::new, |state| format!(" (pid {})", state.pid));
    for fleet in [Some(own), elsewhere.as_ref()].into_iter().flatten() {
        let workers = fleet.workers().unwrap_or_default();
        if workers.is_empty() && before.is_none() {
            continue;
        }
        let running = workers.iter().filter(|worker| worker.populated()).count();
        warn!(
            "a launcher named {}{who} was killed; stopping the {running} workers it left",
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
            if let Err(error) = worker.remove() {
                warn!("a cgroup that it left could not be removed: {error}");
            }
        }
    }
}
