//! The processes of a worker where no cgroup can be made for it: it, and all that descend from it. An
//! orphan, whose parent is the launcher by then, is known by the environment that it was started with.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    process,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::open_pidfd;
use crate::worker::WorkerId;

/// One worker's processes.
#[derive(Debug)]
pub(super) struct Tree {
    worker: WorkerId,
    /// Its main process, once that was started: its pid can be another's when it has ended.
    main: RefCell<Option<(u32, OwnedFd)>>,
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Whether it has ended, and was not reaped.
    ended: bool,
    /// CPU time used, also by children that have ended, in ticks.
    ticks: u64,
}

impl Tree {
    pub(super) fn new(worker: WorkerId) -> Self {
        Self {
            worker,
            main: RefCell::default(),
        }
    }

    /// Learns the main process, which was not reaped yet.
    pub(super) fn started(&self, pid: u32) -> io::Result<()> {
        let handle = open_pidfd(pid)?;
        *self.main.borrow_mut() = Some((pid, handle));
        Ok(())
    }

    /// Those that have not ended.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.stats().into_iter().map(|(pid, _)| pid).collect()
    }

    /// CPU time that those used which have not ended, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let ticks: u64 = self.stats().iter().map(|(_, stat)| stat.ticks).sum();
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64
    }

    /// Waits until none is left, at most for `timeout`; returns whether that is so.
    pub(super) fn wait_until_empty(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(&left) = self.processes().first() else {
                return true;
            };
            // One that ends now is not found, and the next look finds others.
            if let Ok(handle) = open_pidfd(left)
                && !has_ended(&handle, deadline.saturating_duration_since(Instant::now()))
            {
                return false;
            }
        }
    }

    fn stats(&self) -> Vec<(u32, Stat)> {
        let main = self.main.borrow();
        let main = main
            .as_ref()
            .filter(|(_, handle)| !has_ended(handle, Duration::ZERO))
            .map(|(pid, _)| *pid);
        let all = all();
        let own = process::id();
        let orphans = all
            .iter()
            .filter(|(_, stat)| stat.parent == own)
            .map(|(&pid, _)| pid)
            .filter(|&pid| is_marked(pid, self.worker));
        let roots = main.into_iter().chain(orphans).collect();
        descendants(roots, &all)
    }
}

/// These processes and all below them that have not ended.
fn descendants(roots: HashSet<u32>, all: &HashMap<u32, Stat>) -> Vec<(u32, Stat)> {
    let mut known = roots;
    loop {
        let before = known.len();
        for (&pid, stat) in all {
            if known.contains(&stat.parent) {
                known.insert(pid);
            }
        }
        if known.len() == before {
            break;
        }
    }
    let mut found: Vec<_> = known
        .into_iter()
        .filter_map(|pid| Some((pid, *all.get(&pid)?)))
        .filter(|(_, stat)| !stat.ended)
        .collect();
    found.sort_unstable_by_key(|&(pid, _)| pid);
    found
}

fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat(&text)?))
        })
        .collect()
}

/// Reads a line of `/proc/PID/stat` (proc_pid_stat(5)).
fn stat(line: &str) -> Option<Stat> {
    // The name, in parentheses, may have any character; what follows it does not.
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let times = fields.get(11..15)?;
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X"),
        ticks: times
            .iter()
            .filter_map(|time| time.parse::<u64>().ok())
            .sum(),
    })
}

/// Whether a process was started as one of this worker, by what the launcher has told it.
fn is_marked(pid: u32, worker: WorkerId) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let has = |name: &str, value: String| {
        let wanted = format!("{name}={value}");
        environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    };
    has("REUSEPORT_LAUNCH_SLOT", worker.slot.to_string())
        && has("REUSEPORT_LAUNCH_GENERATION", worker.generation.to_string())
}

/// Whether a process ends within this time.
fn has_ended(handle: &OwnedFd, within: Duration) -> bool {
    let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    // Interrupted, it has not.
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Tests run at the same time, and what one starts is a child of the other, too.
    fn worker(generation: u64) -> WorkerId {
        WorkerId {
            slot: 3,
            generation,
        }
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_does_no_harm() {
        let line = "42 (a) 1 (b c) Z 7 42 42 0 -1 4 1 2 3 4 10 20 30 40 20 0 1 0 5";
        let expected = Stat {
            parent: 7,
            ended: true,
            ticks: 100,
        };
        assert_eq!(stat(line), Some(expected));
        assert_eq!(stat("42 (short) S 1"), None);
    }

    #[test]
    fn all_that_descend_from_it_are_its_own_until_they_end() {
        let tree = Tree::new(worker(1));
        assert!(tree.processes().is_empty());
        let mut child = Command::new("/bin/sh")
            .args(["-c", "sh -c 'read _; exit' & read _; wait; exit"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("started");
        tree.started(child.id()).expect("it runs");
        assert!(tree.processes().contains(&child.id()));
        assert!(!tree.processes().contains(&process::id()));
        assert!(!tree.wait_until_empty(Duration::ZERO));
        child.wait().expect("it ends when nobody writes");
        assert!(tree.wait_until_empty(Duration::from_secs(10)));
    }

    #[test]
    fn an_orphan_is_known_by_its_environment() {
        let start = |generation: &str| {
            Command::new("/bin/sh")
                .args(["-c", "read _; exit"])
                .env("REUSEPORT_LAUNCH_SLOT", "3")
                .env("REUSEPORT_LAUNCH_GENERATION", generation)
                .stdin(Stdio::piped())
                .spawn()
                .expect("started")
        };
        // As one that was given to us: it is our child, and not the main process.
        let (mut its, mut anothers) = (start("7"), start("70"));
        let tree = Tree::new(worker(7));
        assert_eq!(tree.processes(), vec![its.id()]);
        for child in [&mut its, &mut anothers] {
            child.wait().expect("it ends when nobody writes");
        }
        assert!(tree.processes().is_empty());
    }
}
