//! Waiting until a file descriptor can be read.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A file descriptor that the event loop can wait for.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Waits on a duplicate of `fd`.
    ///
    /// # Errors
    /// When it can't be duplicated, or can't be polled (a regular file).
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = fd.try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and this one is never
        // taken out of the `AsyncFd`.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns when there is something to read, which must then be read whole: the next call waits
    /// for something new.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn ready(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
