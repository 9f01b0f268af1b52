//! What a reader must know about the figures: what else than the server they depend on.

use super::plan::Plan;

/// What the number of CPUs limits. `cpus` is how many there are, `apart` whether the generator has some
/// of its own.
pub(super) fn of_cpus(plan: &Plan, cpus: usize, apart: bool) -> Option<String> {
    if apart {
        return None;
    }
    let workers = plan.workers;
    let shared = match cpus {
        0 => "an unknown number of CPUs is".to_owned(),
        1 => "1 CPU is".to_owned(),
        cpus => format!("{cpus} CPUs are"),
    };
    let workers = if workers == 1 {
        "the worker".to_owned()
    } else {
        format!("{workers} workers")
    };
    Some(format!(
        "{shared} shared by {workers}, dispatchers and the load generator: what the generator uses, no \
         server can; compare modes with each other, and not with other machines (with {} CPUs or more \
         the generator has its own)",
        (plan.workers * 2).max(2)
    ))
}
