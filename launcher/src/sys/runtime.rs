//! The runtime directory, where the launchers of a user meet: each has there, under its name, a
//! control socket, a lock that dies with it, and a state file for the one that comes after it.

mod lock;
mod name;
mod state;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;

use crate::{failure::Failure, worker::WorkerId};

pub use lock::Lock;
pub use name::Name;
pub use state::State;

const DIRECTORY: &str = "reuseport-launch";

/// The runtime directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// The directory to use: `explicit` (absolute or relative to the working directory) over the
    /// user's own. Nothing is created or checked.
    ///
    /// The user's own is `/run/reuseport-launch` for root, `$XDG_RUNTIME_DIR/reuseport-launch` for
    /// others, and `/tmp/reuseport-launch-UID` where that variable is missing, as it is in most
    /// containers.
    ///
    /// # Errors
    /// When the working directory, needed for a relative path, is gone.
    pub fn locate(explicit: Option<&Path>) -> Result<Self, Failure> {
        let path = match explicit {
            Some(path) => std::path::absolute(path).map_err(|error| {
                Failure::new(
                    format!("cannot use {} as the runtime directory", path.display()),
                    error,
                    "give --runtime-dir an absolute path",
                )
            })?,
            None => own_directory(geteuid().as_raw(), std::env::var_os("XDG_RUNTIME_DIR")),
        };
        Ok(Self(path))
    }

    /// Creates the directory where it is missing and checks that nobody but this user can put
    /// files there. Called by what runs workers.
    ///
    /// # Errors
    /// When it cannot be created, belongs to someone else, is writable for others, or is no
    /// directory.
    pub fn prepare(&self) -> Result<(), Failure> {
        let uid = geteuid().as_raw();
        let mode = if uid == 0 { 0o755 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&self.0)
            .and_then(|()| fs::symlink_metadata(&self.0))
            .map_err(|error| self.unusable(error))
            .and_then(|metadata| self.check(&metadata, &[uid]))
    }

    /// Checks that what answers there can be trusted. Called by what talks to launchers; a
    /// directory that does not exist is fine, as no launcher runs then.
    ///
    /// # Errors
    /// When it belongs to another user than this one and root, is writable for others, is no
    /// directory, or cannot be looked at. Root may look anywhere.
    pub fn verify(&self) -> Result<(), Failure> {
        let uid = geteuid().as_raw();
        match fs::symlink_metadata(&self.0) {
            Ok(_) if uid == 0 => Ok(()),
            Ok(metadata) => self.check(&metadata, &[uid, 0]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.unusable(error)),
        }
    }

    fn check(&self, metadata: &Metadata, owners: &[u32]) -> Result<(), Failure> {
        let mode = metadata.mode() & 0o7777;
        let why = if !metadata.is_dir() {
            "it is not a directory".to_owned()
        } else if !owners.contains(&metadata.uid()) {
            format!("it belongs to uid {}", metadata.uid())
        } else if mode & 0o022 != 0 {
            format!("its mode {mode:03o} lets others write to it")
        } else {
            return Ok(());
        };
        Err(self.unusable(why))
    }

    fn unusable(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(
            format!("cannot use the runtime directory {}", self.0.display()),
            why,
            "choose a directory that only you can write to: --runtime-dir DIR",
        )
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The control socket of the launcher called `name`.
    pub fn socket(&self, name: &Name) -> PathBuf {
        self.0.join(format!("{name}.sock"))
    }

    /// The notification socket of a worker.
    pub fn notify(&self, name: &Name, worker: WorkerId) -> PathBuf {
        self.0.join(format!("{name}.{worker}.notify"))
    }

    /// The socket of a launcher's output process, by the pid of that.
    pub fn output(&self, name: &Name, pid: u32) -> PathBuf {
        self.0.join(format!("{name}.{pid}.output"))
    }

    /// Those that there are of a name, its earlier launchers' too; none where the directory can't be
    /// read.
    pub fn outputs(&self, name: &Name) -> Vec<PathBuf> {
        let prefix = format!("{name}.");
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| {
            let file = entry.file_name();
            let pid = file
                .to_str()
                .and_then(|file| file.strip_prefix(&prefix)?.strip_suffix(".output"));
            // Names may have dots.
            pid.is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()))
        });
        ours.map(|entry| entry.path()).collect()
    }

    fn lock(&self, name: &Name) -> PathBuf {
        self.0.join(format!("{name}.lock"))
    }

    fn state(&self, name: &Name) -> PathBuf {
        self.0.join(format!("{name}.state"))
    }

    /// The names that have a control socket, sorted: their launchers run, or were killed.
    ///
    /// # Errors
    /// When the directory cannot be read; one that does not exist has no names.
    pub fn names(&self) -> Result<Vec<Name>, Failure> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.unusable(error)),
        };
        let mut names: Vec<Name> = entries
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".sock")?
                    .parse()
                    .ok()
            })
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}

fn own_directory(uid: u32, xdg_runtime_dir: Option<OsString>) -> PathBuf {
    match xdg_runtime_dir.map(PathBuf::from) {
        _ if uid == 0 => Path::new("/run").join(DIRECTORY),
        Some(directory) if directory.is_absolute() => directory.join(DIRECTORY),
        _ => PathBuf::from(format!("/tmp/{DIRECTORY}-{uid}")),
    }
}
