//! Those who ask the pump for lines, each at the other end of a socket. None is waited for: what one
//! does not read in time is dropped, and counted.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use nix::{
    poll::{PollFd, PollFlags},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use rustix::process::geteuid;

use super::{
    past::Past,
    record::{Ask, Said, to_line},
};

/// Readers at a time.
const READERS: usize = 16;
/// The longest request, in bytes.
const ASK_MAX: usize = 1024;
/// Bytes that wait for one reader.
const PENDING_MAX: usize = 4 << 20;

/// The readers, and the socket that they come to.
#[derive(Debug, Default)]
pub(super) struct Readers {
    listener: Option<UnixListener>,
    readers: Vec<Reader>,
}

#[derive(Debug)]
struct Reader {
    stream: UnixStream,
    ask: Vec<u8>,
    wants: Option<Wants>,
    pending: VecDeque<u8>,
    dropped: u64,
    gone: bool,
}

/// What a reader still waits for.
#[derive(Clone, Copy, Debug)]
struct Wants {
    slot: Option<u32>,
    follow: bool,
}

impl Readers {
    pub(super) fn new(listener: Option<OwnedFd>) -> Self {
        let listener = listener.map(UnixListener::from);
        Self {
            // One that could wait for a client is of no use.
            listener: listener.filter(|listener| listener.set_nonblocking(true).is_ok()),
            readers: Vec::new(),
        }
    }

    /// Whether somebody waits for what this slot will say.
    pub(super) fn follow(&self, slot: u32) -> bool {
        self.readers.iter().any(|reader| reader.follows(slot))
    }

    /// Passes a line on to those who follow its slot.
    pub(super) fn tell(&mut self, slot: u32, line: &[u8]) {
        for reader in &mut self.readers {
            if reader.follows(slot) {
                reader.push(line);
            }
        }
    }

    /// What to wait for, in the order of [`serve`](Self::serve).
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let listener = self.listener.iter();
        let listener = listener.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN));
        listener.chain(self.readers.iter().map(Reader::poll_fd))
    }

    /// Reads what is asked and writes what waits, as far as that goes without waiting. Whether the log
    /// files are to be opened anew.
    pub(super) fn serve(&mut self, past: &Past) -> bool {
        let mut reopen = false;
        for reader in &mut self.readers {
            reopen |= reader.serve(past);
        }
        self.accept();
        self.readers.retain(|reader| !reader.gone);
        reopen
    }

    /// Writes what waits, as far as that goes without waiting.
    pub(super) fn flush(&mut self) {
        for reader in &mut self.readers {
            reader.flush();
        }
        self.readers.retain(|reader| !reader.gone);
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        // Whatever the error is, there is nobody to talk to.
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let refused = if !may_ask(stream.as_fd()) {
                "only root and the user that started the launcher may read its logs"
            } else if self.readers.len() == READERS {
                "too many read its logs already"
            } else {
                self.readers.push(Reader::new(stream));
                continue;
            };
            // A fresh socket has room for it.
            let _ = (&stream).write_all(&to_line(&Said::Refused(refused.to_owned())));
        }
    }
}

/// The socket's mode keeps others out; this holds where a file system ignores modes, too.
fn may_ask(stream: BorrowedFd<'_>) -> bool {
    getsockopt(&stream, PeerCredentials)
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw())
}

impl Reader {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            ask: Vec::new(),
            wants: None,
            pending: VecDeque::new(),
            dropped: 0,
            gone: false,
        }
    }

    fn follows(&self, slot: u32) -> bool {
        self.wants
            .is_some_and(|wants| wants.follow && wants.slot.is_none_or(|wanted| wanted == slot))
    }

    fn poll_fd(&self) -> PollFd<'_> {
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !self.pending.is_empty());
        PollFd::new(self.stream.as_fd(), events)
    }

    /// Adds a line, or counts it where too much waits already.
    fn push(&mut self, line: &[u8]) {
        if self.pending.len() + line.len() > PENDING_MAX {
            self.dropped += 1;
            return;
        }
        self.tell_dropped();
        self.pending.extend(line);
    }

    /// It is a few bytes above the limit, once each time that there is room again.
    fn tell_dropped(&mut self) {
        if self.dropped > 0 {
            self.pending.extend(to_line(&Said::Dropped(self.dropped)));
            self.dropped = 0;
        }
    }

    fn serve(&mut self, past: &Past) -> bool {
        let mut bytes = [0; ASK_MAX];
        let mut reopen = false;
        match self.stream.read(&mut bytes) {
            Ok(0) => self.gone = true,
            Ok(length) if self.wants.is_none() => {
                self.ask.extend_from_slice(&bytes[..length]);
                reopen = self.answer(past);
            }
            // It has asked already.
            Ok(_) => {}
            Err(error) if is_temporary(&error) => {}
            Err(_) => self.gone = true,
        }
        self.flush();
        reopen
    }

    /// Answers when the request is whole. Whether it was to open the log files anew.
    fn answer(&mut self, past: &Past) -> bool {
        let Some(end) = self.ask.iter().position(|&byte| byte == b'\n') else {
            self.gone |= self.ask.len() >= ASK_MAX;
            return false;
        };
        match serde_json::from_slice(&self.ask[..end]) {
            Ok(Ask::Reopen) => {
                self.gone = true;
                return true;
            }
            Ok(Ask::Logs {
                slot,
                lines,
                follow,
            }) => {
                let last = past.last(slot, lines, PENDING_MAX / 2);
                self.pending.extend(last.into_iter().flatten());
                self.pending.extend(to_line(&Said::Past));
                self.wants = Some(Wants { slot, follow });
            }
            Err(error) => {
                let why = format!("it does not understand the request: {error}");
                self.pending.extend(to_line(&Said::Refused(why)));
                self.wants = Some(Wants {
                    slot: None,
                    follow: false,
                });
            }
        }
        false
    }

    fn flush(&mut self) {
        loop {
            if self.pending.is_empty() {
                self.tell_dropped();
            }
            let (waiting, _) = self.pending.as_slices();
            if waiting.is_empty() {
                break;
            }
            match self.stream.write(waiting) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_temporary(&error) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        // All that it wanted.
        self.gone |= self.wants.is_some_and(|wants| !wants.follow);
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
