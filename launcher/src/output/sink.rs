//! One end of the road: the launcher's stdout or stderr, where the lines of all workers meet.

use std::{
    ffi::OsStr,
    io::Write as _,
    mem,
    os::fd::{AsFd, BorrowedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;

use crate::worker::WorkerId;

/// Colours of the slots in turn (SGR codes): no red, which servers use for errors.
const PALETTE: [u8; 6] = [36, 33, 32, 35, 34, 96];

/// What stands before each line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefix {
    /// Nothing: the lines are for a program.
    None,
    /// The slot.
    Plain,
    /// The slot in its colour.
    Coloured,
}

impl Prefix {
    /// The prefix for an end that is a terminal or not, given `NO_COLOR` and `TERM`.
    pub(super) fn choose(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        let colour =
            no_color.is_none_or(OsStr::is_empty) && term.is_some_and(|term| term != "dumb");
        match (terminal, colour) {
            (false, _) => Self::None,
            (true, false) => Self::Plain,
            (true, true) => Self::Coloured,
        }
    }
}

/// Collects lines and writes them in as few calls as keep them whole.
#[derive(Debug)]
pub(super) struct Sink<'fd> {
    fd: BorrowedFd<'fd>,
    prefix: Prefix,
    /// Digits of the largest slot seen.
    width: usize,
    /// The worker whose over-long line was begun and not ended.
    open: Option<WorkerId>,
    buffer: Vec<u8>,
}

impl<'fd> Sink<'fd> {
    pub(super) fn new(fd: BorrowedFd<'fd>, prefix: Prefix) -> Self {
        Self {
            fd,
            prefix,
            width: 1,
            open: None,
            buffer: Vec::new(),
        }
    }

    /// From now on nothing stands before the lines.
    pub(super) fn without_prefix(&mut self) {
        self.prefix = Prefix::None;
    }

    /// Adds a line of our own.
    pub(super) fn note(&mut self, text: &str) {
        if self.open.take().is_some() {
            self.buffer.push(b'\n');
        }
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
    }

    /// A worker of this slot will write: from now on the prefixes are aligned for it.
    pub(super) fn make_room_for(&mut self, slot: u32) {
        let digits = slot.checked_ilog10().map_or(1, |log| log as usize + 1);
        self.width = self.width.max(digits);
    }

    /// Adds a line, or, without a newline at its end, a piece of one. The next piece of the same
    /// worker continues it; a line of another worker ends it first.
    pub(super) fn add(&mut self, worker: WorkerId, piece: &[u8]) {
        if self.open != Some(worker) {
            if self.open.is_some() {
                self.buffer.push(b'\n');
            }
            self.add_prefix(worker.slot);
        }
        self.buffer.extend_from_slice(piece);
        self.open = (!piece.ends_with(b"\n")).then_some(worker);
    }

    /// Ends the worker's line if it has begun one.
    pub(super) fn end_line(&mut self, worker: WorkerId) {
        if self.open == Some(worker) {
            self.add(worker, b"\n");
        }
    }

    fn add_prefix(&mut self, slot: u32) {
        let width = self.width;
        let written = match self.prefix {
            Prefix::None => Ok(()),
            Prefix::Plain => write!(self.buffer, "{slot:>width$} │ "),
            Prefix::Coloured => {
                let colour = PALETTE[slot as usize % PALETTE.len()];
                // The leading 0 ends whatever the line before has left switched on.
                write!(self.buffer, "\x1b[0;{colour}m{slot:>width$} │\x1b[0m ")
            }
        };
        written.expect("a Vec takes every write");
    }

    /// Writes what was added and waits until it is taken. When nobody can take it any more (the
    /// reader is gone, the terminal has hung up, the disk is full), it is thrown away: a worker must
    /// not suffer for it.
    pub(super) fn flush(&mut self) {
        let buffer = mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            if write_all(self.fd, batch).is_err() {
                break;
            }
            rest = after;
        }
        self.buffer = buffer;
        self.buffer.clear();
    }
}

/// How much to write in one call: whole lines up to `PIPE_BUF` bytes, which a pipe takes undivided
/// even when others (the launcher's own log) write to it too; a longer line alone.
fn batch_len(bytes: &[u8]) -> usize {
    let is_newline = |&byte: &u8| byte == b'\n';
    let head = &bytes[..bytes.len().min(libc::PIPE_BUF)];
    if head.len() == bytes.len() {
        return head.len();
    }
    let last_in_head = head.iter().rposition(is_newline);
    last_in_head
        .or_else(|| bytes.iter().position(is_newline))
        .map_or(bytes.len(), |newline| newline + 1)
}

