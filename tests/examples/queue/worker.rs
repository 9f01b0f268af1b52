//! The worker that is measured: a single-threaded server that is occupied, by one request at a time,
//! for as long as the request says. It knows nothing of the launcher but its slot.
//!
//! A request is that time in microseconds, an answer is the worker's slot and for how long it really was
//! occupied: two numbers of 32 bits, little-endian.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    num::NonZero,
    os::fd::AsFd as _,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    thread::set_current_timer_slack,
    time::{ClockId, clock_gettime},
};
use socket2::{Domain, Socket, Type};

/// The hidden first argument that makes the benchmark its own worker.
pub(crate) const VERB: &str = "__worker";

/// What stands for a port: the listening socket is the standard input.
pub(crate) const INHERITED: &str = "-";

/// The variable with the worker's slot.
pub(crate) const SLOT: &str = "REUSEPORT_LAUNCH_SLOT";

/// Connections that may wait: so many that waiting shows as waiting, not as a lost SYN.
const BACKLOG: i32 = 4096;

/// How a worker is occupied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupation {
    /// It computes: so long of a CPU's time, however often it is put aside meanwhile.
    Spin,
    /// It sleeps, as if it computed on a core of its own that this machine lacks.
    Block,
}

impl Occupation {
    /// What the worker's second argument is.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Block => "block",
        }
    }

    fn occupy(self, length: Duration) {
        match self {
            Self::Spin => {
                let end = cpu_time() + length;
                while cpu_time() < end {}
            }
            Self::Block => thread::sleep(length),
        }
    }
}

/// The whole life of a worker: `__worker OCCUPATION PORT`.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let occupation = match arguments.next().as_deref() {
        Some("spin") => Occupation::Spin,
        Some("block") => Occupation::Block,
        _ => return ExitCode::FAILURE,
    };
    let Some(place) = arguments.next() else {
        return ExitCode::FAILURE;
    };
    // What it can't do shows in the launcher's output.
    let Err(error) = listen(&place).and_then(|listener| serve(&listener, occupation));
    let _ = writeln!(io::stderr(), "{error}");
    ExitCode::FAILURE
}

/// The socket that the workers share: each inherits it.
pub(crate) fn listen_on(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn listen(place: &str) -> io::Result<TcpListener> {
    if place == INHERITED {
        return Ok(io::stdin().as_fd().try_clone_to_owned()?.into());
    }
    let port = place.parse().map_err(io::Error::other)?;
    listen_on(port)
}

fn serve(listener: &TcpListener, occupation: Occupation) -> io::Result<std::convert::Infallible> {
    let slot = env::var(SLOT).ok().and_then(|slot| slot.parse().ok());
    let slot: u32 = slot.unwrap_or_default();
    // A sleep must not be 50 µs longer than it was meant to be.
    set_current_timer_slack(NonZero::new(1))?;
    loop {
        let (connection, _) = listener.accept()?;
        // A client that has gone is the client's affair.
        let _ = answer(connection, slot, occupation);
    }
}

fn answer(mut connection: TcpStream, slot: u32, occupation: Occupation) -> io::Result<()> {
    let mut request = [0; 4];
    connection.read_exact(&mut request)?;
    // The client may have given up and reset the connection: what it had sent can still be read.
    if let Some(error) = connection.take_error()? {
        return Err(error);
    }
    let began = Instant::now();
    occupation.occupy(Duration::from_micros(u32::from_le_bytes(request).into()));
    let took = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    let mut answer = [0; 8];
    answer[..4].copy_from_slice(&slot.to_le_bytes());
    answer[4..].copy_from_slice(&took.to_le_bytes());
    connection.write_all(&answer)
}

/// How long this thread has run.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}
