//! The benchmarks: built for release, and measuring themselves.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::Path};

use anyhow::{Error, Result};

use crate::process::cargo;

/// What steering costs.
pub(crate) fn steer(root: &Path, arguments: &[OsString]) -> Result<()> {
    let launcher = ["--package", "reuseport-launch", "--", "__bench-steer"];
    replace_self(root, &launcher, arguments)
}

/// How long requests take while workers are killed and replaced.
pub(crate) fn tail(root: &Path, arguments: &[OsString]) -> Result<()> {
    let example = ["--package", "kernel-tests", "--example", "tail", "--"];
    replace_self(root, &example, arguments)
}

/// How long requests wait for a free worker.
pub(crate) fn queue(root: &Path, arguments: &[OsString]) -> Result<()> {
    let example = ["--package", "kernel-tests", "--example", "queue", "--"];
    replace_self(root, &example, arguments)
}

/// Becomes the benchmark, so that a signal reaches it and nothing in between.
fn replace_self(root: &Path, what: &[&str], arguments: &[OsString]) -> Result<()> {
    let error = cargo()
        .args(["run", "--quiet", "--release"])
        .args(what)
        .args(arguments)
        .current_dir(root)
        .exec();
    Err(Error::new(error).context("cannot run cargo"))
}
