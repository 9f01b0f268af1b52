//! A directory for one benchmark.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
};

/// Where the launchers under measurement meet, apart from those that serve. Goes when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Creates it among the temporary directories.
    pub(super) fn create() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("reuseport-launch-bench-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left then is an empty directory among the temporary ones.
        let _ = fs::remove_dir_all(&self.0);
    }
}
