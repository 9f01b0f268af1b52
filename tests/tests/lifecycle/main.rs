//! The lives of workers and launchers, and their deaths: asked for, sudden, and of others' making.

mod crash;
mod failing;
mod launchers;
mod stop;

use std::{fs, sync::Arc};

use kernel_tests::{
    launcher::{Launcher, Site},
    process::{Finished, Line},
    status::Status,
};
use nix::sys::signal::Signal;

/// Waits until a launcher has ended.
#[track_caller]
fn finish(launcher: Launcher) -> (Finished, Arc<Site>) {
    let Launcher { process, site } = launcher;
    (process.finish(), site)
}

/// Sends a launcher a signal and waits until it has ended.
#[track_caller]
fn end(launcher: Launcher, signal: Signal) -> (Finished, Arc<Site>) {
    launcher.process.signal(signal);
    finish(launcher)
}

/// Checks that a launcher has left nothing: no process, no cgroup, no socket, no state.
#[track_caller]
fn assert_nothing_left(site: &Site) {
    let cgroup = site.cgroup().expect("the launcher has found it, too");
    assert!(!cgroup.exists(), "{} is left", cgroup.display());
    let left: Vec<_> = fs::read_dir(site.runtime_dir())
        .expect("the site's directory")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    // The lock's file stays; see `sys::runtime::Lock`.
    assert_eq!(left, [format!("{}.lock", site.name()).as_str()]);
}

/// Whether a worker of this slot and generation is ready.
fn is_ready(status: &Status, slot: u32, generation: u64) -> bool {
    status.workers().iter().any(|worker| {
        worker["slot"] == slot && worker["generation"] == generation && worker["state"] == "ready"
    })
}

/// How many of the lines are `wanted`.
fn count(lines: &[Line], wanted: impl Fn(&str) -> bool) -> usize {
    lines.iter().filter(|line| wanted(&line.text)).count()
}
