//! Being told that a worker uses more memory than it should, where its cgroup has the memory
//! controller.
//!
//! The kernel tells when a cgroup goes over `memory.high`, by a change of `memory.events`
//! (Documentation/admin-guide/cgroup-v2.rst). It also begins to slow its processes down then, so the
//! limit is lifted as soon as it has told.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::inotify;

/// The watch over one cgroup's memory.
#[derive(Debug)]
pub struct MemoryWatch {
    cgroup: PathBuf,
    /// How often it had gone over its limit when the watch began.
    before: u64,
    changes: OwnedFd,
}

impl MemoryWatch {
    /// Watches over a cgroup. `None` where it has no memory controller.
    ///
    /// # Errors
    /// Those of inotify and of writing to `memory.high`.
    pub(super) fn new(cgroup: &Path, limit: u64) -> io::Result<Option<Self>> {
        let Some(before) = times_over(cgroup) else {
            return Ok(None);
        };
        let changes =
            inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let events = cgroup.join("memory.events");
        inotify::add_watch(&changes, events, inotify::WatchFlags::MODIFY)?;
        fs::write(cgroup.join("memory.high"), limit.to_string())?;
        Ok(Some(Self {
            cgroup: cgroup.to_owned(),
            before,
            changes,
        }))
    }

    /// Whether the cgroup has gone over its limit. If so, the limit is lifted.
    #[must_use]
    pub fn exceeded(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut changes = inotify::Reader::new(&self.changes, &mut buffer);
        while changes.next().is_ok() {}
        let exceeded = times_over(&self.cgroup).is_some_and(|times| times > self.before);
        if exceeded {
            // The worker is to be replaced; until then it should not be slowed down for that.
            let _ = fs::write(self.cgroup.join("memory.high"), "max");
        }
        exceeded
    }
}

impl AsFd for MemoryWatch {
    /// Readable when [`MemoryWatch::exceeded`] should be asked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}

/// How often a cgroup has gone over `memory.high`.
fn times_over(cgroup: &Path) -> Option<u64> {
    let events = fs::read_to_string(cgroup.join("memory.events")).ok()?;
    let high = events.lines().find_map(|line| line.strip_prefix("high "))?;
    high.parse().ok()
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use tempfile::TempDir;

    use super::*;

    fn events(high: u64) -> String {
        format!("low 0\nhigh {high}\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n")
    }

    fn cgroup(high: u64) -> TempDir {
        let cgroup = TempDir::new().unwrap();
        fs::write(cgroup.path().join("memory.events"), events(high)).unwrap();
        fs::write(cgroup.path().join("memory.high"), "max").unwrap();
        cgroup
    }

    #[test]
    fn without_the_controller_there_is_nothing_to_watch() {
        let cgroup = TempDir::new().unwrap();
        assert!(MemoryWatch::new(cgroup.path(), 1 << 20).unwrap().is_none());
        assert!(!cgroup.path().join("memory.high").exists());
    }

    #[test]
    fn going_over_the_limit_is_told_and_lifts_it() {
        let cgroup = cgroup(2);
        let path = cgroup.path();
        let watch = MemoryWatch::new(path, 1 << 20)
            .unwrap()
            .expect("it is there");
        let high = || fs::read_to_string(path.join("memory.high")).unwrap();
        assert_eq!(high(), "1048576");

        // Another event than ours.
        let other = events(2).replace("max 3", "max 4");
        fs::write(path.join("memory.events"), other).unwrap();
        assert!(!watch.exceeded());
        assert_eq!(high(), "1048576");

        fs::write(path.join("memory.events"), events(3)).unwrap();
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
        assert!(watch.exceeded());
        assert_eq!(high(), "max");
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO), Ok(0), "all was read");
    }
}
