//! The load: a few threads that keep a few connections each in flight, one request per connection.
//! A closed loop, so the rate is what the server and the client together can do.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::Bench;
use crate::bench::sources::{Sources, THREADS};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of the connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Answered connections by the slot that answered.
    pub(super) by_slot: Vec<u64>,
    /// Connections without an answer.
    pub(super) failed: u64,
}

impl Tally {
    /// How many connections were answered.
    pub(super) fn completed(&self) -> u64 {
        self.by_slot.iter().sum()
    }

    /// Adds another one's connections.
    pub(super) fn join(&mut self, other: &Self) {
        let Self { by_slot, failed } = other;
        self.by_slot
            .resize(self.by_slot.len().max(by_slot.len()), 0);
        for (sum, count) in self.by_slot.iter_mut().zip(by_slot) {
            *sum += count;
        }
        self.failed += failed;
    }

    fn answered(&mut self, slot: u8) {
        let slot = usize::from(slot);
        self.by_slot.resize(self.by_slot.len().max(slot + 1), 0);
        self.by_slot[slot] += 1;
    }
}

/// When a load is over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// After so long.
    Elapsed(Duration),
    /// After so many connections.
    Connections(u64),
}

/// Loads the workers at `address`. Returns, with the connections, how long it took to get their last
/// answers.
pub(super) fn drive(bench: &Bench, address: SocketAddr, until: Until) -> (Tally, Duration) {
    let started = Instant::now();
    let client = |number: usize| {
        let mut tally = Tally::default();
        let mut sources = Sources::of(number);
        let goes_on = |tally: &Tally| match until {
            Until::Elapsed(duration) => started.elapsed() < duration,
            Until::Connections(all) => (tally.completed() + tally.failed) * (THREADS as u64) < all,
        };
        while goes_on(&tally) && !bench.interrupt.came() {
            batch(address, bench.options.in_flight, &mut sources, &mut tally);
        }
        tally
    };
    let mut total = Tally::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || client(number)))
            .collect();
        for client in clients {
            // A client has nothing to panic about; if one did, its connections are missing.
            total.join(&client.join().unwrap_or_default());
        }
    });
    (total, started.elapsed())
}

/// Opens a thread's connections, then waits for their answers.
fn batch(address: SocketAddr, in_flight: u16, sources: &mut Sources, tally: &mut Tally) {
    let sent: Vec<_> = (0..in_flight)
        .map(|_| request(sources.next(), address))
        .collect();
    for connection in sent {
        let mut answer = [0];
        match connection.and_then(|mut socket| socket.read_exact(&mut answer)) {
            Ok(()) => tally.answered(answer[0]),
            Err(_) => tally.failed += 1,
        }
    }
}

fn request(source: Ipv4Addr, address: SocketAddr) -> io::Result<Socket> {
    let mut socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Closing resets the connection: one that waits out its last minute (TIME_WAIT) would keep its
    // port, and there are fewer ports than connections.
    socket.set_linger(Some(Duration::ZERO))?;
    // On Linux this bounds `connect` too.
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&address.into())?;
    socket.write_all(b"?")?;
    Ok(socket)
}
