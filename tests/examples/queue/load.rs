//! The load: each request at its intended moment, on a connection of its own, whether or not the ones
//! before have been answered. One thread, with a timer finer than tokio's millisecond: what it costs
//! and how late it is would count as the workers'.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::{
    process::setpriority_process,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    },
};
use socket2::{Domain, Socket, Type};

use crate::{interrupt::Interrupt, machine::CpuTimes, schedule::Request};

/// How long is waited for answers after the last request. Workers that can't keep up have a backlog
/// of any length.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the timer's events are marked with; those of connections have the request's number.
const TIMER: u64 = u64::MAX;

/// How many events are taken at once: between them is looked what has to be sent.
const EVENTS: usize = 32;

/// What became of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// From the moment each request was meant to be sent to its answer, in seconds, ascending. One
    /// without an answer has the time until it was given up: it took at least so long.
    pub(crate) latencies: Vec<f64>,
    /// How late each request was sent, in seconds, ascending.
    pub(crate) lateness: Vec<f64>,
    /// How many had no answer.
    pub(crate) unanswered: u64,
    /// Answers by the slot of the worker that gave them.
    pub(crate) by_slot: Vec<u64>,
    /// For how many seconds the workers were occupied, all together.
    pub(crate) occupied: f64,
    /// How long it took, to the last answer.
    pub(crate) length: Duration,
    /// How busy the machine's CPUs were, from 0 to 1.
    pub(crate) busy: f64,
}

impl Outcome {
    /// The latency, in seconds, that this share of the requests did not exceed.
    pub(crate) fn latency(&self, share: f64) -> f64 {
        nearest_rank(&self.latencies, share)
    }

    /// The same of how late they were sent.
    pub(crate) fn late(&self, share: f64) -> f64 {
        nearest_rank(&self.lateness, share)
    }
}

fn nearest_rank(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let value = sorted.get(rank.saturating_sub(1));
    value.copied().unwrap_or(f64::NAN)
}

/// Sends these requests, from a thread that goes before all others: real clients have CPUs of their
/// own.
///
/// # Errors
/// When the machine lacks something that the load needs. What happens to a request is no error.
pub(crate) fn send(
    to: SocketAddr,
    requests: &[Request],
    interrupt: &Interrupt,
) -> io::Result<Outcome> {
    thread::scope(|scope| {
        let load = || {
            // On Linux the nice value is a thread's. It may be refused; what comes of that is reported
            // as lateness.
            let _ = setpriority_process(None, -20);
            let before = CpuTimes::now()?;
            let outcome = Load::new(to, requests)?.run(interrupt)?;
            let after = CpuTimes::now()?;
            Ok(Outcome {
                busy: after.busy_since(before),
                ..outcome
            })
        };
        scope
            .spawn(load)
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the load's thread has panicked")))
    })
}

struct Load<'a> {
    to: SocketAddr,
    requests: &'a [Request],
    epoll: Epoll,
    timer: OwnedFd,
    start: Instant,
    /// How many requests were sent.
    sent: usize,
    /// Those that wait for their answers, by number.
    waiting: Vec<Option<Socket>>,
    waiting_count: usize,
    outcome: Outcome,
}

