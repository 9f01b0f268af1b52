//! The pump: the process between the workers' pipes and the launcher's stdout and stderr.
//!
//! One thread, one `poll(2)`. Each turn reads at most [`CHUNK`] bytes from each pipe that has
//! something, so a chatty worker can't starve the others. Writing waits for the reader: while the
//! launcher's stdout or stderr is stuck, nothing is read, the pipes fill, and a worker that writes
//! blocks, as it would without us. One stuck end holds up the other too.

use std::{
    collections::VecDeque,
    env, fs,
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::ExitCode,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};

use super::{
    beside::{Beside, Way},
    message::{Answer, Received, Request, receive, send},
    readers::Readers,
    settings::Settings,
    sink::{Prefix, Sink},
    source::{CHUNK, Progress, Source, Stream},
    tail::Tail,
};
use crate::worker::WorkerId;

/// Reads from one pipe before a tail is answered: together the largest pipe an unprivileged process
/// can have by default (1 MiB). A worker that has ended left no more than that.
const DRAIN_READS: usize = 16;

/// Tails kept of workers whose stderr has ended.
const ENDED_TAILS: usize = 32;

/// The whole life of the pump process. Stdin is the socket to the launcher.
///
/// It ends when the launcher's end of the socket is closed and every pipe is at its end; until then
/// no signal but KILL ends it, and whether the launcher lives makes no difference.
pub fn pump_main() -> ExitCode {
    detach();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let pump = Pump {
        launcher: Some(stdin.as_fd()),
        stdout: Sink::new(stdout.as_fd(), prefix(&stdout)),
        stderr: Sink::new(stderr.as_fd(), prefix(&stderr)),
        sources: Vec::new(),
        ended: VecDeque::new(),
        chunk: vec![0; CHUNK],
        beside: Beside::default(),
        socket: None,
    };
    match pump.run() {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody to tell; the launcher sees the end of its child and starts another.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Leaves the launcher's session, terminal and directory, so that neither Ctrl-C nor the end of the
/// launcher reaches the pump. Each step only adds safety, so none is fatal.
fn detach() {
    let _ = rustix::process::setsid();
    // Blocked rather than ignored: it needs no unsafe code, and a lone poll loop can't tell.
    let mut signals = SigSet::empty();
    signals.extend([
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]);
    let _ = signals.thread_block();
    let _ = rustix::thread::set_name(c"launcher-output");
    let _ = env::set_current_dir("/");
}

fn prefix(end: &impl IsTerminal) -> Prefix {
    let (no_color, term) = (env::var_os("NO_COLOR"), env::var_os("TERM"));
    Prefix::choose(end.is_terminal(), no_color.as_deref(), term.as_deref())
}

/// Who has something.
#[derive(Default)]
struct Ready {
    launcher: bool,
    /// By index.
    sources: Vec<usize>,
    readers: bool,
}

struct Pump<'fd> {
    launcher: Option<BorrowedFd<'fd>>,
    stdout: Sink<'fd>,
    stderr: Sink<'fd>,
    sources: Vec<Source>,
    ended: VecDeque<(WorkerId, Tail)>,
    chunk: Vec<u8>,
    beside: Beside,
    /// That of `logs`.
    socket: Option<String>,
}

impl Pump<'_> {
    fn run(mut self) -> io::Result<()> {
        self.serve_launcher();
        while self.launcher.is_some() || !self.sources.is_empty() {
            let Ready {
                launcher,
                sources,
                readers,
            } = self.wait()?;
            for index in sources {
                self.read(index);
            }
            if readers && self.beside.readers.serve(&self.beside.past) {
                self.beside.reopen();
            }
            if launcher {
                self.serve_launcher();
            }
            self.beside.tell_notes(&mut self.stderr);
            self.forget_ended();
        }
        // Before the readers see the end: then it is not there any more.
        if let Some(socket) = &self.socket {
            let _ = fs::remove_file(socket);
        }
        Ok(())
    }

    /// Waits until somebody has something for us, or takes something from us.
    fn wait(&self) -> io::Result<Ready> {
        let launcher = self.launcher.iter().copied();
        let pipes = self.sources.iter().map(|source| source.pipe());
        let mut fds: Vec<_> = launcher
            .chain(pipes)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .chain(self.beside.readers.poll_fds())
            .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::Error::EINTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        // An end or an error is reported as an event too; the read tells which it is.
        let has_events = |fd: &PollFd<'_>| fd.revents().is_none_or(|events| !events.is_empty());
        let (launcher, fds) = fds.split_at(self.launcher.iter().len());
        let (sources, readers) = fds.split_at(self.sources.len());
        let ready = sources.iter().enumerate().filter(|(_, fd)| has_events(fd));
        Ok(Ready {
            launcher: launcher.iter().any(has_events),
            sources: ready.map(|(index, _)| index).collect(),
            readers: readers.iter().any(has_events),
        })
    }

    fn read(&mut self, index: usize) -> Progress {
        let source = &mut self.sources[index];
        let sink = match source.stream() {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let beside = &mut self.beside;
        source.read(&mut self.chunk, Way { sink, beside })
    }

    fn serve_launcher(&mut self) {
        while let Some(launcher) = self.launcher {
            match receive(launcher) {
                Ok(Received::Message(Request::Begin { settings, socket }, listener)) => {
                    self.begin(settings, socket, listener);
                }
                Ok(Received::Message(Request::Open { slot, generation }, pipes)) => {
                    self.open(WorkerId { slot, generation }, pipes);
                }
                Ok(Received::Message(
                    Request::Tail {
                        number,
                        slot,
                        generation,
                    },
                    _,
                )) => {
                    let lines = self.tail(WorkerId { slot, generation });
                    // A launcher that doesn't take its answers has stopped waiting for them.
                    let _ = send(launcher, &Answer { number, lines }, &[]);
                }
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) | Err(_) => self.launcher = None,
            }
        }
    }

    fn begin(&mut self, settings: Settings, socket: Option<String>, mut listener: Vec<OwnedFd>) {
        if settings.json {
            self.stdout.without_prefix();
            self.stderr.without_prefix();
        }
        self.beside = Beside::new(settings, Readers::new(listener.pop()));
        self.socket = socket;
    }

    fn open(&mut self, worker: WorkerId, pipes: Vec<OwnedFd>) {
        self.stdout.make_room_for(worker.slot);
        self.stderr.make_room_for(worker.slot);
        self.beside.prepare(worker.slot);
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().zip(pipes);
        self.sources
            .extend(streams.map(|(stream, pipe)| Source::new(worker, stream, pipe)));
    }

    /// The last lines of the worker's stderr, after all it has written by now was read.
    fn tail(&mut self, worker: WorkerId) -> Vec<String> {
        let is_asked =
            |source: &Source| source.worker() == worker && source.stream() == Stream::Stderr;
        let tail = if let Some(index) = self.sources.iter().position(is_asked) {
            for _ in 0..DRAIN_READS {
                if self.read(index) == Progress::Nothing {
                    break;
                }
            }
            Some(self.sources[index].tail())
        } else {
            let mut ended = self.ended.iter();
            let found = ended.find(|(ended, _)| *ended == worker);
            found.map(|(_, tail)| tail)
        };
        tail.map_or_else(Vec::new, |tail| tail.lines().map(str::to_owned).collect())
    }

    fn forget_ended(&mut self) {
        for source in self.sources.extract_if(.., |source| source.at_end()) {
            if source.stream() == Stream::Stderr {
                self.ended.push_back((source.worker(), source.into_tail()));
            }
        }
        while self.ended.len() > ENDED_TAILS {
            self.ended.pop_front();
        }
    }
}
