//! The master: the process that starts built-in workers, starts another one where one has ended, and
//! deals connections out, in the modes in which a process does that. One thread, one epoll.
//!
//! It ends with everything that it has started when its standard input, the socket to who has started
//! it, is closed. Its workers end with it, however that comes (`PR_SET_PDEATHSIG`).

mod front;
mod proxy;
mod splice;
mod token;
mod workers;

use std::{
    io,
    net::TcpListener,
    os::{fd::AsFd as _, unix::net::UnixStream},
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
    front::Front,
    token::Token,
    workers::{News, Workers},
};
use super::{
    listening::listen,
    protocol::{Answer, Lines, Request, Spec, State, Way},
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

/// How long it is waited before it is tried again to start a worker that ended before it was ready, or
/// to accept a connection when too many files were open.
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
    let mut answers = Lines::new(control.socket().try_clone()?);
    match Master::start(control, spec) {
        Ok(master) => master.run(),
        // Who is not there any more needs no answer.
        Err(error) => Ok(answers.write(&Answer::Failed(to_tell(error)))?),
    }
}

#[derive(Debug)]
struct Master {
    epoll: Epoll,
    control: Lines,
    /// Where clients connect to, if that is our socket.
    listener: Option<TcpListener>,
    /// It is not waited for: not all workers are ready, or too many files are open.
    paused: bool,
    workers: Workers,
    slots: u32,
    way: Way,
    front: Front,
    /// Whether all workers have been ready.
    started: bool,
    /// The slot that is to be replaced, and who asks waits for it.
    reload: Option<u32>,
    /// When it is tried again to start workers that ended at once, or to accept connections.
    retry: Option<Instant>,
}

impl Master {
    fn start(control: Lines, spec: Spec) -> Result<Self> {
        keep_to(&spec.cpus)?;
        raise_file_limit(spec.workers)?;
        let front = Front::new(&spec)?;
        let listener = match spec.way {
            Way::Own => None,
            Way::Shared | Way::SharedExclusive | Way::Pass | Way::Proxy => Some(listen(spec.port)?),
        };
        let inherited = match spec.way {
            Way::Shared | Way::SharedExclusive => {
                listener.as_ref().map(TcpListener::try_clone).transpose()?
            }
            Way::Own | Way::Pass | Way::Proxy => None,
        };
        // Behind a proxy each has a port of its own, whichever.
        let port = if spec.way == Way::Own { spec.port } else { 0 };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Control.into());
        epoll.add(control.socket(), event)?;
        let mut workers = Workers::new(spec.way, spec.work, port, spec.workers, inherited)?;
        for slot in 0..spec.workers {
            workers.start(&epoll, slot)?;
        }
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
                    Some(token @ (Token::Client(_) | Token::Upstream(_))) => {
                        if let Front::Proxy(proxy) = &mut self.front {
                            proxy.on_event(&self.epoll, token, event.events())?;
                        }
                    }
                    None => {}
                }
            }
            self.go_on()?;
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let retry = self.retry.map(|_| PAUSE);
        let patience = self.front.patience().or(retry);
        // All of them are short.
        patience.map_or(EpollTimeout::NONE, |patience| {
            (patience.as_millis() as u16).into()
        })
    }

    /// Does what no event tells.
    fn go_on(&mut self) -> Result<()> {
        self.front.go_on(&self.workers);
        if self.retry.is_some_and(|retry| Instant::now() >= retry) {
            self.retry = None;
            self.listen()?;
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
            && self.paused
            && !matches!(self.front, Front::Nothing)
        {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Listener.into());
            self.epoll.add(listener, event)?;
            self.paused = false;
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        for _ in 0..BATCH {
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(connection) => self.front.take(&self.epoll, &self.workers, connection)?,
                Err(Errno::AGAIN) => break,
                // The client has gone.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    self.epoll.delete(listener)?;
                    self.paused = true;
                    self.retry = Some(Instant::now() + PAUSE);
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
                self.front.aim(slot, self.workers.address(slot));
                self.greet()?;
                if self.reload == Some(slot) {
                    self.reload = None;
                    self.control.write(&Answer::Done)?;
                }
            }
            News::Ended { slot, was_ready } => {
                if !self.started {
                    let what = "cannot start the workers";
                    let why = format!("worker {slot} ended before it was ready");
                    self.tell(Failure::new(what, why, "see what it says"))?;
                    // And wait for being told to end.
                    return Ok(());
                }
                self.front.aim(slot, self.workers.address(slot));
                if was_ready {
                    self.fill()?;
                } else {
                    self.retry = Some(Instant::now() + PAUSE);
                    if self.reload.take_if(|reload| *reload == slot).is_some() {
                        let why = "the new worker ended before it was ready";
                        let failure = Failure::new("cannot replace a worker", why, "try again");
                        self.tell(failure)?;
                    }
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

    fn tell(&mut self, failure: Failure) -> io::Result<()> {
        self.control.write(&Answer::Failed(to_tell(failure.into())))
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
            by_worker: self.front.counts(),
            workers_cpu: workers.cpu,
            dispatcher_cpu: own.cpu,
            switches: workers.switches + own.switches,
        }))
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
    failure.into()
}