impl<'a> Load<'a> {
    fn new(to: SocketAddr, requests: &'a [Request]) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        Ok(Self {
            to,
            requests,
            epoll,
            timer,
            start: Instant::now(),
            sent: 0,
            waiting: requests.iter().map(|_| None).collect(),
            waiting_count: 0,
            outcome: Outcome::default(),
        })
    }

    fn run(mut self, interrupt: &Interrupt) -> io::Result<Outcome> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let last = self.requests.last().map(|request| request.at);
        let end = last.unwrap_or_default() + PATIENCE;
        loop {
            self.send_due()?;
            let now = self.start.elapsed();
            let all_answered = self.sent == self.requests.len() && self.waiting_count == 0;
            if all_answered || now >= end || interrupt.came() {
                break;
            }
            let next = self.requests.get(self.sent);
            self.wake_at(next.map_or(end, |request| request.at), now)?;
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => 0,
                other => other?,
            };
            for event in &events[..count] {
                if event.data() != TIMER {
                    self.proceed(event.data() as usize, event.events())?;
                }
            }
        }
        let ended = self.start.elapsed();
        for number in 0..self.sent {
            if self.waiting[number].is_some() {
                self.unanswered(number, ended);
            }
        }
        let Outcome {
            latencies,
            lateness,
            length,
            ..
        } = &mut self.outcome;
        *length = ended;
        latencies.sort_unstable_by(f64::total_cmp);
        lateness.sort_unstable_by(f64::total_cmp);
        Ok(self.outcome)
    }

    /// Sends what has to be sent by now.
    fn send_due(&mut self) -> io::Result<()> {
        while let Some(request) = self.requests.get(self.sent) {
            let now = self.start.elapsed();
            let Some(late) = now.checked_sub(request.at) else {
                break;
            };
            self.outcome.lateness.push(late.as_secs_f64());
            let number = self.sent;
            self.sent += 1;
            let socket = connect(self.to, request.client)?;
            // On loopback the handshake is over by now, unless the SYN was dropped.
            let awaited = match (&socket).write(&request.service.to_le_bytes()) {
                Ok(_) => EpollFlags::EPOLLIN,
                Err(error) if is_early(&error) => EpollFlags::EPOLLOUT,
                Err(_) => {
                    self.unanswered(number, now);
                    continue;
                }
            };
            self.epoll
                .add(&socket, EpollEvent::new(awaited, number as u64))?;
            self.waiting[number] = Some(socket);
            self.waiting_count += 1;
        }
        Ok(())
    }

    /// Has the timer end the next wait at this moment.
    fn wake_at(&self, moment: Duration, now: Duration) -> io::Result<()> {
        // 0 would disarm it.
        let left = moment.saturating_sub(now).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).map_err(io::Error::other)?,
        };
        // Setting it takes back what it has to tell, so it is never read.
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Goes on with a request: its connection has been made, or its answer has come.
    fn proceed(&mut self, number: usize, events: EpollFlags) -> io::Result<()> {
        let Some(mut socket) = self.waiting[number].as_ref() else {
            return Ok(());
        };
        if events.contains(EpollFlags::EPOLLOUT) {
            let request = self.requests[number].service.to_le_bytes();
            if socket.write(&request).is_ok() {
                let mut answer = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
                self.epoll.modify(socket, &mut answer)?;
                return Ok(());
            }
        }
        let mut answer = [0; 8];
        let received = socket.read(&mut answer);
        let now = self.start.elapsed();
        match received {
            Ok(8) => self.answered(number, now, answer),
            _ => self.unanswered(number, now),
        }
        Ok(())
    }

    fn answered(&mut self, number: usize, now: Duration, answer: [u8; 8]) {
        self.end(number, now);
        let [s0, s1, s2, s3, t0, t1, t2, t3] = answer;
        let slot = u32::from_le_bytes([s0, s1, s2, s3]) as usize;
        let Outcome {
            by_slot, occupied, ..
        } = &mut self.outcome;
        if by_slot.len() <= slot {
            by_slot.resize(slot + 1, 0);
        }
        by_slot[slot] += 1;
        *occupied += f64::from(u32::from_le_bytes([t0, t1, t2, t3])) / 1e6;
    }

    fn unanswered(&mut self, number: usize, now: Duration) {
        self.end(number, now);
        self.outcome.unanswered += 1;
    }

    fn end(&mut self, number: usize, now: Duration) {
        let latency = now.saturating_sub(self.requests[number].at);
        self.outcome.latencies.push(latency.as_secs_f64());
        if self.waiting[number].take().is_some() {
            self.waiting_count -= 1;
        }
    }
}

/// Begins to connect, from this client's address.
fn connect(to: SocketAddr, client: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    // Closing resets the connection, so that no port waits to be used again.
    socket.set_linger(Some(Duration::ZERO))?;
    // Each in a /24 of its own: however long a prefix makes a client.
    let [high, low] = client.to_be_bytes();
    let address = Ipv4Addr::new(127, 1 + high, low, 1);
    socket.bind(&SocketAddrV4::new(address, 0).into())?;
    match socket.connect(&to.into()) {
        Err(error) if !is_early(&error) => Err(error),
        _ => Ok(socket),
    }
}

/// Whether the connection is still to be made.
fn is_early(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EINPROGRESS)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn requests_with_and_without_an_answer_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("it is bound");
        let requests: Vec<Request> = (0..20)
            .map(|number| Request {
                at: Duration::from_millis(number),
                service: 1000 + number as u32,
                client: number as u16,
            })
            .collect();
        let server = thread::spawn(move || {
            let mut asked = Vec::new();
            for number in 0..20u32 {
                let (mut connection, _) = listener.accept().expect("clients come");
                let mut request = [0; 4];
                connection.read_exact(&mut request).expect("they ask");
                asked.push(u32::from_le_bytes(request));
                // Every other one is closed without a word.
                if number % 2 == 0 {
                    let slot = (number / 2 % 3).to_le_bytes();
                    let answer = [slot, 500_000u32.to_le_bytes()].concat();
                    connection.write_all(&answer).expect("the client reads");
                }
            }
            asked.sort_unstable();
            asked
        });
        let outcome =
            send(to, &requests, &Interrupt::default()).expect("the machine has all it takes");
        let asked = server.join().expect("the server does not panic");
        assert_eq!(asked, (1000..1020).collect::<Vec<u32>>());
        assert_eq!((outcome.latencies.len(), outcome.lateness.len()), (20, 20));
        assert_eq!(outcome.unanswered, 10);
        assert_eq!(outcome.by_slot, [4, 3, 3]);
        assert!((outcome.occupied - 5.0).abs() < 1e-9);
        assert!(outcome.latencies.is_sorted());
    }

    #[test]
    fn a_share_of_the_requests_is_the_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(nearest_rank(&hundred, 0.5), 50.0);
        assert_eq!(nearest_rank(&hundred, 0.99), 99.0);
        assert!(nearest_rank(&[], 0.5).is_nan());
    }
}
