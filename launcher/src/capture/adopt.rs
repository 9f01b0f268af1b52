//! Adoption: getting a copy of a worker's socket.

use std::{fs, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    process::{PidfdGetfdFlags, pidfd_getfd},
};

use crate::sys::{
    cgroup::{WorkerCgroup, open_pidfd},
    listeners::{cookie, is_mptcp},
};

/// The outcome of a search.
pub(super) enum Found {
    /// A copy of the socket.
    Socket(OwnedFd),
    /// No process of the worker has it open (any more).
    Nowhere,
    /// There are sockets that we may not copy; it may be one of them.
    Forbidden,
}

/// Finds the socket with this cookie among the open files of a worker's processes: of all of them,
/// because the one that made it may have ended after a fork.
pub(super) fn find(cgroup: &WorkerCgroup, wanted: u64) -> Found {
    let mut forbidden = false;
    for pid in cgroup.processes() {
        for copy in sockets(pid) {
            match copy {
                Ok(socket) if cookie(&socket).is_ok_and(|cookie| cookie == wanted) => {
                    return Found::Socket(socket);
                }
                Err(Errno::PERM) => forbidden = true,
                // Another socket, or one that was closed meanwhile.
                Ok(_) | Err(_) => {}
            }
        }
    }
    if forbidden {
        Found::Forbidden
    } else {
        Found::Nowhere
    }
}

/// Whether a worker has an MPTCP socket.
pub(super) fn has_mptcp_socket(cgroup: &WorkerCgroup) -> bool {
    all(cgroup).any(|socket| is_mptcp(&socket))
}

/// Copies of all of a worker's sockets that we may copy, one open at a time.
pub(super) fn all(cgroup: &WorkerCgroup) -> impl Iterator<Item = OwnedFd> {
    cgroup.processes().into_iter().flat_map(sockets).flatten()
}

/// Copies of a process's sockets, one open at a time.
fn sockets(pid: u32) -> impl Iterator<Item = Result<OwnedFd, Errno>> {
    let pidfd = open_pidfd(pid).ok();
    let fds = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    fds.filter_map(move |entry| {
        let target = fs::read_link(entry.path()).ok()?;
        if !target.to_str()?.starts_with("socket:") {
            return None;
        }
        let fd = entry.file_name().to_str()?.parse().ok()?;
        Some(pidfd_getfd(pidfd.as_ref()?, fd, PidfdGetfdFlags::empty()))
    })
}
