//! Processes as /proc shows them, and the end of those that are not our children.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::{AsFd as _, OwnedFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::PATIENCE;

/// A process that does not turn into another one when its pid is given away.
#[derive(Debug)]
pub struct Handle {
    pid: u32,
    pidfd: OwnedFd,
}

impl Handle {
    /// Of a process that runs.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn of(pid: u32) -> Self {
        let raw = Pid::from_raw(pid.cast_signed()).expect("a pid is not 0");
        let pidfd = pidfd_open(raw, PidfdFlags::empty());
        let pidfd = pidfd.unwrap_or_else(|error| panic!("pid {pid}: {error}"));
        Self { pid, pidfd }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal)
            .unwrap_or_else(|error| panic!("pid {}: {error}", self.pid));
    }

    /// Kills it, and waits until it has ended: its files are closed then.
    ///
    /// # Panics
    /// When it is gone, or takes longer than [`PATIENCE`] to end.
    #[track_caller]
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.poll(PollTimeout::ZERO)
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.poll(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                return;
            }
            assert!(!left.is_zero(), "pid {} does not end", self.pid);
        }
    }

    fn poll(&self, timeout: PollTimeout) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(ready) => ready > 0,
            Err(Errno::EINTR) => false,
            Err(error) => panic!("poll: {error}"),
        }
    }
}

/// A field of `/proc/PID/status`, without the white space around it; empty when the process is gone.
#[must_use]
pub fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(name, _)| *name == field);
    found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

/// The environment with which a process was started.
#[must_use]
pub fn environment(pid: u32) -> BTreeMap<String, String> {
    let variables = words(pid, "environ");
    let pairs = variables.iter().filter_map(|word| word.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The command line of a process.
#[must_use]
pub fn arguments(pid: u32) -> Vec<String> {
    words(pid, "cmdline")
}

/// What the file descriptors of a process refer to.
#[must_use]
pub fn files(pid: u32) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect()
}

/// The client's ports of the TCP connections that these processes have open, in the network
/// namespace of the calling thread: those that they have accepted, if they are servers.
#[must_use]
pub fn peer_ports(pids: &[u32]) -> BTreeSet<u16> {
    let open: BTreeSet<String> = pids
        .iter()
        .flat_map(|&pid| files(pid).into_values())
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| {
        fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default()
    });
    tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (peer, inode) = (fields.get(2)?, fields.get(9)?);
            let port = u16::from_str_radix(peer.rsplit_once(':')?.1, 16).ok()?;
            // A listening socket has no peer.
            (port != 0 && open.contains(&format!("socket:[{inode}]"))).then_some(port)
        })
        .collect()
}

/// What changes whenever a process executes a program: the random addresses that it was given.
#[must_use]
pub fn incarnation(pid: u32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/auxv")).unwrap_or_default()
}

/// Whether the programs that this process starts get its file descriptor `file`.
#[must_use]
pub fn is_inherited(file: u32) -> bool {
    const O_CLOEXEC: u32 = 0o2_000_000;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{file}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & O_CLOEXEC == 0)
}

/// The children of a process, zombies too.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let parent = pid.to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| status(pid, "PPid") == parent)
        .collect()
}

fn words(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(str::to_owned).collect()
}
