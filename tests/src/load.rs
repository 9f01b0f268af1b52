//! Open-loop load: a request at each intended moment, on a connection of its own, whether or not
//! the ones before have been answered, from the calling thread's network namespace. A closed loop
//! ([`crate::client::Load`]) stops sending while the server hangs, and so misses what was lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::eventually;

/// How long a client waits, from the moment it meant to send. Longer than the third retransmission
/// of a SYN (7 s): a connection that is merely slow is no failure.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The connection was refused.
    Refused,
    /// It could not be made for another reason.
    NotConnected,
    /// It was reset after it had been made.
    Reset,
    /// It was closed before the whole answer had come.
    Cut,
    /// No answer came within the client's patience.
    Timeout,
    /// The answer was not that of a server that is well: not HTTP, or not 200.
    Bad,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::NotConnected,
        Self::Reset,
        Self::Cut,
        Self::Timeout,
        Self::Bad,
    ];
}

/// A request without a good answer.
#[derive(Clone, Debug)]
pub struct Lost {
    /// What went wrong.
    pub kind: Kind,
    /// The client's port; `None`: it was never connected.
    pub port: Option<u16>,
    /// From the start of the load to the moment it was meant to be sent.
    pub at: Duration,
    /// The error or the answer.
    pub detail: String,
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// How often each body was the answer.
    pub answers: BTreeMap<String, u64>,
    /// The requests without a good answer.
    pub lost: Vec<Lost>,
    /// From the moment each answered request was meant to be sent to the end of its answer, in
    /// microseconds, ascending.
    pub latencies: Vec<u32>,
}

impl Report {
    /// How many requests were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.answered() + self.lost.len() as u64
    }

    /// How many requests were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// How many requests ended like this.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.lost.iter().filter(|lost| lost.kind == kind).count()
    }

    /// The latency in microseconds that this share of the answered requests (0.99: the 99th
    /// percentile) did not exceed; 0 when there were none.
    #[must_use]
    pub fn latency(&self, share: f64) -> u32 {
        // Nearest rank; the cast saturates.
        let rank = (self.latencies.len() as f64 * share).ceil() as usize;
        let index = rank.saturating_sub(1);
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// Asserts that every request was answered, and that there were some.
    ///
    /// # Panics
    /// When one was not.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.assert_lost_only_of(&BTreeSet::new());
    }

    /// Asserts that every request was answered but those on connections from these ports, which
    /// may have been reset or cut: a killed process had accepted them.
    ///
    /// # Panics
    /// When another one was lost, or none was answered.
    #[track_caller]
    pub fn assert_lost_only_of(&self, accepted: &BTreeSet<u16>) {
        let excused = |lost: &&Lost| {
            matches!(lost.kind, Kind::Reset | Kind::Cut)
                && lost.port.is_some_and(|port| accepted.contains(&port))
        };
        let lost: Vec<&Lost> = self.lost.iter().filter(|lost| !excused(lost)).collect();
        let some: Vec<&&Lost> = lost.iter().take(10).collect();
        let count = lost.len();
        assert!(lost.is_empty(), "{count} lost of {self}: {some:#?} …");
        assert!(self.answered() > 0, "nothing was sent");
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome.result {
            Ok(body) => {
                *self.answers.entry(body).or_default() += 1;
                let micros = outcome.latency.as_micros();
                self.latencies.push(micros.try_into().unwrap_or(u32::MAX));
            }
            Err((kind, detail)) => self.lost.push(Lost {
                kind,
                port: outcome.port,
                at: outcome.at,
                detail,
            }),
        }
    }
}

/// `2412 sent, 2409 answered; refused 0, not connected 0, reset 2, cut 1, timeout 0, bad 0; p50 0.4,
/// p99 12.1, max 30.0 ms`
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sent, answered) = (self.sent(), self.answered());
        write!(f, "{sent} sent, {answered} answered; ")?;
        for kind in Kind::ALL {
            let name = match kind {
                Kind::Refused => "refused",
                Kind::NotConnected => ", not connected",
                Kind::Reset => ", reset",
                Kind::Cut => ", cut",
                Kind::Timeout => ", timeout",
                Kind::Bad => ", bad",
            };
            write!(f, "{name} {}", self.count(kind))?;
        }
        let ms = |share| f64::from(self.latency(share)) / 1000.0;
        let (p50, p99, max) = (ms(0.5), ms(0.99), ms(1.0));
        write!(f, "; p50 {p50:.1}, p99 {p99:.1}, max {max:.1} ms")
    }
}

