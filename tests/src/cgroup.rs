//! The fleet's cgroup, seen from outside: what is in it, and how to get rid of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{eventually, gate::path_of};

/// Where the fleet of this name has its directory. `None`: no cgroup v2 hierarchy is mounted.
#[must_use]
pub fn of_fleet(name: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&"cgroup2"))
        .and_then(|fields| fields.get(1).map(PathBuf::from))?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(mount.join(own).join(format!("reuseport-launch.{name}")))
}

/// A cgroup of a test's own, such as a service has; dropping it kills what is left in it.
#[derive(Debug)]
pub struct Delegated(PathBuf);

impl Delegated {
    /// A new one. `None`: no cgroup v2 hierarchy is mounted.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let parent = of_fleet("")?.parent()?.to_owned();
        let dir = parent.join(format!("test-delegated-{}-{number}", process::id()));
        fs::create_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
        Some(Self(dir))
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a program in it, in the wrapper's place.
    ///
    /// # Panics
    /// When `sh` was not asked for.
    #[must_use]
    pub fn wrapper(&self) -> Vec<String> {
        let procs = self.0.join("cgroup.procs").display().to_string();
        let enter = "echo 0 > \"$0\" && exec \"$@\"";
        vec![path_of("sh"), "-c".to_owned(), enter.to_owned(), procs]
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// The processes in a cgroup and below.
#[must_use]
pub fn processes(dir: &Path) -> Vec<u32> {
    let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let own = list.lines().filter_map(|pid| pid.parse().ok());
    own.chain(below(dir).iter().flat_map(|dir| processes(dir)))
        .collect()
}

/// Freezes what is in a cgroup, and waits until it is: from then on none of it accepts, reads or
/// answers anything. Only being killed ends that.
///
/// # Panics
/// When it can't be frozen.
#[track_caller]
pub fn freeze(dir: &Path) {
    fs::write(dir.join("cgroup.freeze"), "1").unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    eventually("a cgroup to be frozen", || {
        let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "frozen 1").then_some(())
    });
}

/// Kills what is in a cgroup and removes it.
pub(crate) fn remove(dir: &Path) {
    // It fails when the launcher is just removing it, which is as good.
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    // A killed process stays in it, unlisted, until it has ended.
    eventually("a killed cgroup to become empty", || {
        remove_dir(dir);
        (!dir.exists()).then_some(())
    });
}

fn remove_dir(dir: &Path) {
    for child in below(dir) {
        remove_dir(&child);
    }
    let _ = fs::remove_dir(dir);
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
