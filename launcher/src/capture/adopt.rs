//! Adoption: getting a copy of a worker's socket.

use std::{fs, os::fd::OwnedFd};

use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use crate::sys::{
    cgroup::{WorkerCgroup, open_pidfd},
    listeners::{cookie, is_mptcp},
};

/// Finds the socket with this cookie among the open files of the process that made it, or of
/// another one of its worker (the first may have ended after a fork).
pub(super) fn find(tgid: u32, cgroup: &WorkerCgroup, wanted: u64) -> Option<OwnedFd> {
    let has_cookie = |socket: &OwnedFd| cookie(socket).is_ok_and(|cookie| cookie == wanted);
    sockets(tgid).find(has_cookie).or_else(|| {
        let others = cgroup.processes().into_iter().filter(|&pid| pid != tgid);
        others.flat_map(sockets).find(has_cookie)
    })
}

/// Whether a process listens on an MPTCP socket.
pub(super) fn has_mptcp_listener(pid: u32) -> bool {
    sockets(pid).any(|socket| is_mptcp(&socket))
}

/// Copies of a process's sockets, one open at a time.
fn sockets(pid: u32) -> impl Iterator<Item = OwnedFd> {
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
        pidfd_getfd(pidfd.as_ref()?, fd, PidfdGetfdFlags::empty()).ok()
    })
}