/// A load that runs until it is stopped. Dropping it stops it as well.
#[derive(Debug)]
pub struct OpenLoad {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Report>,
    progress: Arc<Progress>,
}

/// How many requests have ended so far.
#[derive(Debug, Default)]
struct Progress {
    answered: AtomicU64,
    lost: AtomicU64,
}

impl OpenLoad {
    /// Starts to send `GET /`, `rate` times a second.
    ///
    /// # Panics
    /// When no thread can be started, or `rate` is 0.
    #[must_use]
    pub fn start(to: SocketAddr, rate: u32) -> Self {
        Self::with(to, rate, "/", CLIENT_TIMEOUT)
    }

    /// The same with another path, and another patience of the clients.
    ///
    /// # Panics
    /// As [`OpenLoad::start`].
    #[must_use]
    pub fn with(to: SocketAddr, rate: u32, path: &str, patience: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let load = Sending {
            to,
            period: Duration::from_secs(1) / rate,
            request: format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")
                .into_bytes()
                .into(),
            patience,
            progress: Arc::clone(&progress),
        };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a thread may have a runtime");
            runtime.block_on(load.run(stopped))
        });
        Self {
            stop,
            thread,
            progress,
        }
    }

    /// Waits until so many more requests have been answered.
    ///
    /// # Panics
    /// When that takes too long.
    #[track_caller]
    pub fn wait_for(&self, more: u64) {
        let answered = || self.progress.answered.load(Ordering::Relaxed);
        let enough = answered() + more;
        eventually("requests to be answered", || {
            (answered() >= enough).then_some(())
        });
    }

    /// How many requests have been lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.progress.lost.load(Ordering::Relaxed)
    }

    /// Stops sending, and waits until each request was answered or given up.
    ///
    /// # Panics
    /// When its thread has.
    #[must_use]
    pub fn stop(self) -> Report {
        // It only ends when it is told to.
        let _ = self.stop.send(());
        self.thread
            .join()
            .expect("the load's thread does not panic")
    }
}

/// The load as its thread knows it.
struct Sending {
    to: SocketAddr,
    period: Duration,
    request: Arc<[u8]>,
    patience: Duration,
    progress: Arc<Progress>,
}

/// What became of one request.
struct Outcome {
    result: Result<String, (Kind, String)>,
    port: Option<u16>,
    at: Duration,
    latency: Duration,
}

impl Sending {
    async fn run(self, mut stopped: oneshot::Receiver<()>) -> Report {
        let mut report = Report::default();
        let mut requests = JoinSet::new();
        let start = Instant::now();
        let mut next = start;
        loop {
            tokio::select! {
                // A dropped sender ends it, too.
                _ = &mut stopped => break,
                Some(ended) = requests.join_next() => self.note(ended, &mut report),
                () = sleep_until(next) => {
                    // The clock ticks in milliseconds: several may be due.
                    while next <= Instant::now() {
                        requests.spawn(request(self.to, start, next, self.patience, Arc::clone(&self.request)));
                        next += self.period;
                    }
                }
            }
        }
        while let Some(ended) = requests.join_next().await {
            self.note(ended, &mut report);
        }
        report.latencies.sort_unstable();
        report
    }

    fn note(&self, ended: Result<Outcome, tokio::task::JoinError>, report: &mut Report) {
        let outcome = ended.expect("a request does not panic and is not cancelled");
        let Progress { answered, lost } = &*self.progress;
        let counter = if outcome.result.is_ok() {
            answered
        } else {
            lost
        };
        counter.fetch_add(1, Ordering::Relaxed);
        report.add(outcome);
    }
}

/// Sends one request, meant for the moment `intended`.
async fn request(
    to: SocketAddr,
    start: Instant,
    intended: Instant,
    patience: Duration,
    request: Arc<[u8]>,
) -> Outcome {
    let mut port = None;
    let exchange = exchange(to, &request, &mut port);
    let result = match timeout_at(intended + patience, exchange).await {
        Ok(result) => result,
        Err(_) => Err((Kind::Timeout, String::new())),
    };
    Outcome {
        result,
        port,
        at: intended - start,
        latency: intended.elapsed(),
    }
}

