//! The IPC channel that Node's `fork` gives a child, for `process.send` and
//! `process.on('message')`: one JSON value a line, both ways (Node's
//! `lib/internal/child_process/serialization.js`).

#[cfg(test)]
mod tests;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::failure::Failure;

/// The longest line, and how much may wait for a worker that does not read, in bytes.
const LIMIT: usize = 1024 * 1024;

/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// How often [`Channel::receive`] reads before others have their turn.
const CHUNKS: usize = 8;

/// Our end of a worker's channel. Never waits.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    pending: Pending,
    /// Whether the end was not met yet.
    open: bool,
}

/// What is on its way in a channel, for a launcher that goes on with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The beginning of a line.
    received: Vec<u8>,
    /// Lines, the first of which may have been sent in part.
    unsent: Vec<u8>,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// `process.send('ready')`
    Ready,
    /// Anything else.
    Other(Value),
}

/// What [`Channel::receive`] found.
#[derive(Debug, Default, PartialEq)]
pub struct Received {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Whether there may be more, for which nothing will wake us: call again soon.
    pub more: bool,
    /// That the channel has come to its end, told once. Drop it then.
    pub closed: Option<Closed>,
}

/// Why a channel has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The worker has ended, or has called `process.disconnect()`.
    ByWorker,
    /// The worker does not keep to the protocol: how.
    Broken(String),
}

impl Channel {
    /// Makes a channel. The second end is for [`Launch::ipc`](crate::sys::process::Launch::ipc).
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::from_fd(ours, Pending::default()), theirs))
    }

    /// Goes on with the socket of a channel, and what was [pending](Self::pending) there.
    #[must_use]
    pub fn from_fd(socket: OwnedFd, pending: Pending) -> Self {
        Self {
            socket,
            pending,
            open: true,
        }
    }

    /// What is half sent and half received, for who goes on with the socket.
    #[must_use]
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// Takes the messages that have arrived.
    ///
    /// Handles are not taken: a message that comes with one (`process.send(message, handle)`) is
    /// refused.
    pub fn receive(&mut self) -> Received {
        let mut received = Received::default();
        if !self.open {
            return received;
        }
        let mut chunk = vec![0; CHUNK];
        let mut closed = None;
        for _ in 0..CHUNKS {
            // With `recv`, which has no room for descriptors, the kernel closes those that come along
            // itself (`scm_detach_fds`).
            closed = match recv(&self.socket, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => Some(Closed::ByWorker),
                Ok((length, _)) => {
                    let bytes = chunk.get(..length).unwrap_or_default();
                    self.take(bytes, &mut received.messages).err()
                }
                Err(Errno::AGAIN) => return received,
                // The worker has gone without reading all of ours, which is told once; what it had
                // sent before is still to be read.
                Err(Errno::INTR | Errno::CONNRESET) => None,
                Err(error) => Some(Closed::Broken(format!("reading from it failed: {error}"))),
            };
            if closed.is_some() {
                break;
            }
        }
        self.open = closed.is_none();
        received.more = self.open;
        received.closed = closed;
        received
    }

    /// Adds the messages that these bytes complete.
    fn take(&mut self, mut bytes: &[u8], messages: &mut Vec<Message>) -> Result<(), Closed> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            self.extend_line(line)?;
            let line = std::mem::take(&mut self.pending.received);
            let value = serde_json::from_slice(&line)
                .map_err(|error| Closed::Broken(format!("a line is no JSON: {error}")))?;
            messages.extend(self.interpret(value));
        }
        self.extend_line(bytes)
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let line = &mut self.pending.received;
        if line.len() + bytes.len() > LIMIT {
            return Err(Closed::Broken("a line has more than 1 MiB".to_owned()));
        }
        line.extend_from_slice(bytes);
        Ok(())
    }

    fn interpret(&mut self, value: Value) -> Option<Message> {
        if value == "ready" {
            return Some(Message::Ready);
        }
        match value.get("cmd").and_then(Value::as_str) {
            // Node sends nothing else until a handle is acknowledged or refused.
            Some("NODE_HANDLE") => {
                // Where it has no room, the worker does not read, and would not see it either.
                let _ = self.send(&json!({"cmd": "NODE_HANDLE_NACK"}));
                None
            }
            // Between Node and Node.
            Some(command) if command.starts_with("NODE_") => None,
            _ => Some(Message::Other(value)),
        }
    }

    /// Sends a message, or keeps it until [`flush`](Self::flush) can send it.
    ///
    /// # Errors
    /// When the worker has closed the channel, or does not read: at most 1 MiB is kept.
    pub fn send(&mut self, message: &Value) -> Result<(), Failure> {
        let failed = |why: &str, hint: &str| Failure::new("cannot send to the worker", why, hint);
        let closed = || {
            failed(
                "it has closed its IPC channel",
                "is it Node, and without process.disconnect()?",
            )
        };
        if !self.open {
            return Err(closed());
        }
        let line = format!("{message}\n");
        if line.len() > LIMIT {
            return Err(failed(
                "the message has more than 1 MiB",
                "send the name of a file instead",
            ));
        }
        if self.pending.unsent.len() + line.len() > LIMIT {
            return Err(failed(
                "it does not read its messages, and 1 MiB of them waits already",
                "does it have process.on('message', …), and is it not stuck?",
            ));
        }
        self.pending.unsent.extend_from_slice(line.as_bytes());
        // The only error is that of a stream whose other end is closed.
        self.flush().map_err(|_| closed())
    }

    /// Sends what waits, as far as the worker takes it.
    ///
    /// # Errors
    /// When the worker takes nothing any more; what waits is forgotten then. If it is because the
    /// channel is closed, [`receive`](Self::receive) tells.
    pub fn flush(&mut self) -> io::Result<()> {
        let unsent = &mut self.pending.unsent;
        while !unsent.is_empty() {
            match send(
                &self.socket,
                unsent,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(length) => drop(unsent.drain(..length)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => {
                    unsent.clear();
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Whether something waits until the worker reads: call [`flush`](Self::flush) when the channel
    /// is writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.pending.unsent.is_empty()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
