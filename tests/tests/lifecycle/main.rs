//! The lives of workers and launchers, and their deaths: asked for, sudden, and of others' making.

mod crash;
mod failing;
mod launchers;
mod stop;

use std::sync::Arc;

use kernel_tests::{
    launcher::{Launcher, Site},
    process::{Finished, Line},
};

/// Waits until a launcher has ended.
#[track_caller]
fn finish(launcher: Launcher) -> (Finished, Arc<Site>) {
    let Launcher { process, site } = launcher;
    (process.finish(), site)
}

/// How many of the lines are `wanted`.
fn count(lines: &[Line], wanted: impl Fn(&str) -> bool) -> usize {
    lines.iter().filter(|line| wanted(&line.text)).count()
}
