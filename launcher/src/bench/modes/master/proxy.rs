//! The master as a load balancer on loopback: for each connection another one to a worker, in turn, and
//! the bytes of both are moved (`splice`). A worker that can't be connected to is passed over.

use std::{
    collections::BTreeSet,
    fs::File,
    io, mem,
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::epoll::{Epoll, EpollEvent, EpollFlags},
};
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    super::{protocol::Upstream, table::Table},
    splice::{Direction, Moved, Pipes},
    token::Token,
};

/// Sockets that are made at once in another namespace, because going there takes its time.
const SOCKETS: usize = 64;

/// Each event is told once: what it tells is then dealt with to the end.
const ALL: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

/// The proxied connections.
#[derive(Debug)]
pub(super) struct Proxy {
    targets: Vec<Target>,
    /// Whose turn it is.
    next: usize,
    /// By worker, what it got.
    counts: Vec<u64>,
    connections: Table<Proxied>,
    pipes: Pipes,
    /// Connections that have had their turn, and may have more to move.
    unfinished: BTreeSet<u32>,
}

/// Where a worker is.
#[derive(Debug)]
struct Target {
    /// Where it listens; `None` while it does not.
    address: Option<SocketAddr>,
    /// Its network namespace, where it is not ours, and sockets that were made there.
    elsewhere: Option<(Elsewhere, Vec<Socket>)>,
}

/// Another network namespace, and ours.
#[derive(Debug)]
struct Elsewhere {
    there: File,
    here: File,
}

#[derive(Debug)]
struct Proxied {
    client: TcpStream,
    upstream: TcpStream,
    /// The worker, and how many others have been tried before.
    target: usize,
    tried: usize,
    /// Whether the worker has been connected to.
    connected: bool,
    /// From the client to the worker, and back.
    there: Direction,
    back: Direction,
}

impl Proxy {
    /// To so many built-in workers, which are not there yet.
    pub(super) fn to_workers(workers: usize) -> Self {
        let target = || Target {
            address: None,
            elsewhere: None,
        };
        Self::new((0..workers).map(|_| target()).collect())
    }

    /// To servers in other namespaces.
    pub(super) fn to_upstreams(upstreams: &[Upstream]) -> Result<Self> {
        let mut targets = Vec::new();
        for Upstream { pid, address } in upstreams {
            let there = File::open(format!("/proc/{pid}/ns/net"))
                .context("cannot open the network namespace of a server")?;
            let here = File::open("/proc/thread-self/ns/net")?;
            targets.push(Target {
                address: Some(*address),
                elsewhere: Some((Elsewhere { there, here }, Vec::new())),
            });
        }
        Ok(Self::new(targets))
    }

    fn new(targets: Vec<Target>) -> Self {
        Self {
            next: 0,
            counts: vec![0; targets.len()],
            targets,
            connections: Table::new(),
            pipes: Pipes::default(),
            unfinished: BTreeSet::new(),
        }
    }

    /// A worker listens there now, or nowhere.
    pub(super) fn aim(&mut self, slot: u32, address: Option<SocketAddr>) {
        if let Some(target) = self.targets.get_mut(slot as usize) {
            target.address = address;
        }
    }

    /// How many connections each worker got.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Takes a client's connection, which does not block, to the worker whose turn it is.
    pub(super) fn take(&mut self, epoll: &Epoll, client: OwnedFd) -> Result<()> {
        let client = TcpStream::from(client);
        for tried in 0..self.targets.len() {
            let target = self.next % self.targets.len();
            self.next = target + 1;
            let Some(upstream) = self.connect(target)? else {
                continue;
            };
            // Answers are often smaller than a segment, and must not wait for the one before.
            let _ = client.set_nodelay(true);
            let number = self.connections.insert(Proxied {
                client,
                upstream,
                target,
                tried,
                connected: false,
                there: Direction::default(),
                back: Direction::default(),
            });
            let number = number as u32;
            if let Some(proxied) = self.connections.get_mut(number as usize) {
                let event = |token: Token| EpollEvent::new(ALL, token.into());
                epoll.add(&proxied.client, event(Token::Client(number)))?;
                epoll.add(&proxied.upstream, event(Token::Upstream(number)))?;
            }
            return Ok(());
        }
        // Nobody serves: the client sees that.
        reset(&client);
        Ok(())
    }

    /// Begins to connect to a worker; `None` when that fails at once.
    fn connect(&mut self, target: usize) -> Result<Option<TcpStream>> {
        let Target { address, elsewhere } = &mut self.targets[target];
        let Some(address) = *address else {
            return Ok(None);
        };
        let socket = match elsewhere {
            None => socket(address),
            Some((elsewhere, sockets)) => match sockets.pop() {
                Some(socket) => Ok(socket),
                None => elsewhere.make(address, sockets)?,
            },
        };
        let connected = socket.and_then(|socket| {
            socket.set_tcp_nodelay(true)?;
            match socket.connect(&address.into()) {
                Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
                _ => Ok(socket),
            }
        });
        // Whatever it is, another worker may do better.
        Ok(connected.ok().map(TcpStream::from))
    }

