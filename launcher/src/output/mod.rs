//! The workers' stdout and stderr, passed on line by line.
//!
//! ```text
//! worker 0 ──pipes──┐              ┌── the launcher's stdout
//! worker 1 ──pipes──┼──► pump ─────┤
//! worker 2 ──pipes──┘      ▲       └── the launcher's stderr
//!                 launcher ┘ (socket; duplicates of the read ends)
//! ```
//!
//! If the launcher itself read the pipes, killing it would break them, and many servers fail when
//! they can't write their log (`EPIPE`). So a small process of its own, the pump, reads them; it
//! outlives the launcher as long as any worker has a pipe open. The launcher keeps duplicates of the
//! read ends, so when the pump is killed no pipe breaks either: a worker that writes waits until
//! [`Output::restart`] has given the same read ends to a new pump. Only both killed at once break
//! the pipes.
//!
//! Besides, the pump keeps the last lines of each slot for `logs`, which asks it by a socket of its own in
//! the runtime directory, and writes log files. It waits for nobody but the reader of the launcher's own
//! output. After a takeover or an upgrade there is another pump for new workers; the old one goes on with
//! the old ones, and `logs` asks both.
//!
//! A killed pump takes with it what it had read and not yet written (parts of unfinished lines, as a
//! rule), what workers closed here had left in their pipes, and the tails and lines it knew.
//!
//! On a terminal each line begins with its worker's slot; elsewhere the bytes pass unchanged, but for
//! a newline after an unfinished last line. A line longer than 64 KiB is passed on in pieces, between
//! which a line of another worker may come; then, and only then, a newline is added to keep the two
//! apart.

mod beside;
mod child;
mod files;
mod lines;
mod logs;
mod message;
mod past;
mod pump;
mod readers;
mod record;
mod settings;
mod sink;
mod socket;
mod source;
mod tail;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, fchmod},
    io::ioctl_fionbio,
};

use self::{
    child::{Child, Waited},
    message::Request,
    record::{Ask, to_line},
};
pub use self::{
    logs::{Wanted, logs},
    pump::pump_main,
    settings::{LogFile, Settings},
    socket::Sockets,
};
use crate::worker::WorkerId;

/// The hidden first argument that makes the executable the pump: see [`pump_main`].
pub const PUMP_VERB: &str = "__output";

/// How long [`Output::tail`] waits for the pump, which may itself be waiting for a reader.
const TAIL_WAIT: Duration = Duration::from_secs(1);

/// How long [`Output::finish`] waits for the pump to write what is left.
const FINISH_WAIT: Duration = Duration::from_secs(1);

/// The launcher's side: the pipes of all workers and the pump that reads them.
///
/// Dropping it without [`finish`](Self::finish) leaves the pump to itself; it ends with the last
/// worker.
#[derive(Debug)]
pub struct Output {
    command: Command,
    pump: Child,
    pipes: BTreeMap<WorkerId, Pipes>,
    tail_requests: u64,
    /// Whether the last request for a tail was answered in time.
    answers: bool,
    settings: Settings,
    sockets: Option<Sockets>,
    /// The present pump's own.
    socket: Option<PathBuf>,
}

/// The read ends of a worker's pipes.
#[derive(Debug)]
struct Pipes {
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// Whether the present pump has them.
    sent: bool,
}

