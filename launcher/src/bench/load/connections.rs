//! The connections of a thread, and what each is doing.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with},
};

use super::answer::Answer;
use crate::bench::sources::Sources;

/// A connection of the client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) phase: Phase,
    /// What epoll looks for.
    pub(super) watched: Watched,
    /// Requests that it has got.
    pub(super) requests: u32,
    /// Whether one of them is counted.
    pub(super) is_counted: bool,
}

/// What a connection is doing.
#[derive(Debug)]
pub(super) enum Phase {
    /// Open, and free.
    Idle,
    /// So many bytes of the request are sent; none, maybe, because it is not open yet.
    Sending(Request, usize),
    /// The request is sent.
    Receiving(Request, Answer),
    /// Answered, and to be closed by the server.
    Finishing,
}

/// A request that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// When it was due.
    pub(super) due: Instant,
    pub(super) is_counted: bool,
    /// Whether the connection is to be closed after it.
    pub(super) is_last: bool,
}

/// What epoll looks for on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    Nothing,
    /// Whether something can be read.
    Reading,
    /// Whether it is open, and something can be written.
    Writing,
}

/// Names a connection, also to epoll: its place in the table, and how often that was taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    place: u32,
    turn: u32,
}

impl From<Key> for u64 {
    fn from(Key { place, turn }: Key) -> Self {
        Self::from(turn) << 32 | Self::from(place)
    }
}

impl From<u64> for Key {
    fn from(key: u64) -> Self {
        Self {
            // The two halves.
            place: key as u32,
            turn: (key >> 32) as u32,
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    places: Vec<(u32, Option<Connection>)>,
    free: Vec<u32>,
}

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            // There are no more than files.
            self.places.len() as u32 - 1
        });
        let (turn, content) = &mut self.places[place as usize];
        *content = Some(connection);
        Key { place, turn: *turn }
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut Connection> {
        let (turn, content) = self.places.get_mut(key.place as usize)?;
        content.as_mut().filter(|_| *turn == key.turn)
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    /// Whether this is the connection's present request, and has not ended.
    pub(super) fn is_under_way(&self, key: Key, number: u32) -> bool {
        self.find(key).is_some_and(|connection| {
            let is_busy = matches!(connection.phase, Phase::Sending(..) | Phase::Receiving(..));
            is_busy && connection.requests == number
        })
    }

    fn find(&self, key: Key) -> Option<&Connection> {
        let (turn, content) = self.places.get(key.place as usize)?;
        content.as_ref().filter(|_| *turn == key.turn)
    }

    /// Takes one out. Dropping it closes it.
    pub(super) fn remove(&mut self, key: Key) -> Option<Connection> {
        let (turn, content) = self.places.get_mut(key.place as usize)?;
        if *turn != key.turn {
            return None;
        }
        let connection = content.take()?;
        *turn = turn.wrapping_add(1);
        self.free.push(key.place);
        Some(connection)
    }
}

/// Opens connections to one address.
#[derive(Debug)]
pub(super) struct Opener {
    to: SocketAddr,
    /// On IPv4's loopback interface: where from. That of IPv6 has one address only.
    sources: Option<Sources>,
}

impl Opener {
    /// The one of this one of the threads.
    pub(super) fn new(to: SocketAddr, thread: usize) -> Self {
        let has_sources = matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback());
        Self {
            to,
            sources: has_sources.then(|| Sources::of(thread)),
        }
    }

    /// Begins to connect. On the loopback interface the connection is mostly open when this returns.
    pub(super) fn open(&mut self) -> Result<OwnedFd, Errno> {
        let socket = socket_with(
            match self.to {
                SocketAddr::V4(_) => AddressFamily::INET,
                SocketAddr::V6(_) => AddressFamily::INET6,
            },
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        if let Some(sources) = &mut self.sources {
            // The port is chosen when it is known where to: any will do that is free for this pair of
            // addresses. Where the kernel lacks the option, it is chosen now.
            let _ = setsockopt(&socket, IpBindAddressNoPort, &true);
            bind(&socket, &SocketAddr::from((sources.next(), 0)))?;
        }
        match connect(&socket, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    }
}