    /// Something has happened to a side of a connection.
    pub(super) fn on_event(&mut self, epoll: &Epoll, token: Token, what: EpollFlags) -> Result<()> {
        match token {
            Token::Client(number) => {
                let client = self.connections.get_mut(number as usize);
                // Asked again, because the event may be of one that had the number before.
                let gone = what.contains(EpollFlags::EPOLLERR)
                    && client.is_some_and(|it| !matches!(it.client.take_error(), Ok(None)));
                match gone {
                    // It wants no more. (What a worker has sent before it failed is still passed on.)
                    true => self.abort(number),
                    false => self.proceed(number),
                }
            }
            Token::Upstream(number) => self.on_upstream(epoll, number)?,
            Token::Control | Token::Listener | Token::Ended(_) | Token::Said(_) => {}
        }
        Ok(())
    }

    fn on_upstream(&mut self, epoll: &Epoll, number: u32) -> Result<()> {
        let Some(proxied) = self.connections.get_mut(number as usize) else {
            return Ok(());
        };
        if !proxied.connected {
            let failed = !matches!(proxied.upstream.take_error(), Ok(None));
            if failed {
                return self.retry(epoll, number);
            }
            if proxied.upstream.peer_addr().is_err() {
                // An event of a socket that has been closed since.
                return Ok(());
            }
            proxied.connected = true;
            self.counts[proxied.target] += 1;
        }
        self.proceed(number);
        Ok(())
    }

    /// Takes a connection to the next worker, because this one takes none.
    fn retry(&mut self, epoll: &Epoll, number: u32) -> Result<()> {
        loop {
            let count = self.targets.len();
            let Some(proxied) = self.connections.get_mut(number as usize) else {
                return Ok(());
            };
            proxied.tried += 1;
            proxied.target = (proxied.target + 1) % count;
            if proxied.tried >= count {
                self.abort(number);
                return Ok(());
            }
            let target = proxied.target;
            let Some(upstream) = self.connect(target)? else {
                continue;
            };
            if let Some(proxied) = self.connections.get_mut(number as usize) {
                let token = Token::Upstream(number);
                epoll.add(&upstream, EpollEvent::new(ALL, token.into()))?;
                proxied.upstream = upstream;
            }
            return Ok(());
        }
    }

    /// Goes on with connections that have had their turn before.
    pub(super) fn go_on(&mut self) {
        for number in mem::take(&mut self.unfinished) {
            self.proceed(number);
        }
    }

    /// Whether there are such.
    pub(super) fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    fn proceed(&mut self, number: u32) {
        let Some(proxied) = self.connections.get_mut(number as usize) else {
            return;
        };
        // What the client sends until then stays in its socket.
        if !proxied.connected {
            return;
        }
        let Proxied {
            client,
            upstream,
            there,
            back,
            ..
        } = proxied;
        let moved = there
            .proceed(client, upstream, &mut self.pipes)
            .and_then(|first| Ok([first, back.proceed(upstream, client, &mut self.pipes)?]));
        match moved {
            Ok(_) if there.is_over() && back.is_over() => {
                drop(self.connections.remove(number as usize));
            }
            Ok(moved) if moved.contains(&Moved::More) => {
                self.unfinished.insert(number);
            }
            Ok(_) => {}
            Err(_) => self.abort(number),
        }
    }

    /// Passes on that a connection is broken.
    fn abort(&mut self, number: u32) {
        if let Some(proxied) = self.connections.remove(number as usize) {
            reset(&proxied.client);
            reset(&proxied.upstream);
        }
    }
}

/// Has a connection reset when it is closed.
fn reset(connection: &TcpStream) {
    // At worst it ends as if all had been said.
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

fn socket(to: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new_raw(Domain::for_address(to), kind, None)
}

impl Elsewhere {
    /// Makes sockets there: one, and more for later.
    ///
    /// # Errors
    /// When the namespace can't be entered, or not be left again; nothing can be proxied then.
    fn make(&self, to: SocketAddr, spare: &mut Vec<Socket>) -> Result<io::Result<Socket>> {
        setns(&self.there, CloneFlags::CLONE_NEWNET)
            .context("cannot enter the network namespace of a server")?;
        let first = socket(to);
        if first.is_ok() {
            spare.extend((1..SOCKETS).map_while(|_| socket(to).ok()));
        }
        setns(&self.here, CloneFlags::CLONE_NEWNET)
            .context("cannot return from the network namespace of a server")?;
        Ok(first)
    }
}
