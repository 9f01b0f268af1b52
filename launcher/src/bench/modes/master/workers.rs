//! The master's built-in workers: started, replaced, and started again when they end.

use std::{
    collections::HashMap,
    env,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    process::{self, Child, ChildStdout, Command, Stdio},
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::{
    super::{HTTP_VERB, passing, protocol::Way},
    token::Token,
};
use crate::{bench::usage::Used, failure::Failure};

/// All workers, those that were told to end among them.
#[derive(Debug)]
pub(super) struct Workers {
    executable: PathBuf,
    way: Way,
    work: String,
    /// Where the only worker listens; 0: any.
    port: u16,
    /// What they inherit.
    listener: Option<TcpListener>,
    /// By the number of their start.
    workers: HashMap<u32, Worker>,
    started: u32,
    /// By slot the worker that has its place.
    slots: Vec<Option<u32>>,
}

#[derive(Debug)]
struct Worker {
    slot: u32,
    child: Child,
    /// Tells its end.
    pidfd: OwnedFd,
    /// What it says when it is ready.
    output: ChildStdout,
    said: Vec<u8>,
    /// Our end of that through which connections are passed.
    channel: Option<OwnedFd>,
    /// The port that it listens on, 0 for none, once it is ready.
    port: Option<u16>,
}

/// What has happened to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It is ready, and has its slot's place.
    Ready { slot: u32 },
    /// It has ended, which leaves its slot without one.
    Ended { slot: u32, was_ready: bool },
    /// Nothing of concern.
    Nothing,
}

impl Workers {
    pub(super) fn new(
        way: Way,
        work: String,
        port: u16,
        slots: u32,
        listener: Option<TcpListener>,
    ) -> io::Result<Self> {
        Ok(Self {
            executable: env::current_exe()?,
            way,
            work,
            port,
            listener,
            workers: HashMap::new(),
            started: 0,
            slots: vec![None; slots as usize],
        })
    }

    /// Starts a worker for a slot.
    pub(super) fn start(&mut self, epoll: &Epoll, slot: u32) -> Result<(), Failure> {
        self.try_start(epoll, slot).map_err(|error| {
            let hint = "see whether the machine has too many processes, or too little memory";
            Failure::io("cannot start a worker", "starting it", &error, hint)
        })
    }