async fn exchange(
    to: SocketAddr,
    request: &[u8],
    port: &mut Option<u16>,
) -> Result<String, (Kind, String)> {
    let because = |kind, error: io::Error| (kind, error.to_string());
    let mut connection = TcpStream::connect(to).await.map_err(|error| {
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => Kind::Refused,
            _ => Kind::NotConnected,
        };
        because(kind, error)
    })?;
    *port = connection.local_addr().ok().map(|address| address.port());
    let mut answer = Vec::new();
    let sent = connection.write_all(request).await;
    // A server may answer and close before it has read everything.
    let received = connection.read_to_end(&mut answer).await;
    match (whole(&answer), sent.and(received)) {
        (Some(answer), _) => answer,
        (None, Err(error)) => Err(because(Kind::Reset, error)),
        (None, Ok(_)) => Err((Kind::Cut, String::from_utf8_lossy(&answer).into_owned())),
    }
}

/// Judges an answer; `None`: it is not whole.
fn whole(answer: &[u8]) -> Option<Result<String, (Kind, String)>> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| body.len() < length) {
        return None;
    }
    Some(match status {
        Some("200") => Ok(body.to_owned()),
        _ => Err((Kind::Bad, text.into_owned())),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Loads a server that answers each connection with what `serve` does, until so many were
    /// served.
    fn report(
        patience: Duration,
        connections: usize,
        serve: impl Fn(usize, TcpStream) + Send + 'static,
    ) -> Report {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("it is bound");
        let server = thread::spawn(move || {
            for number in 0..connections {
                let (connection, _) = listener.accept().expect("clients come");
                serve(number, connection);
            }
        });
        let load = OpenLoad::with(to, 1000, "/", patience);
        server.join().expect("the server does not panic");
        // What comes while nobody listens any more is refused.
        load.stop()
    }

    fn read_request(mut connection: &TcpStream) {
        let mut request = [0; 100];
        let length = connection.read(&mut request).expect("a request");
        assert!(request[..length].ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn answers_are_told_from_each_kind_of_loss() {
        let report = report(CLIENT_TIMEOUT, 5, |number, mut connection| {
            let answer: &[u8] = match number {
                0 => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
                1 => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbody",
                2 => b"HTTP/1.0 200 OK\r\n\r\nbody",
                3 => b"HTTP/1.1 503 Busy\r\n\r\n",
                // Closed with the request unread: reset.
                _ => {
                    let mut first = [0];
                    connection.read_exact(&mut first).expect("a request");
                    return;
                }
            };
            read_request(&connection);
            connection.write_all(answer).expect("the client reads");
        });
        assert_eq!(report.answers, BTreeMap::from([("body".to_owned(), 2)]));
        for kind in [Kind::Cut, Kind::Bad] {
            assert_eq!(report.count(kind), 1, "{kind:?} in {report}");
        }
        assert!(report.count(Kind::Reset) >= 1, "{report}");
        assert_eq!(report.latencies.len(), 2);
        let known = report
            .lost
            .iter()
            .filter(|lost| lost.kind != Kind::Refused && lost.kind != Kind::NotConnected);
        assert!(known.clone().all(|lost| lost.port.is_some()), "{report:?}");
    }

    #[test]
    fn refused_connections_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("it is bound");
        drop(listener);
        let load = OpenLoad::start(to, 1000);
        eventually("refusals", || (load.lost() >= 10).then_some(()));
        let report = load.stop();
        assert_eq!(report.count(Kind::Refused) as u64, report.sent());
    }

    #[test]
    fn a_hanging_server_is_a_timeout_and_does_not_slow_the_sender() {
        let (keep, kept) = std::sync::mpsc::channel();
        let patience = Duration::from_millis(200);
        let report = report(patience, 50, move |_, connection| {
            // The test holds them all until the load has ended.
            keep.send(connection).expect("the test waits");
        });
        assert!(report.count(Kind::Timeout) >= 50, "{report}");
        assert_eq!(report.answered(), 0);
        drop(kept);
    }

    #[test]
    fn latencies_are_given_by_rank() {
        let report = Report {
            latencies: (1..=200).collect(),
            ..Report::default()
        };
        assert_eq!(report.latency(0.5), 100);
        assert_eq!(report.latency(0.99), 198);
        assert_eq!(report.latency(1.0), 200);
        assert_eq!(Report::default().latency(0.5), 0);
    }
}
