//! The built-in worker: a small HTTP/1.1 server with one thread, in a process of its own. It answers
//! `GET` with a few bytes and with its number (`X-Worker`), when it has done its work for the request.
//!
//! It is the same in all modes; only where its connections come from differs ([`Intake`]). It takes one
//! connection each time that it wakes; without work, and where nobody else waits for them, all.
//!
//! TERM ends it: it takes no more connections, answers what its open ones still ask, with
//! `Connection: close`, and ends when none is left, or after [`GRACE`].

mod connection;
mod http;

use std::{
    env,
    io::{self, Write as _},
    net::TcpStream,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    process,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with},
    process::{getppid, set_parent_process_death_signal},
    thread::set_current_timer_slack,
};

use self::connection::{Connection, Waits};
use super::{
    listening::listen,
    passing,
    table::Table,
    work::{Chance, Work},
};
use crate::sys::process::raise_file_limit;

/// How long open connections have after TERM.
const GRACE: Duration = Duration::from_secs(1);

/// Connections that are taken in one go, where nobody else waits for them, and none takes long.
const BATCH: usize = 64;

/// How long no connections are taken when too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

const EVENTS: usize = 256;

/// Events of connections have the connection's number.
const TERM: u64 = u64::MAX;
const INTAKE: u64 = u64::MAX - 1;

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Intake {
    /// From a socket of its own.
    Listen,
    /// From the listening socket that is its standard input, as that of others.
    Shared,
    /// The same with `EPOLLEXCLUSIVE`.
    SharedExclusive,
    /// From the master: each is passed to it through its standard input.
    Passed,
}

/// A built-in worker of the modes that are compared.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, value_enum, default_value = "listen")]
    intake: Intake,
    /// The port of `listen`; 0: any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Its number, if the launcher does not tell.
    #[arg(long, env = "REUSEPORT_LAUNCH_SLOT", default_value_t = 0)]
    slot: u32,
    #[arg(long, default_value = "none")]
    work: Work,
    /// The process whose end is to be its own.
    #[arg(long)]
    parent: Option<u32>,
}

/// The arguments, after the verb, of a worker with a socket of its own.
pub(super) fn arguments(port: u16, work: &Work) -> [String; 4] {
    let (port, work) = (port.to_string(), work.to_string());
    ["--port".to_owned(), port, "--work".to_owned(), work]
}

/// The whole life of a worker. It writes the port that it listens on, a line, when it is ready; 0 where
/// it has none.
pub(super) fn main() -> Result<()> {
    let options = Options::parse_from(env::args_os().skip(1));
    if let Some(parent) = options.parent {
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // It may have ended before.
        if getppid().map(|pid| pid.as_raw_pid().unsigned_abs()) != Some(parent) {
            return Ok(());
        }
    }
    raise_file_limit(0)?;
    // A sleep must not be 50 µs longer than it was meant to be.
    set_current_timer_slack(NonZero::new(1))?;
    Worker::start(&options)?.serve()
}

struct Worker {
    epoll: Epoll,
    term: SignalFd,
    slot: u32,
    work: Work,
    chance: Chance,
    kind: Intake,
    /// The socket where connections come from; none after TERM.
    intake: Option<OwnedFd>,
    /// It is not waited for: not yet, or for a while because too many files are open.
    paused: bool,
    connections: Table<(Connection, EpollFlags)>,
    /// When it ends at the latest.
    end: Option<Instant>,
}

