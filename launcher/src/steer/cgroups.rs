//! Attaching a program to a cgroup without a link (`BPF_PROG_ATTACH`): it stays as long as the cgroup, and
//! when that is removed as long as the sockets that were made in it, whoever has attached it.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// Of `linux/bpf.h`.
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;

/// `BPF_CGROUP_SOCK_OPS` of `linux/bpf.h`.
pub(super) const SOCK_OPS: u32 = 3;

/// `BPF_F_ALLOW_MULTI` of `linux/bpf.h`: others may be attached too.
const ALLOW_MULTI: u32 = 1 << 1;

/// The part of `union bpf_attr` for attaching; the kernel takes what is missing for 0.
#[repr(C)]
struct Attributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Has a program of sockets' operations run for the sockets of a cgroup (its directory), besides others.
///
/// # Errors
/// `EINVAL` when it is attached there already; `EPERM` when somebody else wants to be alone.
pub(super) fn attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    call(PROG_ATTACH, program, cgroup, ALLOW_MULTI)
}

/// Ends that.
///
/// # Errors
/// `ENOENT` when it is not attached there.
pub(super) fn detach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>) -> io::Result<()> {
    call(PROG_DETACH, program, cgroup, 0)
}

fn call(
    command: libc::c_int,
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    flags: u32,
) -> io::Result<()> {
    let mut attributes = Attributes {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: SOCK_OPS,
        flags,
    };
    // SAFETY: the attributes are of the kernel's layout and size, and both descriptors are open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
