//! The fleet's cgroup v2 directories: one for the fleet, and in it one for each worker.
//!
//! A worker's cgroup tells which worker a process belongs to, carries the capture programs, and
//! is the handle by which its whole process tree is signalled and killed. No controller is enabled
//! in them, but for that of memory where its use is limited; so no other limit changes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{ancestry::Tree, memory::MemoryWatch};
use crate::worker::WorkerId;

/// The fleet's cgroup.
#[derive(Debug)]
pub struct FleetCgroup {
    path: PathBuf,
    id: u64,
    /// The directory, open and locked: two launchers can agree in name and cgroup without having the
    /// runtime directory, and its lock, in common.
    directory: File,
    /// Whether it is the launcher's own, in which none can be made.
    shared: bool,
}

impl FleetCgroup {
    /// The launcher's own cgroup at this path, where none can be made: for all workers, which are told
    /// apart by whose children they are.
    ///
    /// # Errors
    /// `NotFound` when it is not the launcher's own, or the machine's root; as for [`FleetCgroup::lock`].
    pub(super) fn shared(path: PathBuf) -> io::Result<Self> {
        // The machine's root has no type: what is attached there would be for all processes.
        fs::metadata(path.join("cgroup.type"))?;
        let own = std::process::id().to_string();
        let processes = fs::read_to_string(path.join("cgroup.procs"))?;
        if !processes.lines().any(|pid| pid == own) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut fleet = Self::lock(path)?;
        fleet.shared = true;
        Ok(fleet)
    }

    /// Whether it is the launcher's own, in which none can be made.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Locks the fleet's cgroup, for as long as this lives.
    ///
    /// # Errors
    /// `EWOULDBLOCK` when another launcher has it.
    pub(super) fn lock(path: PathBuf) -> io::Result<Self> {
        let directory = File::open(&path)?;
        directory.try_lock()?;
        Self::locked(path, directory)
    }

    /// With a directory that is open and locked.
    ///
    /// # Errors
    /// Those of `fstat`.
    pub(super) fn locked(path: PathBuf, directory: File) -> io::Result<Self> {
        let id = directory.metadata()?.ino();
        Ok(Self {
            path,
            id,
            directory,
            shared: false,
        })
    }

    /// The directory, to attach programs to.
    #[must_use]
    pub fn directory(&self) -> &File {
        &self.directory
    }

    /// Its number: no other cgroup has it while this one exists.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Enables the memory controller for the workers' cgroups, where the fleet's has it.
    pub fn enable_memory(&self) {
        if self.shared {
            return;
        }
        // The kernel refuses what is not available, and everything is as before.
        let _ = fs::write(self.path.join("cgroup.subtree_control"), "+memory");
    }

    /// Creates the cgroup of a worker; or, where none can be made, what stands for it.
    ///
    /// # Errors
    /// Those of `mkdir` and `open`.
    pub fn create_worker(&self, worker: WorkerId) -> io::Result<WorkerCgroup> {
        if self.shared {
            return Ok(WorkerCgroup::shared(&self.path, worker));
        }
        let path = self.path.join(worker.to_string());
        fs::create_dir(&path)?;
        WorkerCgroup::open(path)
    }

    /// The cgroup of a worker that an earlier launcher has started.
    ///
    /// # Errors
    /// Those of `open`; `NotFound` when it has none.
    pub fn open_worker(&self, worker: WorkerId) -> io::Result<WorkerCgroup> {
        if self.shared {
            return Err(io::ErrorKind::NotFound.into());
        }
        WorkerCgroup::open(self.path.join(worker.to_string()))
    }

    /// The workers that an earlier launcher left in it.
    ///
    /// # Errors
    /// Those of `readdir` and `open`.
    pub fn workers(&self) -> io::Result<Vec<WorkerCgroup>> {
        let mut workers = Vec::new();
        if self.shared {
            return Ok(workers);
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                workers.push(WorkerCgroup::open(entry.path())?);
            }
        }
        Ok(workers)
    }
}