impl Worker {
    fn start(options: &Options) -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let term = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let stdin = || io::stdin().as_fd().try_clone_to_owned();
        let (intake, port) = match options.intake {
            Intake::Listen => {
                let listener = listen(options.port)?;
                let port = listener.local_addr()?.port();
                (listener.into(), port)
            }
            Intake::Shared | Intake::SharedExclusive | Intake::Passed => {
                (stdin().context("no standard input")?, 0)
            }
        };
        let mut worker = Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            term,
            slot: options.slot,
            work: options.work.clone(),
            chance: Chance::new(process::id().into()),
            kind: options.intake,
            intake: Some(intake),
            paused: true,
            connections: Table::new(),
            end: None,
        };
        let term = EpollEvent::new(EpollFlags::EPOLLIN, TERM);
        worker.epoll.add(&worker.term, term)?;
        worker.resume()?;
        let mut out = io::stdout().lock();
        writeln!(out, "{port}")
            .and_then(|()| out.flush())
            .context("nobody reads which port it is")?;
        Ok(worker)
    }

    fn serve(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let left = match self.end {
                None => None,
                Some(_) if self.connections.is_empty() => return Ok(()),
                Some(end) => match end.checked_duration_since(Instant::now()) {
                    Some(left) => Some(left),
                    None => return Ok(()),
                },
            };
            let left = left.or(self.paused.then_some(PAUSE));
            // Rounded up, so that it is over then.
            let timeout = left.map_or(EpollTimeout::NONE, |left| {
                u16::try_from(left.as_millis() + 1)
                    .unwrap_or(u16::MAX)
                    .into()
            });
            let count = match self.epoll.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(error) => bail!("waiting failed: {error}"),
            };
            for event in &events[..count] {
                match event.data() {
                    TERM => self.begin_end()?,
                    INTAKE => self.take()?,
                    number => self.proceed(number as usize)?,
                }
            }
            if count == 0 {
                // No connection of ours has been closed, but others' may have been.
                self.resume()?;
            }
        }
    }

    /// Takes what waits where connections come from.
    fn take(&mut self) -> Result<()> {
        let batch = match self.kind {
            Intake::Listen | Intake::Passed if self.work == Work::None => BATCH,
            // Others may be faster, or connections that are open wait for their turns.
            _ => 1,
        };
        for _ in 0..batch {
            if !self.take_one()? {
                break;
            }
        }
        Ok(())
    }

    /// Takes a connection; whether there may be more.
    fn take_one(&mut self) -> Result<bool> {
        let Some(intake) = self.intake.as_ref().filter(|_| !self.paused) else {
            return Ok(false);
        };
        let taken = match self.kind {
            Intake::Passed => passing::receive(intake),
            Intake::Listen | Intake::Shared | Intake::SharedExclusive => {
                accept_with(intake, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).map(Some)
            }
        };
        match taken {
            Ok(Some(socket)) => {
                let socket = TcpStream::from(socket);
                let connection = Connection::new(socket);
                let number = self.connections.insert((connection, EpollFlags::empty()));
                // What it asks has often come with it.
                self.proceed(number)?;
                Ok(true)
            }
            // The master has no more for this one.
            Ok(None) => {
                self.close_intake();
                self.end.get_or_insert_with(|| Instant::now() + GRACE);
                Ok(false)
            }
            // Nothing (more), or another worker was faster.
            Err(Errno::AGAIN) => Ok(false),
            // The client has gone.
            Err(Errno::INTR | Errno::CONNABORTED) => Ok(true),
            Err(Errno::MFILE | Errno::NFILE) => {
                self.epoll.delete(intake)?;
                self.paused = true;
                Ok(false)
            }
            Err(error) => bail!("taking a connection failed: {error}"),
        }
    }

    /// Waits for connections (again).
    fn resume(&mut self) -> Result<()> {
        if let Some(intake) = self.intake.as_ref().filter(|_| self.paused) {
            let flags = match self.kind {
                Intake::SharedExclusive => EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE,
                Intake::Listen | Intake::Shared | Intake::Passed => EpollFlags::EPOLLIN,
            };
            self.epoll.add(intake, EpollEvent::new(flags, INTAKE))?;
            self.paused = false;
        }
        Ok(())
    }

    /// Goes on with a connection.
    fn proceed(&mut self, number: usize) -> Result<()> {
        let Self {
            epoll,
            slot,
            work,
            chance,
            connections,
            end,
            ..
        } = self;
        // It may have been closed since the event.
        let Some((connection, waited)) = connections.get_mut(number) else {
            return Ok(());
        };
        let waits = connection.proceed(&mut |request, output| {
            work.perform(chance);
            request.keep_alive &= end.is_none();
            http::answer(*request, *slot, output);
        });
        match waits {
            Waits::For(flags) if flags == *waited => {}
            Waits::For(flags) => {
                let mut event = EpollEvent::new(flags, number as u64);
                match waited.is_empty() {
                    true => epoll.add(connection.socket(), event)?,
                    false => epoll.modify(connection.socket(), &mut event)?,
                }
                *waited = flags;
            }
            Waits::Over => {
                // Closed by that, and with it no longer waited for.
                drop(connections.remove(number));
                self.resume()?;
            }
        }
        Ok(())
    }

    /// TERM has come: what waits for this worker alone is taken, and then nothing more.
    fn begin_end(&mut self) -> Result<()> {
        // Twice is as good as once.
        let _ = self.term.read_signal();
        if self.end.is_some() {
            return Ok(());
        }
        self.end = Some(Instant::now() + GRACE);
        if matches!(self.kind, Intake::Listen | Intake::Passed) {
            while self.take_one()? {}
        }
        self.close_intake();
        Ok(())
    }

    fn close_intake(&mut self) {
        if let Some(intake) = self.intake.take() {
            // Others may have it open, and then closing it would not be enough. Not there: paused.
            let _ = self.epoll.delete(intake);
        }
    }
}
