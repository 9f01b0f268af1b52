//! What a launcher left when it was killed, where it can't be gone on with.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tracing::warn;

use super::takeover::Legacy;
use crate::{
    config::Plan,
    sys::{cgroup::FleetCgroup, hierarchy::Hierarchy},
};

/// Stops the workers that a launcher of this name has left when it was killed, but those that can be
/// gone on with, and removes their cgroups. Its fleet may have lived in another cgroup than `own`, if
/// it was started from elsewhere.
pub(super) fn clear(
    plan: &Plan,
    legacy: Option<&Legacy>,
    hierarchy: &Hierarchy,
    own: &FleetCgroup,
) {
    let before = legacy.map(|legacy| &legacy.state);
    let kept = legacy.map_or(&[][..], |legacy| &legacy.workers);
    let recorded = before.map(|state| PathBuf::from(&state.cgroup));
    let elsewhere = recorded
        .filter(|path| *path != hierarchy.fleet_path(plan.name.as_str()))
        .and_then(|path| hierarchy.left_behind(&path));
    let who = before.map_or_else(String::new, |state| format!(" (pid {})", state.pid));
    for fleet in [Some(own), elsewhere.as_ref()].into_iter().flatten() {
        let mut workers = fleet.workers().unwrap_or_default();
        workers.retain(|worker| {
            let kept = kept.iter().any(|kept| worker.is_of(kept.worker));
            !kept || fleet.id() != own.id()
        });
        let running = workers.iter().filter(|worker| worker.populated()).count();
        if running > 0 || (kept.is_empty() && legacy.is_some_and(|legacy| !legacy.is_own)) {
            warn!(
                "a launcher named {}{who} was killed; stopping the {running} workers it left",
                plan.name
            );
        }
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