impl Drop for FleetCgroup {
    /// Removes the directory. With a worker still in it the kernel refuses, and it stays.
    fn drop(&mut self) {
        if self.shared {
            return;
        }
        let _ = remove_dir(&self.path);
    }
}

/// The cgroup of one worker.
#[derive(Debug)]
pub struct WorkerCgroup {
    path: PathBuf,
    id: u64,
    procs: Option<File>,
    /// Where it has none of its own: its processes. The rest is the launcher's own cgroup.
    tree: Option<Tree>,
}

impl WorkerCgroup {
    fn open(path: PathBuf) -> io::Result<Self> {
        // A cgroup's id is the inode number of its directory (kernfs, on 64-bit machines).
        let id = fs::metadata(&path)?.ino();
        let procs = File::options()
            .write(true)
            .open(path.join("cgroup.procs"))?;
        Ok(Self {
            path,
            id,
            procs: Some(procs),
            tree: None,
        })
    }

    fn shared(path: &Path, worker: WorkerId) -> Self {
        /// No cgroup has such an id: they are counted from 1.
        const NONE: u64 = 1 << 63;
        Self {
            path: path.to_owned(),
            id: NONE | worker.generation << 16 | u64::from(worker.slot),
            procs: None,
            tree: Some(Tree::new(worker)),
        }
    }