impl Output {
    /// Starts the pump: this executable under the verb [`PUMP_VERB`].
    pub fn start(settings: Settings, sockets: Sockets) -> io::Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("reuseport-launch");
        Self::start_with(command, settings, Some(sockets))
    }

    /// The same with another executable or other places for the lines to go to: `command` with the
    /// argument [`PUMP_VERB`] added must end up in [`pump_main`].
    pub fn start_with(
        mut command: Command,
        settings: Settings,
        sockets: Option<Sockets>,
    ) -> io::Result<Self> {
        command.arg(PUMP_VERB);
        let mut output = Self {
            pump: Child::spawn(&mut command)?,
            command,
            pipes: BTreeMap::new(),
            tail_requests: 0,
            answers: true,
            settings,
            sockets,
            socket: None,
        };
        if let Some(sockets) = &output.sockets {
            sockets.clear();
        }
        output.begin();
        Ok(output)
    }

    /// Tells the pump what to do with lines. Without a socket there is no `logs`, but all else.
    fn begin(&mut self) {
        let listening = self.sockets.as_ref().map(|sockets| {
            let (listener, path) = sockets.listen(self.pump.pid())?;
            let text = path.to_str().map(str::to_owned);
            Ok((listener, text.ok_or(io::ErrorKind::InvalidFilename)?, path))
        });
        let listening = listening.transpose().unwrap_or_else(|error: io::Error| {
            tracing::warn!("`logs` will show nothing, because its socket can't be opened: {error}");
            None
        });
        let (listener, text, path) = match listening {
            Some((listener, text, path)) => (Some(listener), Some(text), Some(path)),
            None => (None, None, None),
        };
        self.socket = path;
        let request = Request::Begin {
            settings: self.settings.clone(),
            socket: text,
        };
        let listener: Vec<_> = listener.iter().map(AsFd::as_fd).collect();
        // The first message has room; a pump that has died is started anew.
        if let Err(error) = self.pump.send(&request, &listener) {
            tracing::debug!(%error, "the output pump was not told what to do");
        }
    }

    /// The pump's process id: a child of this process, to be reaped by it.
    pub fn pid(&self) -> u32 {
        self.pump.pid()
    }

    /// Creates the pipes of a worker: the write ends for its stdout and stderr, close-on-exec.
    ///
    /// The state of the pump makes no difference: a pump that is dead or doesn't listen gets the
    /// read ends at the next occasion, and until then the pipes hold what is written.
    pub fn open(&mut self, worker: WorkerId) -> io::Result<(OwnedFd, OwnedFd)> {
        let (stdout, worker_stdout) = worker_pipe()?;
        let (stderr, worker_stderr) = worker_pipe()?;
        let pipes = Pipes {
            stdout,
            stderr,
            sent: false,
        };
        self.pipes.insert(worker, pipes);
        self.send_pipes();
        Ok((worker_stdout, worker_stderr))
    }

    /// The last lines of the worker's stderr, oldest first, after everything it had written was
    /// read: at most 20 lines and 8 KiB. Also known for a while after [`close`](Self::close).
    ///
    /// Waits up to a second, but not for a pump that hasn't answered before (nobody may be reading
    /// what it writes); empty when the pump doesn't answer or doesn't know the worker.
    pub fn tail(&mut self, worker: WorkerId) -> Vec<String> {
        self.send_pipes();
        self.tail_requests += 1;
        let request = Request::Tail {
            number: self.tail_requests,
            slot: worker.slot,
            generation: worker.generation,
        };
        if self.pump.send(&request, &[]).is_err() {
            return Vec::new();
        }
        let wait = if self.answers {
            TAIL_WAIT
        } else {
            Duration::ZERO
        };
        let deadline = Instant::now() + wait;
        self.answers = false;
        while let Waited::Answer(answer) = self.pump.answer(deadline) {
            // Even one that comes too late: it is alive again.
            self.answers = true;
            if answer.number == self.tail_requests {
                return answer.lines;
            }
        }
        Vec::new()
    }

    /// The worker is gone: drops its pipes here. The pump passes on what is left in them.
    pub fn close(&mut self, worker: WorkerId) {
        self.send_pipes();
        self.pipes.remove(&worker);
    }

    /// The pump has died and was reaped: starts another, which gets the same read ends.
    ///
    /// On failure everything stays as it is, and it may be tried again.
    pub fn restart(&mut self) -> io::Result<()> {
        self.pump = Child::spawn(&mut self.command)?;
        if let Some(socket) = self.socket.take() {
            // The next launcher would remove it, too.
            let _ = fs::remove_file(socket);
        }
        self.begin();
        self.answers = true;
        for pipes in self.pipes.values_mut() {
            pipes.sent = false;
        }
        self.send_pipes();
        Ok(())
    }

    /// There will be no more workers: lets the pump write what is left, waits for its end and reaps
    /// it.
    ///
    /// Waits up to a second. A pump that takes longer (a process that a worker left behind still
    /// has a pipe open, or nobody reads) is left to itself.
    pub fn finish(mut self) {
        self.send_pipes();
        let Self {
            pump,
            pipes,
            sockets,
            ..
        } = self;
        drop(pipes);
        let deadline = Instant::now() + FINISH_WAIT;
        if !pump.finish(deadline) {
            tracing::debug!("the output pump still has something to do");
        }
        // Those of workers that were taken over.
        if let Some(sockets) = sockets {
            sockets.wait_for_all(deadline);
        }
    }

    /// Has all pumps of this name open the log files anew.
    pub fn reopen(&self) {
        for path in self.sockets.iter().flat_map(Sockets::all) {
            let told = socket::connect(&path)
                .and_then(|mut stream| stream.write_all(&to_line(&Ask::Reopen)));
            if let Err(error) = told {
                tracing::debug!(%error, "an output pump was not told to open its files anew");
            }
        }
    }

    /// Gives the pump the pipes it doesn't have yet, as far as it takes them.
    fn send_pipes(&mut self) {
        for (worker, pipes) in self.pipes.iter_mut().filter(|(_, pipes)| !pipes.sent) {
            let request = Request::Open {
                slot: worker.slot,
                generation: worker.generation,
            };
            let ends = [pipes.stdout.as_fd(), pipes.stderr.as_fd()];
            match self.pump.send(&request, &ends) {
                Ok(()) => pipes.sent = true,
                Err(error) => {
                    tracing::debug!(%worker, %error, "the output pump takes no pipes now");
                    return;
                }
            }
        }
    }
}

/// A pipe for a worker to write to: read end, write end.
fn worker_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    // The pump must never wait for one worker. The worker's end stays as a server expects it.
    ioctl_fionbio(&reader, true)?;
    // A server that opens /dev/stderr as its log opens the pipe anew, and it may run as another user
    // than the one who created it. Others still can't reach it: /proc guards the way.
    fchmod(&writer, Mode::RUSR | Mode::WUSR | Mode::WGRP | Mode::WOTH)?;
    Ok((reader.into(), writer.into()))
}