    fn try_start(&mut self, epoll: &Epoll, slot: u32) -> io::Result<()> {
        let mut channel = None;
        let (intake, stdin) = match self.way {
            Way::Own | Way::Proxy => ("listen", Stdio::null()),
            Way::Shared => ("shared", self.inherited()?),
            Way::SharedExclusive => ("shared-exclusive", self.inherited()?),
            Way::Pass => {
                let (ours, theirs) = passing::channel()?;
                channel = Some(ours);
                ("passed", theirs.into())
            }
        };
        let mut child = Command::new(&self.executable)
            .args([HTTP_VERB, "--intake", intake])
            .args(["--port", &self.port.to_string()])
            .args(["--slot", &slot.to_string(), "--work", &self.work])
            .args(["--parent", &process::id().to_string()])
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let output = child.stdout.take();
        let (Ok(pidfd), Some(output)) = (pidfd, output) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other("it can't be watched"));
        };
        let number = self.started;
        self.started += 1;
        let event = |token: Token| EpollEvent::new(EpollFlags::EPOLLIN, token.into());
        let worker = Worker {
            slot,
            child,
            pidfd,
            output,
            said: Vec::new(),
            channel,
            port: None,
        };
        let worker = self.workers.entry(number).insert_entry(worker).into_mut();
        epoll.add(worker.pidfd.as_fd(), event(Token::Ended(number)))?;
        epoll.add(worker.output.as_fd(), event(Token::Said(number)))?;
        Ok(())
    }

    fn inherited(&self) -> io::Result<Stdio> {
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(OwnedFd::from(listener.try_clone()?).into())
    }

    /// A worker has said something, which is which port it listens on.
    pub(super) fn on_said(&mut self, epoll: &Epoll, number: u32) -> News {
        let Some(worker) = self.workers.get_mut(&number) else {
            return News::Nothing;
        };
        let mut bytes = [0; 64];
        let read = worker.output.read(&mut bytes).unwrap_or(0);
        worker.said.extend(&bytes[..read]);
        let line = worker.said.strip_suffix(b"\n");
        if line.is_none() && read > 0 {
            return News::Nothing;
        }
        // There will be no more. (It is open elsewhere while another worker is being started.)
        let _ = epoll.delete(worker.output.as_fd());
        let port = line.and_then(|line| str::from_utf8(line).ok()?.parse().ok());
        let Some(port) = port else {
            // Its end will be told.
            return News::Nothing;
        };
        worker.port = Some(port);
        let slot = worker.slot;
        if self.way == Way::Own {
            // Its successor listens there, too.
            self.port = port;
        }
        let predecessor = self.slots[slot as usize].replace(number);
        if let Some(predecessor) = predecessor {
            self.end(predecessor);
        }
        News::Ready { slot }
    }

    /// A worker has ended.
    pub(super) fn on_ended(&mut self, number: u32) -> News {
        let Some(mut worker) = self.workers.remove(&number) else {
            return News::Nothing;
        };
        let _ = worker.child.wait();
        let place = &mut self.slots[worker.slot as usize];
        let had_place = *place == Some(number);
        if had_place {
            *place = None;
        }
        let was_ready = worker.port.is_some();
        match had_place || !was_ready {
            true => News::Ended {
                slot: worker.slot,
                was_ready,
            },
            false => News::Nothing,
        }
    }

    /// Asks a worker to end.
    pub(super) fn end(&mut self, number: u32) {
        if let Some(worker) = self.workers.get_mut(&number) {
            // What it was passed it still answers.
            worker.channel = None;
            // Not reaped yet, so it is still that process.
            let _ = kill_process(Pid::from_child(&worker.child), Signal::TERM);
        }
    }

    /// Has a worker end and leave its place, so that another one can listen where it does.
    pub(super) fn vacate(&mut self, slot: u32) {
        if let Some(number) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.end(number);
        }
    }

    /// Whether a worker has this slot's place.
    pub(super) fn has(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(Option::is_some)
    }

    /// Whether a worker is ready in each slot.
    pub(super) fn all_ready(&self) -> bool {
        self.slots.iter().all(Option::is_some)
    }

    /// Whether a worker of this slot runs, or was told to end and has not.
    pub(super) fn any_of(&self, slot: u32) -> bool {
        self.workers.values().any(|worker| worker.slot == slot)
    }

    /// Whether a worker of this slot has been started and is not ready yet.
    pub(super) fn starts(&self, slot: u32) -> bool {
        let mut workers = self.workers.values();
        workers.any(|worker| worker.slot == slot && worker.port.is_none())
    }

    fn ready(&self, slot: u32) -> Option<&Worker> {
        let number = self.slots.get(slot as usize).copied().flatten()?;
        self.workers.get(&number)
    }

    /// Where the worker of a slot listens, if it is ready.
    pub(super) fn address(&self, slot: u32) -> Option<SocketAddr> {
        let port = self.ready(slot)?.port?;
        Some((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Through what connections are passed to the worker of a slot.
    pub(super) fn channel(&self, slot: u32) -> Option<&OwnedFd> {
        self.ready(slot)?.channel.as_ref()
    }

    /// By slot the pid of the worker that is ready.
    pub(super) fn pids(&self) -> Vec<Option<u32>> {
        let slots = 0..self.slots.len() as u32;
        slots
            .map(|slot| Some(self.ready(slot)?.child.id()))
            .collect()
    }

    /// What those that run have used.
    pub(super) fn used(&self) -> Used {
        let mut used = Used::default();
        for worker in self.workers.values() {
            used += Used::by(worker.child.id());
        }
        used
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in self.workers.values_mut() {
            let _ = worker.child.kill();
        }
        for worker in self.workers.values_mut() {
            let _ = worker.child.wait();
        }
    }
}
