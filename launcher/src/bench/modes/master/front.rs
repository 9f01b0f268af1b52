//! What becomes of the connections that a master accepts.

use std::{collections::VecDeque, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use anyhow::Result;
use nix::sys::epoll::Epoll;

use super::{
    super::{
        passing,
        protocol::{Spec, Way},
    },
    proxy::Proxy,
    workers::Workers,
};

/// When it is tried again to pass on a connection that nobody had room for.
const AGAIN: Duration = Duration::from_millis(1);

/// What becomes of connections that the master accepts.
#[derive(Debug)]
pub(super) enum Front {
    /// It accepts none.
    Nothing,
    /// They are passed on.
    Pass(Passing),
    /// Their bytes are moved.
    Proxy(Box<Proxy>),
}

impl Front {
    /// What a master is to do. The workers are not there yet.
    ///
    /// # Errors
    /// When servers in other network namespaces can't be reached.
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        let workers = spec.workers as usize;
        Ok(match spec.way {
            Way::Own | Way::Shared | Way::SharedExclusive => Self::Nothing,
            Way::Pass => Self::Pass(Passing {
                next: 0,
                counts: vec![0; workers],
                held: VecDeque::new(),
            }),
            Way::Proxy => Self::Proxy(Box::new(match &spec.upstreams[..] {
                [] => Proxy::to_workers(workers),
                upstreams => Proxy::to_upstreams(upstreams)?,
            })),
        })
    }

    /// Deals out a connection, which does not block.
    pub(super) fn take(
        &mut self,
        epoll: &Epoll,
        workers: &Workers,
        connection: OwnedFd,
    ) -> Result<()> {
        match self {
            Self::Nothing => {}
            Self::Pass(passing) => {
                // Behind those that wait already.
                passing.held.push_back(connection);
                passing.go_on(workers);
            }
            Self::Proxy(proxy) => proxy.take(epoll, connection)?,
        }
        Ok(())
    }

    /// Goes on with what no event tells.
    pub(super) fn go_on(&mut self, workers: &Workers) {
        match self {
            Self::Nothing => {}
            Self::Pass(passing) => passing.go_on(workers),
            Self::Proxy(proxy) => proxy.go_on(),
        }
    }

    /// When it has to go on at the latest; `None`: not before the next event.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Self::Pass(passing) if !passing.held.is_empty() => Some(AGAIN),
            Self::Proxy(proxy) if proxy.has_unfinished() => Some(Duration::ZERO),
            Self::Nothing | Self::Pass(_) | Self::Proxy(_) => None,
        }
    }

    /// The worker of a slot listens there now, or nowhere.
    pub(super) fn aim(&mut self, slot: u32, address: Option<SocketAddr>) {
        if let Self::Proxy(proxy) = self {
            proxy.aim(slot, address);
        }
    }

    /// By slot, the connections that were dealt out.
    pub(super) fn counts(&self) -> Option<Vec<u64>> {
        match self {
            Self::Nothing => None,
            Self::Pass(passing) => Some(passing.counts.clone()),
            Self::Proxy(proxy) => Some(proxy.counts().to_vec()),
        }
    }
}

/// Connections that are passed to workers, in turn.
#[derive(Debug)]
pub(super) struct Passing {
    /// Whose turn it is.
    next: u32,
    /// By slot.
    counts: Vec<u64>,
    /// Those that nobody has had room for.
    held: VecDeque<OwnedFd>,
}

impl Passing {
    fn go_on(&mut self, workers: &Workers) {
        while let Some(connection) = self.held.pop_front() {
            if !self.pass(workers, &connection) {
                self.held.push_front(connection);
                break;
            }
        }
    }

    /// Passes a connection to the worker whose turn it is, or to the next one that has room. Returns
    /// whether one had.
    fn pass(&mut self, workers: &Workers, connection: &OwnedFd) -> bool {
        let count = self.counts.len() as u32;
        for _ in 0..count {
            let slot = self.next;
            self.next = (slot + 1) % count;
            let Some(channel) = workers.channel(slot) else {
                continue;
            };
            if passing::send(channel, connection).is_ok() {
                self.counts[slot as usize] += 1;
                return true;
            }
        }
        false
    }
}
