//! What [`Running`](super::Running) and the master say to each other: one JSON value a line, one answer
//! for each request. Both ends are always the same executable, so the format is free to change.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::control::protocol::Error;

/// What a master is to run: the first line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) way: Way,
    /// Built-in workers; none where `upstreams` are told.
    pub(super) workers: u32,
    /// What they do for a request.
    pub(super) work: String,
    /// Where clients connect to; 0: any.
    pub(super) port: u16,
    /// The CPUs that master and workers may use; empty: any.
    pub(super) cpus: Vec<usize>,
    /// The servers to which connections are to be proxied, if they are not built-in workers.
    pub(super) upstreams: Vec<Upstream>,
}

/// How connections get to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// The (only) worker listens.
    Own,
    /// The workers inherit the listening socket.
    Shared,
    /// The same with `EPOLLEXCLUSIVE`.
    SharedExclusive,
    /// The master accepts, and passes them on.
    Pass,
    /// The master accepts, and moves their bytes.
    Proxy,
}

/// A server in another network namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Upstream {
    /// A process in that namespace.
    pub(super) pid: u32,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// What a master is asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    State,
    /// Replace the worker of a slot. Answered when the new one is ready and the old one told to end.
    Reload {
        slot: u32,
    },
}

/// What it answers. To [`Spec`] the state, when all workers are ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    State(State),
    Done,
    Failed(Error),
}

/// What a master knows. CPU time and context switches are those since its start, of workers that have
/// gone, too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Where clients connect to; `None` while a worker that listens itself is replaced.
    pub(super) address: Option<SocketAddr>,
    /// The workers by slot, where they are ready.
    pub(super) pids: Vec<Option<u32>>,
    /// The connections that each slot got, where the master deals them out.
    pub(super) by_worker: Option<Vec<u64>>,
    /// CPU seconds.
    pub(super) workers_cpu: f64,
    /// CPU seconds of the master.
    pub(super) dispatcher_cpu: f64,
    /// Context switches of all.
    pub(super) switches: u64,
}

/// The lines of a socket.
#[derive(Debug)]
pub(super) struct Lines {
    socket: UnixStream,
    buffer: Vec<u8>,
}

impl Lines {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Writes a line.
    pub(super) fn write(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.socket.write_all(&line)
    }

    /// Reads once, which waits as long as the socket waits, and returns the first line if it is whole
    /// then; `UnexpectedEof` when the other end has gone.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        if let Some(line) = self.line()? {
            return Ok(Some(line));
        }
        let mut bytes = [0; 4096];
        match self.socket.read(&mut bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.buffer.extend(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.line()
    }

    fn line<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.buffer.drain(..=end).collect();
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_one_by_one_however_they_come() {
        let (mut theirs, ours) = UnixStream::pair().expect("a pair");
        let mut lines = Lines::new(ours);
        theirs.write_all(b"[1").expect("there is room");
        assert_eq!(lines.read::<Vec<u8>>().expect("readable"), None);
        theirs.write_all(b"]\n[2]\n").expect("there is room");
        drop(theirs);
        assert_eq!(lines.read().expect("readable"), Some(vec![1_u8]));
        assert_eq!(lines.read().expect("readable"), Some(vec![2_u8]));
        let end = lines.read::<Vec<u8>>().expect_err("the other end has gone");
        assert_eq!(end.kind(), ErrorKind::UnexpectedEof);
    }
}
