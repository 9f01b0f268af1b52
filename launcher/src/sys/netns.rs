//! A network namespace of our own: nothing else is reachable in it, and nothing else disturbs it.

use std::{io, mem, os::fd::AsRawFd as _};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use socket2::{Domain, Socket, Type};

/// Moves the calling thread into a new network namespace in which only the loopback interface
/// works. The threads and processes that it starts afterwards are in it too; it goes with the last
/// of them.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_new() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: this request reads an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result)?;
    Ok(())
}