/// Writes all of it, also where someone has made the description non-blocking.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut writable = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut writable, PollTimeout::NONE) {
                    Ok(_) | Err(nix::Error::EINTR) => {}
                    Err(_) => return Err(Errno::AGAIN),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, pipe},
        thread,
    };

    use super::*;

    const ZERO: WorkerId = WorkerId {
        slot: 0,
        generation: 1,
    };
    const ONE: WorkerId = WorkerId {
        slot: 1,
        generation: 4,
    };

    fn written(prefix: Prefix, fill: impl FnOnce(&mut Sink<'_>)) -> String {
        let (mut reader, writer) = pipe().unwrap();
        let mut sink = Sink::new(writer.as_fd(), prefix);
        fill(&mut sink);
        sink.flush();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_prefix_follows_the_terminal_and_the_environment() {
        let xterm = Some(OsStr::new("xterm"));
        let choose = Prefix::choose;
        assert_eq!(choose(false, None, xterm), Prefix::None);
        assert_eq!(choose(true, None, xterm), Prefix::Coloured);
        assert_eq!(choose(true, Some(OsStr::new("")), xterm), Prefix::Coloured);
        assert_eq!(choose(true, Some(OsStr::new("1")), xterm), Prefix::Plain);
        assert_eq!(choose(true, None, Some(OsStr::new("dumb"))), Prefix::Plain);
        assert_eq!(choose(true, None, None), Prefix::Plain);
    }

    #[test]
    fn lines_get_their_slot_aligned() {
        let text = written(Prefix::Plain, |sink| {
            sink.add(ZERO, b"a\n");
            sink.make_room_for(10);
            sink.add(ONE, b"b\n");
        });
        assert_eq!(text, "0 │ a\n 1 │ b\n");
    }

    #[test]
    fn a_colour_does_not_reach_into_the_line() {
        let text = written(Prefix::Coloured, |sink| sink.add(ONE, b"b\n"));
        assert_eq!(text, "\x1b[0;33m1 │\x1b[0m b\n");
    }

    #[test]
    fn pieces_of_one_line_are_joined_unless_another_worker_writes() {
        let text = written(Prefix::Plain, |sink| {
            sink.add(ZERO, b"a");
            sink.add(ZERO, b"b\n");
            sink.add(ZERO, b"c");
            sink.add(ONE, b"x\n");
            sink.add(ZERO, b"d\n");
        });
        assert_eq!(text, "0 │ ab\n0 │ c\n1 │ x\n0 │ d\n");
    }

    #[test]
    fn an_unfinished_line_is_ended_once() {
        let text = written(Prefix::None, |sink| {
            sink.add(ZERO, b"a");
            sink.end_line(ONE);
            sink.end_line(ZERO);
            sink.end_line(ZERO);
        });
        assert_eq!(text, "a\n");
    }

    #[test]
    fn batches_end_at_lines() {
        assert_eq!(batch_len(b"a\nb"), 3);
        let short = b"0123456\n".repeat(1000);
        assert_eq!(batch_len(&short), libc::PIPE_BUF);
        let odd = b"0123456789\n".repeat(1000);
        assert_eq!(batch_len(&odd), libc::PIPE_BUF / 11 * 11);
        let mut long = vec![b'x'; 10_000];
        assert_eq!(batch_len(&long), 10_000);
        long.extend(b"\nnext\n");
        assert_eq!(batch_len(&long), 10_001);
    }

    #[test]
    fn a_sink_without_reader_takes_everything() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut sink = Sink::new(writer.as_fd(), Prefix::None);
        sink.add(ZERO, &vec![b'x'; 1 << 20]);
        sink.flush();
        assert!(sink.buffer.is_empty());
    }

    #[test]
    fn a_non_blocking_sink_loses_nothing() {
        let (mut reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let read = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes.len()
        });
        let mut sink = Sink::new(writer.as_fd(), Prefix::None);
        sink.add(ZERO, &b"0123456789\n".repeat(100_000));
        sink.flush();
        drop(writer);
        assert_eq!(read.join().unwrap(), 1_100_000);
    }
}
