//! Descriptors that a process passes on to itself through exec.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use rustix::io::{FdFlags, dup, fcntl_getfd, fcntl_setfd};

/// Makes a duplicate that stays open through exec, should that come before it is dropped. Locks and
/// the like belong to what is open, not to the descriptor, so they are passed on with it.
///
/// # Errors
/// Those of dup(2).
pub fn hand_on(fd: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(dup(fd)?)
}

/// Takes a descriptor that [`hand_on`] has made before exec; it will not stay open through the next.
///
/// # Errors
/// `EBADF` when it is not open, or is not one that survives exec: then it is somebody else's.
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    let not_ours = || io::Error::from_raw_os_error(libc::EBADF);
    if fd < 3 {
        return Err(not_ours());
    }
    // SAFETY: not -1, and borrowed only to ask for its flags, which any number may be asked for.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
        return Err(not_ours());
    }
    // SAFETY: it is open, and nothing in this process has opened it: all that is opened here is
    // close-on-exec, which it is not. The state file, which names it once, was written by this very
    // process before its exec.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd as _, IntoRawFd as _};

    use super::*;

    #[test]
    fn what_was_handed_on_is_taken_once() {
        let file = std::fs::File::open("/dev/null").expect("it is there");
        assert!(take(file.as_raw_fd()).is_err(), "it is close-on-exec");
        let handed = hand_on(&file).expect("a duplicate").into_raw_fd();
        let taken = take(handed).expect("it was handed on");
        assert_eq!(taken.as_raw_fd(), handed);
        assert!(take(handed).is_err(), "it is close-on-exec by then");
    }
}
