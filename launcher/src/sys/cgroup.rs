//! The fleet's cgroup v2 directories: one for the fleet, and in it one for each worker.
//!
//! A worker's cgroup tells which worker a process belongs to, carries the capture programs, and
//! is the handle by which its whole process tree is signalled and killed. No controller is enabled
//! in them, so no limit changes and the "no internal processes" rule is not touched.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::{
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
    process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use crate::{
    failure::{Exit, Failure},
    worker::WorkerId,
};

/// Where the cgroup v2 hierarchy can be reached.
#[derive(Debug)]
pub struct Hierarchy {
    root: PathBuf,
    /// Our own cgroup, relative to `root`.
    own: PathBuf,
    /// A mount that nobody else sees, when the machine has mounted none.
    _private: Option<OwnedFd>,
}

impl Hierarchy {
    /// Finds the cgroup v2 mount (unified or hybrid), or makes one that only this process sees.
    ///
    /// # Errors
    /// When there is none and none can be mounted.
    pub fn find() -> Result<Self, Failure> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default();
        if let Some((root, mount)) = mounts.lines().find_map(cgroup2_mount) {
            // In a cgroup namespace the path can lie outside of what is mounted; then the mount's
            // root is the best place we can reach.
            let own = Path::new("/").join(own);
            let own = own.strip_prefix(root).unwrap_or(Path::new(""));
            let own = if own.starts_with("..") {
                Path::new("")
            } else {
                own
            };
            return Ok(Self {
                root: mount,
                own: own.to_owned(),
                _private: None,
            });
        }
        let mount = mount_privately().map_err(|error| {
            Failure::new(
                "cannot capture sockets",
                format_args!("no cgroup v2 hierarchy is mounted, and mounting one failed: {error}"),
                "mount -t cgroup2 none /sys/fs/cgroup/unified, or run with CAP_SYS_ADMIN",
            )
            .exit(Exit::Unavailable)
        })?;
        Ok(Self {
            // A detached mount has no path of its own; this one works in this process.
            root: PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
            own: PathBuf::from(own),
            _private: Some(mount),
        })
    }

    /// Where the fleet of this name lives, relative to the hierarchy's root: what a later launcher
    /// needs to find it again.
    #[must_use]
    pub fn fleet_path(&self, name: &str) -> PathBuf {
        self.own.join(format!("reuseport-launch.{name}"))
    }

    /// Creates the fleet's directory.
    ///
    /// # Errors
    /// When the hierarchy is read-only or we may not write there.
    pub fn create_fleet(&self, name: &str) -> Result<FleetCgroup, Failure> {
        let path = self.root.join(self.fleet_path(name));
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(Failure::new(
                    "cannot capture sockets",
                    format_args!("creating the cgroup {} failed: {error}", path.display()),
                    "run as root, or delegate this cgroup (systemd: Delegate=yes; containers: a writable cgroup mount)",
                )
                .exit(Exit::Unavailable));
            }
        }
        Ok(FleetCgroup { path })
    }

    /// A fleet that an earlier launcher left at this path, if it is still there.
    #[must_use]
    pub fn left_behind(&self, path: &Path) -> Option<FleetCgroup> {
        let path = self.root.join(path);
        path.is_dir().then_some(FleetCgroup { path })
    }
}

/// The mount's root and mount point, if this line of `/proc/self/mountinfo` is a cgroup v2 mount
/// (proc(5): the type follows the separator `-`).
fn cgroup2_mount(line: &str) -> Option<(&Path, PathBuf)> {
    let (mount, details) = line.split_once(" - ")?;
    if details.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let root = fields.next()?;
    // Space, tab, newline and backslash are written as octal escapes.
    let point = fields.next()?.replace("\\040", " ");
    Some((Path::new(root), PathBuf::from(point)))
}

fn mount_privately() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?)
}

/// The fleet's cgroup.
#[derive(Debug)]
pub struct FleetCgroup {
    path: PathBuf,
}

impl FleetCgroup {
    /// The directory, to attach programs to.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// Creates the cgroup of a worker.
    ///
    /// # Errors
    /// Those of `mkdir` and `open`.
    pub fn create_worker(&self, worker: WorkerId) -> io::Result<WorkerCgroup> {
        let path = self.path.join(worker.to_string());
        fs::create_dir(&path)?;
        WorkerCgroup::open(path)
    }

    /// The workers that an earlier launcher left in it.
    ///
    /// # Errors
    /// Those of `readdir` and `open`.
    pub fn workers(&self) -> io::Result<Vec<WorkerCgroup>> {
        let mut workers = Vec::new();
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
        let _ = remove_dir(&self.path);
    }
}

/// The cgroup of one worker.
#[derive(Debug)]
pub struct WorkerCgroup {
    path: PathBuf,
    id: u64,
    procs: File,
}

impl WorkerCgroup {
    fn open(path: PathBuf) -> io::Result<Self> {
        // A cgroup's id is the inode number of its directory (kernfs, on 64-bit machines).
        let id = fs::metadata(&path)?.ino();
        let procs = File::options()
            .write(true)
            .open(path.join("cgroup.procs"))?;
        Ok(Self { path, id, procs })
    }

    /// What `bpf_get_current_cgroup_id` returns for its processes.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its directory, to attach programs to.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn open_dir(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// `cgroup.procs`, open for writing: a process that writes `0` to it moves itself here.
    #[must_use]
    pub fn procs(&self) -> &File {
        &self.procs
    }

    /// The processes in it and below.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        collect_processes(&self.path, &mut pids);
        pids
    }

    /// Whether a process is left in it or below.
    #[must_use]
    pub fn populated(&self) -> bool {
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
        let killed = File::options()
            .write(true)
            .open(self.path.join("cgroup.kill"))
            .and_then(|mut file| file.write_all(b"1"));
        if killed.is_err() {
            for _ in 0..16 {
                if !self.populated() {
                    break;
                }
                self.signal(libc::SIGKILL);
            }
        }
    }

    /// Waits until no process is left, at most for `timeout`; returns whether that is so.
    #[must_use]
    pub fn wait_until_empty(&self, timeout: Duration) -> bool {
        let deadline = std::time::Instant::now() + timeout;
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
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(
                std::os::fd::AsFd::as_fd(&events),
                PollFlags::POLLPRI,
            )];
            if !matches!(poll(&mut fds, timeout), Ok(_) | Err(Errno::EINTR)) {
                return false;
            }
        }
    }

    /// CPU time used, in seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
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
        if let Ok(current) = fs::read_to_string(self.path.join("memory.current")) {
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

    /// Removes the directory, and those that the worker made below it.
    ///
    /// # Errors
    /// `EBUSY` when a process is left.
    pub fn remove(&self) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_mount_is_found() {
        let line = "42 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 none rw";
        assert_eq!(
            cgroup2_mount(line),
            Some((Path::new("/"), PathBuf::from("/sys/fs/cgroup/unified")))
        );
    }

    #[test]
    fn a_version_1_mount_is_not_taken_for_it() {
        let line = "42 31 0:38 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(cgroup2_mount(line), None);
    }

    #[test]
    fn a_mount_point_with_a_space_is_unescaped() {
        let line = "42 31 0:38 /a /mnt/my\\040cgroups rw - cgroup2 none rw";
        assert_eq!(
            cgroup2_mount(line),
            Some((Path::new("/a"), PathBuf::from("/mnt/my cgroups")))
        );
    }
}
