//! The pump as the launcher sees it: a child process at the other end of a socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Command, Stdio},
    time::Instant,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::waitpid,
    unistd::Pid,
};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use super::message::{Answer, Received, Request, receive, send};

/// A pump that was started.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    socket: OwnedFd,
}

/// What [`Child::answer`] waited for.
pub(super) enum Waited {
    Answer(Answer),
    TooLong,
    /// The pump is gone.
    Closed,
}

impl Child {
    /// Starts it with a new socket as its stdin.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let spawned = command.stdin(Stdio::from(theirs)).spawn();
        // The command would keep their end open here, and the end of the pump would go unnoticed.
        command.stdin(Stdio::null());
        Ok(Self {
            pid: spawned?.id(),
            socket,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a request, or fails at once where it would have to wait.
    pub(super) fn send(&self, request: &Request, pipes: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(&self.socket, request, pipes)
    }

    /// Waits for an answer, to whichever request.
    pub(super) fn answer(&self, deadline: Instant) -> Waited {
        loop {
            match receive(&self.socket) {
                Ok(Received::Message(answer, _)) => return Waited::Answer(answer),
                Ok(Received::Nothing) => {}
                Ok(Received::Closed) | Err(_) => return Waited::Closed,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TooLong;
            }
            // Rounded up: a wait of 0 ms would be a busy loop until the deadline.
            let millis = left.as_millis().saturating_add(1);
            let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
            let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            // Whatever it says, receiving and the deadline decide.
            let _ = poll(&mut readable, timeout);
        }
    }

    /// Says that no more requests will come, waits for the pump to end and reaps it: whether it
    /// ended in time.
    pub(super) fn finish(self, deadline: Instant) -> bool {
        // Fails only where the pump is gone already.
        let _ = shutdown(&self.socket, Shutdown::Write);
        loop {
            match self.answer(deadline) {
                Waited::Answer(_) => {}
                Waited::TooLong => return false,
                Waited::Closed => break,
            }
        }
        // Only its end closes its socket, so this doesn't block; and it fails only where the pump
        // was reaped already.
        let _ = waitpid(Pid::from_raw(self.pid.cast_signed()), None);
        true
    }
}