    /// Whether it is the launcher's own, so that the worker is told apart by whose children it has.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.tree.is_some()
    }

    /// Learns its main process, which was not reaped yet.
    ///
    /// # Errors
    /// Those of `pidfd_open`.
    pub fn started(&self, pid: u32) -> io::Result<()> {
        self.tree.as_ref().map_or(Ok(()), |tree| tree.started(pid))
    }

    /// What `bpf_get_current_cgroup_id` returns for its processes, where it is its own; else a number
    /// that no other worker has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is that of this worker.
    #[must_use]
    pub fn is_of(&self, worker: WorkerId) -> bool {
        self.tree.is_none() && self.path.ends_with(worker.to_string())
    }

    /// Whether the cgroup with this id is below it.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.tree.is_none() && contains(&self.path, id)
    }

    /// Its directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, to attach programs to.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open_dir(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// `cgroup.procs`, open for writing: a process that writes `0` to it moves itself here. `None` where
    /// its processes stay in the launcher's own.
    #[must_use]
    pub fn procs(&self) -> Option<&File> {
        self.procs.as_ref()
    }

    /// The processes in it and below.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        if let Some(tree) = &self.tree {
            return tree.processes();
        }
        let mut pids = Vec::new();
        collect_processes(&self.path, &mut pids);
        pids
    }

    /// Whether a process is left in it or below.
    #[must_use]
    pub fn populated(&self) -> bool {
        if let Some(tree) = &self.tree {
            return !tree.processes().is_empty();
        }
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
    }

    /// Sends the signal with this number (1–64) once to every process.
    pub fn signal(&self, signal: i32) {
        let handles: Vec<_> = self
            .processes()
            .into_iter()
            .filter_map(|pid| Some((pid, open_pidfd(pid).ok()?)))
            .collect();
        // A pid can be given to somebody else between the reading of the list and the opening of
        // the handle; one that is still listed was ours when it was opened.
        let still = self.processes();
        // SAFETY: the caller gives a number of the kernel's range; that it may be a real-time signal,
        // which libc keeps for itself, only matters to who receives it.
        let signal = unsafe { Signal::from_raw_unchecked(signal) };
        for (pid, handle) in handles {
            if still.contains(&pid) {
                // It may have ended meanwhile, which is what is wanted.
                let _ = pidfd_send_signal(&handle, signal);
            }
        }
    }

    /// Kills every process, even one that is just being forked (`cgroup.kill`, Linux 5.14; by
    /// repetition before).
    pub fn kill(&self) {
        if self.kill_at_once().is_err() {
            for _ in 0..16 {
                if !self.populated() {
                    break;
                }
                self.signal(libc::SIGKILL);
            }
        }
    }

    /// Kills every process by `cgroup.kill` alone.
    ///
    /// # Errors
    /// `NotFound` before Linux 5.14, which does not have it; and where it is not the worker's own.
    pub fn kill_at_once(&self) -> io::Result<()> {
        if self.tree.is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut file = File::options()
            .write(true)
            .open(self.path.join("cgroup.kill"))?;
        file.write_all(b"1")
    }

    /// Waits until no process is left, at most for `timeout`; returns whether that is so.
    #[must_use]
    pub fn wait_until_empty(&self, timeout: Duration) -> bool {
        if let Some(tree) = &self.tree {
            return tree.wait_until_empty(timeout);
        }
        let deadline = Instant::now() + timeout;
        let Ok(events) = File::open(self.path.join("cgroup.events")) else {
            return true;
        };
        loop {
            // Reading re-arms the notification (kernfs reports POLLPRI for changes since).
            let mut text = String::new();
            let read = io::Seek::rewind(&mut &events)
                .and_then(|()| io::Read::read_to_string(&mut &events, &mut text));
            if read.is_err() || text.lines().any(|line| line == "populated 0") {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            if !matches!(poll(&mut fds, timeout), Ok(_) | Err(Errno::EINTR)) {
                return false;
            }
        }
    }

    /// CPU time used, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        if let Some(tree) = &self.tree {
            return Some(tree.cpu_seconds());
        }
        let stat = fs::read_to_string(self.path.join("cpu.stat")).ok()?;
        let usec = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(usec.parse::<u64>().ok()? as f64 / 1e6)
    }

    /// Memory in use, in bytes: the cgroup's own account where the memory controller is enabled,
    /// else the sum of what its processes have resident (shared pages counted for each).
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        if self.tree.is_none()
            && let Ok(current) = fs::read_to_string(self.path.join("memory.current"))
        {
            return current.trim().parse().ok();
        }
        let page = rustix::param::page_size() as u64;
        let pages: u64 = self
            .processes()
            .iter()
            .filter_map(|pid| {
                let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
                statm.split(' ').nth(1)?.parse::<u64>().ok()
            })
            .sum();
        Some(pages * page)
    }

    /// Has the kernel tell when it uses more memory than `limit`, in bytes; `None` where the memory
    /// controller is not enabled.
    ///
    /// # Errors
    /// Those of [`MemoryWatch`]'s files.
    pub fn watch_memory(&self, limit: u64) -> io::Result<Option<MemoryWatch>> {
        if self.tree.is_some() {
            return Ok(None);
        }
        MemoryWatch::new(&self.path, limit)
    }

    /// Removes the directory, and those that the worker made below it.
    ///
    /// # Errors
    /// `EBUSY` when a process is left.
    pub fn remove(&self) -> io::Result<()> {
        if self.tree.is_some() {
            return Ok(());
        }
        remove_dir(&self.path)
    }
}

fn collect_processes(dir: &Path, pids: &mut Vec<u32>) {
    if let Ok(list) = fs::read_to_string(dir.join("cgroup.procs")) {
        // 0 stands for a process of a pid namespace that we can't see.
        pids.extend(
            list.lines()
                .filter_map(|pid| pid.parse().ok())
                .filter(|&pid: &u32| pid != 0),
        );
    }
    for child in subdirectories(dir) {
        collect_processes(&child, pids);
    }
}

fn contains(dir: &Path, id: u64) -> bool {
    subdirectories(dir).iter().any(|child| {
        fs::metadata(child).is_ok_and(|metadata| metadata.ino() == id) || contains(child, id)
    })
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    for child in subdirectories(dir) {
        remove_dir(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a handle of a process that stays that process's even when its pid is recycled.
///
/// # Errors
/// Those of `pidfd_open(2)`.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}
