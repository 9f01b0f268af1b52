//! The pump's end of one pipe: the bytes of one stream of one worker become lines.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{beside::Way, lines::Lines, tail::Tail};
use crate::worker::WorkerId;

/// Bytes read from a pipe at a time, and the longest line that is kept whole.
pub(super) const CHUNK: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// What one read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There was something, and there may be more.
    Data,
    /// There is nothing now, or nothing any more.
    Nothing,
}

/// One pipe of one worker.
#[derive(Debug)]
pub(super) struct Source {
    worker: WorkerId,
    stream: Stream,
    pipe: OwnedFd,
    lines: Lines,
    /// Of stderr; of stdout it stays empty.
    tail: Tail,
    at_end: bool,
}

impl Source {
    /// `pipe` is a non-blocking read end.
    pub(super) fn new(worker: WorkerId, stream: Stream, pipe: OwnedFd) -> Self {
        Self {
            worker,
            stream,
            pipe,
            lines: Lines::new(CHUNK),
            tail: Tail::default(),
            at_end: false,
        }
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.worker
    }

    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(super) fn into_tail(self) -> Tail {
        self.tail
    }

    /// Whether nothing will come any more: every process has closed the write end.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Reads once, at most as much as `chunk` holds, and passes on the lines this completes.
    pub(super) fn read(&mut self, chunk: &mut [u8], mut way: Way<'_, '_>) -> Progress {
        let Self {
            worker,
            stream,
            pipe,
            lines,
            tail,
            at_end,
        } = self;
        let mut pass_on = |piece: &[u8]| {
            way.pass_on(*worker, *stream, piece);
            if *stream == Stream::Stderr {
                tail.push(piece);
            }
        };
        let progress = match rustix::io::read(pipe, &mut *chunk) {
            Err(Errno::AGAIN | Errno::INTR) => return Progress::Nothing,
            Ok(0) | Err(_) => {
                let rest = lines.finish();
                if !rest.is_empty() {
                    pass_on(&rest);
                }
                way.end_line(*worker, *stream);
                *at_end = true;
                Progress::Nothing
            }
            Ok(length) => {
                lines.push(&chunk[..length], pass_on);
                Progress::Data
            }
        };
        way.flush(worker.slot);
        progress
    }
}
