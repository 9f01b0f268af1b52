//! Load: HTTP requests, one after another, each on a connection of its own, from the calling
//! thread's network namespace.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a client waits for anything.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status code.
    pub status: u16,
    /// Its body; what is not UTF-8 is replaced.
    pub body: String,
}

/// Parses an address that a test names.
///
/// # Panics
/// When it is none.
#[must_use]
#[track_caller]
pub fn address(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Sends `GET /` on a new connection and reads the response.
///
/// # Errors
/// As for [`receive`].
pub fn get(to: SocketAddr) -> io::Result<Response> {
    get_path(to, "/")
}

/// Sends `GET` for this path on a new connection and reads the response.
///
/// # Errors
/// As for [`receive`].
pub fn get_path(to: SocketAddr, path: &str) -> io::Result<Response> {
    let connection = TcpStream::connect_timeout(&to, TIMEOUT)?;
    send_for(&connection, path)?;
    receive(&connection)
}

/// Sends `GET /` on this connection.
///
/// # Errors
/// Those of the connection.
pub fn send(connection: &TcpStream) -> io::Result<()> {
    send_for(connection, "/")
}

fn send_for(mut connection: &TcpStream, path: &str) -> io::Result<()> {
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n");
    connection.write_all(request.as_bytes())
}

/// Reads the response to [`send`], until the server closes the connection.
///
/// # Errors
/// Those of the connection, and `InvalidData` for what is not a response.
pub fn receive(mut connection: &TcpStream) -> io::Result<Response> {
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let parse = || {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Response {
            status,
            body: body.to_owned(),
        })
    };
    parse().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {text:?}")))
}

/// Sends a datagram with a question mark from a new port of this machine's, and reads the answer.
///
/// # Errors
/// As for [`exchange`].
pub fn ask_udp(to: SocketAddr) -> io::Result<String> {
    let answer = exchange(to, b"?")?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a datagram from a new port of this machine's, and reads the one that comes back, of at most
/// 512 bytes. It may come from another address: a server on a wildcard that does not look where it was
/// asked has its kernel choose one.
///
/// # Errors
/// Those of the socket; an answer that does not come is one.
pub fn exchange(to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let own: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send_to(question, to)?;
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

/// Sends `count` requests one after another and counts the bodies of the answers: who has answered,
/// when the server answers with a name of its own.
///
/// # Panics
/// When one fails, or is not answered with 200.
#[track_caller]
pub fn spread(to: SocketAddr, count: u64) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for number in 1..=count {
        match get(to) {
            Ok(Response { status: 200, body }) => *counts.entry(body).or_default() += 1,
            other => panic!("request {number} of {count} to {to}: {other:?}"),
        }
    }
    counts
}

/// Requests that are sent one after another by a thread of their own until it is told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Served>>,
}

/// What came of a [`Load`].
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// How often each body was the answer.
    pub answers: BTreeMap<String, u64>,
    /// What went wrong with the other requests.
    pub failures: Vec<String>,
}

impl Served {
    /// How many requests were answered.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }
}

impl Load {
    /// Starts to send requests from the calling thread's network namespace.
    #[must_use]
    pub fn start(to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut served = Served::default();
            while !asked.load(Ordering::Relaxed) {
                match get(to) {
                    Ok(Response { status: 200, body }) => {
                        *served.answers.entry(body).or_default() += 1;
                    }
                    other => served.failures.push(format!("{other:?}")),
                }
            }
            served
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops it.
    ///
    /// # Panics
    /// When its thread has.
    #[must_use]
    pub fn stop(mut self) -> Served {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken only here and at the end");
        thread.join().expect("the load's thread does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
