//! The master: the process that starts built-in workers, starts another one where one has ended, and
//! deals connections out, in the modes in which a process does that. One thread, one epoll.
//!
//! It ends with everything that it has started when its standard input, the socket to who has started
//! it, is closed. Its workers end with it, however that comes (`PR_SET_PDEATHSIG`).

mod proxy;
mod splice;
mod token;
mod workers;

use std::{
    collections::VecDeque,
    io,
    net::TcpListener,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    resource::UsageWho,
};
use rustix::{
    io::Errno,
    net::{SocketFlags, accept_with},
};

use self::{
    proxy::Proxy,
    token::Token,
    workers::{News, Workers},
};
use super::{
    passing,
    protocol::{Answer, Lines, Request, Spec, State, Way},
    worker::listen,
};
use crate::{
    bench::{guard::keep_to, usage::Used},
    control::protocol::Error,
    failure::Failure,
    sys::process::raise_file_limit,
};

const EVENTS: usize = 256;

/// Connections that are accepted in one go.
const BATCH: usize = 64;

/// When it is tried again to pass on a connection that nobody had room for.
const AGAIN: Duration = Duration::from_millis(1);

/// When a worker is started again that has ended before it was ready.
const PAUSE: Duration = Duration::from_millis(100);

/// The whole life of the master.
pub(super) fn main() -> Result<()> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let mut control = Lines::new(UnixStream::from(stdin));
    let spec: Spec = loop {
        if let Some(spec) = control.read().context("nobody says what to do")? {
            break spec;
        }
    };
    match Master::start(control, spec) {
        Ok(master) => master.run(),
        Err((mut control, error)) => {
            // Who is not there any more needs no answer.
            let _ = control.write(&Answer::Failed(to_tell(error)));
            Ok(())
        }
    }
}

struct Master {
    epoll: Epoll,
    control: Lines,
    /// Where clients connect to, if that is our socket.
    listener: Option<TcpListener>,
    /// Too many files are open: it is not waited for.
    paused: bool,
    workers: Workers,
    slots: u32,
    way: Way,
    front: Front,
    /// What has been said about the start.
    started: bool,
    /// The slot that is to be replaced, and who asks waits for it.
    reload: Option<u32>,
    /// When workers that ended at once are started again.
    retry: Option<Instant>,
}

/// What becomes of connections that the master accepts.
enum Front {
    /// It accepts none.
    Nothing,
    Pass(Passing),
    Proxy(Box<Proxy>),
}

struct Passing {
    /// Whose turn it is.
    next: u32,
    /// By slot.
    counts: Vec<u64>,
    /// Those that nobody had room for.
    held: VecDeque<OwnedFd>,
}

