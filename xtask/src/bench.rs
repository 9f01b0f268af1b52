//! Measures what steering costs: builds the launcher for release and lets it measure itself.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::Path};

use anyhow::{Error, Result};

use crate::process::cargo;

/// Becomes the benchmark, so that a signal reaches it and nothing in between.
pub(crate) fn run(root: &Path, arguments: &[OsString]) -> Result<()> {
    let error = cargo()
        .args(["run", "--quiet", "--release"])
        .args(["--package", "reuseport-launch", "--", "__bench-steer"])
        .args(arguments)
        .current_dir(root)
        .exec();
    Err(Error::new(error).context("cannot run cargo"))
}