impl Master {
    fn start(control: Lines, spec: Spec) -> Result<Self, (Lines, anyhow::Error)> {
        let prepared = (|| {
            keep_to(&spec.cpus)?;
            raise_file_limit(spec.workers)?;
            let listener = match spec.way {
                Way::Own => None,
                _ => Some(listen(spec.port)?),
            };
            let inherited = match spec.way {
                Way::Shared | Way::SharedExclusive => {
                    listener.as_ref().map(TcpListener::try_clone).transpose()?
                }
                Way::Own | Way::Pass | Way::Proxy => None,
            };
            // Behind a proxy each has a port of its own, whichever.
            let port = if spec.way == Way::Own { spec.port } else { 0 };
            let front = match spec.way {
                Way::Own | Way::Shared | Way::SharedExclusive => Front::Nothing,
                Way::Pass => Front::Pass(Passing {
                    next: 0,
                    counts: vec![0; spec.workers as usize],
                    held: VecDeque::new(),
                }),
                Way::Proxy => Front::Proxy(Box::new(match &spec.upstreams[..] {
                    [] => Proxy::to_workers(spec.workers as usize),
                    upstreams => Proxy::to_upstreams(upstreams)?,
                })),
            };
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
            let mut workers = Workers::new(spec.way, spec.work, port, spec.workers, inherited)?;
            for slot in 0..spec.workers {
                workers.start(&epoll, slot)?;
            }
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Control.into());
            epoll.add(control.socket(), event)?;
            Ok((epoll, listener, workers, front))
        })();
        let (epoll, listener, workers, front) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((control, error)),
        };
        Ok(Self {
            epoll,
            control,
            listener,
            paused: true,
            workers,
            slots: spec.workers,
            way: spec.way,
            front,
            started: false,
            reload: None,
            retry: None,
        })
    }

    /// Runs until it is told to end: nobody talks to it any more.
    fn run(mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        self.greet()?;
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(error) => bail!("waiting failed: {error}"),
            };
            for event in &events[..count] {
                match Token::of(event.data()) {
                    Some(Token::Control) => match self.on_control() {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                        Err(error) => return Err(error.into()),
                    },
                    Some(Token::Listener) => self.accept()?,
                    Some(Token::Said(number)) => {
                        let news = self.workers.on_said(&self.epoll, number);
                        self.on_news(news)?;
                    }
                    Some(Token::Ended(number)) => {
                        let news = self.workers.on_ended(number);
                        self.on_news(news)?;
                    }
                    Some(Token::Client(number)) => {
                        if let Front::Proxy(proxy) = &mut self.front {
                            proxy.on_client(number);
                        }
                    }
                    Some(Token::Upstream(number)) => {
                        if let Front::Proxy(proxy) = &mut self.front {
                            proxy.on_upstream(&self.epoll, number)?;
                        }
                    }
                    None => {}
                }
            }
            self.go_on()?;
        }
    }

    fn timeout(&self) -> EpollTimeout {
        match &self.front {
            Front::Proxy(proxy) if proxy.has_unfinished() => return EpollTimeout::ZERO,
            Front::Pass(passing) if !passing.held.is_empty() => {
                return (AGAIN.as_millis() as u16).into();
            }
            _ => {}
        }
        if self.retry.is_some() || self.paused && self.started {
            return (PAUSE.as_millis() as u16).into();
        }
        EpollTimeout::NONE
    }

    /// Does what no event tells.
    fn go_on(&mut self) -> Result<()> {
        match &mut self.front {
            Front::Proxy(proxy) => proxy.go_on(),
            Front::Pass(passing) => {
                while let Some(connection) = passing.held.pop_front() {
                    if let Err(connection) = passing.pass(&self.workers, connection) {
                        passing.held.push_front(connection);
                        break;
                    }
                }
            }
            Front::Nothing => {}
        }
        if self.started && self.paused {
            self.listen()?;
        }
        if self.retry.is_some_and(|retry| Instant::now() >= retry) {
            self.retry = None;
            self.fill()?;
        }
        Ok(())
    }

    /// Says that all are ready, once they are, and begins to accept.
    fn greet(&mut self) -> Result<()> {
        if self.started || !self.workers.all_ready() {
            return Ok(());
        }
        self.started = true;
        self.listen()?;
        let answer = self.state()?;
        Ok(self.control.write(&answer)?)
    }

    /// Waits for connections (again), if it is us who accepts them.
    fn listen(&mut self) -> Result<()> {
        if let Some(listener) = &self.listener
            && !matches!(self.front, Front::Nothing)
        {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener.into());
            self.epoll.add(listener, event)?;
        }
        self.paused = false;
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        for _ in 0..BATCH {
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(connection) => match &mut self.front {
                    Front::Nothing => {}
                    Front::Pass(passing) => {
                        // Behind those that wait already.
                        if !passing.held.is_empty() {
                            passing.held.push_back(connection);
                        } else if let Err(connection) = passing.pass(&self.workers, connection) {
                            passing.held.push_back(connection);
                        }
                    }
                    Front::Proxy(proxy) => proxy.take(&self.epoll, connection)?,
                },
                Err(Errno::AGAIN) => break,
                // The client has gone.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    self.epoll.delete(listener)?;
                    self.paused = true;
                    break;
                }
                Err(error) => bail!("accepting a connection failed: {error}"),
            }
        }
        Ok(())
    }

    fn on_control(&mut self) -> io::Result<()> {
        let answer = match self.control.read()? {
            None => return Ok(()),
            Some(Request::State) => self.state()?,
            Some(Request::Reload { slot }) => match self.reload(slot) {
                Ok(()) => return Ok(()),
                Err(error) => Answer::Failed(to_tell(error)),
            },
        };
        self.control.write(&answer)
    }

    /// Begins to replace a worker. A worker that listens itself has to go first.
    fn reload(&mut self, slot: u32) -> Result<()> {
        if slot >= self.slots {
            bail!("there is no worker {slot}");
        }
        self.reload = Some(slot);
        match self.way {
            Way::Own => self.workers.vacate(slot),
            Way::Shared | Way::SharedExclusive | Way::Pass | Way::Proxy => {
                self.workers.start(&self.epoll, slot)?;
            }
        }
        Ok(())
    }

    fn on_news(&mut self, news: News) -> Result<()> {
        match news {
            News::Ready { slot } => {
                if let Front::Proxy(proxy) = &mut self.front {
                    proxy.aim(slot, self.workers.address(slot));
                }
                self.greet()?;
                if self.reload == Some(slot) {
                    self.reload = None;
                    self.control.write(&Answer::Done)?;
                }
            }
            News::Ended { slot, was_ready } => {
                if !self.started {
                    self.control.write(&Answer::Failed(to_tell(
                        Failure::new(
                            "cannot start the workers",
                            format_args!("worker {slot} ended before it was ready"),
                            "see what it says",
                        )
                        .into(),
                    )))?;
                    // And wait for being told to end.
                    return Ok(());
                }
                if let Front::Proxy(proxy) = &mut self.front {
                    proxy.aim(slot, self.workers.address(slot));
                }
                if !was_ready {
                    self.retry = Some(Instant::now() + PAUSE);
                    if self.reload.take_if(|reload| *reload == slot).is_some() {
                        let why = "the new worker ended before it was ready";
                        let failure = Failure::new("cannot replace a worker", why, "try again");
                        self.control
                            .write(&Answer::Failed(to_tell(failure.into())))?;
                    }
                } else {
                    self.fill()?;
                }
            }
            News::Nothing => {}
        }
        // A worker that listens itself has made room for its successor.
        if self.started && self.way == Way::Own && self.retry.is_none() {
            self.fill()?;
        }
        Ok(())
    }

    /// Starts a worker in each slot that has none.
    fn fill(&mut self) -> Result<()> {
        for slot in 0..self.slots {
            let vacant = match self.way {
                Way::Own => !self.workers.any_of(slot),
                _ => !self.workers.has(slot) && !self.workers.starts(slot),
            };
            if vacant {
                self.workers.start(&self.epoll, slot)?;
            }
        }
        Ok(())
    }

    fn state(&self) -> io::Result<Answer> {
        let address = match &self.listener {
            Some(listener) => Some(listener.local_addr()?),
            None => self.workers.address(0),
        };
        // What has been reaped is what `wait` has added up.
        let mut workers = Used::of(UsageWho::RUSAGE_CHILDREN)?;
        workers += self.workers.used();
        let own = Used::of(UsageWho::RUSAGE_SELF)?;
        Ok(Answer::State(State {
            address,
            pids: self.workers.pids(),
            by_worker: match &self.front {
                Front::Nothing => None,
                Front::Pass(passing) => Some(passing.counts.clone()),
                Front::Proxy(proxy) => Some(proxy.counts().to_vec()),
            },
            workers_cpu: workers.cpu,
            dispatcher_cpu: own.cpu,
            switches: workers.switches + own.switches,
        }))
    }
}

impl Passing {
    /// Passes a connection to the worker whose turn it is, or to the next one that has room; gives it
    /// back when none has.
    fn pass(&mut self, workers: &Workers, connection: OwnedFd) -> Result<(), OwnedFd> {
        let count = self.counts.len() as u32;
        for _ in 0..count {
            let slot = self.next;
            self.next = (slot + 1) % count;
            let Some(channel) = workers.channel(slot) else {
                continue;
            };
            if passing::send(channel, &connection).is_ok() {
                self.counts[slot as usize] += 1;
                return Ok(());
            }
        }
        Err(connection)
    }
}

/// An error in three parts, whatever it was.
fn to_tell(error: anyhow::Error) -> Error {
    let failure = error.downcast::<Failure>().unwrap_or_else(|error| {
        Failure::new(
            "cannot run the mode",
            format_args!("{error:#}"),
            "try again",
        )
    });
    let Failure {
        what,
        why,
        hint,
        exit: _,
    } = failure;
    Error { what, why, hint }
}
