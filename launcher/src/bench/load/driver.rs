//! A thread of the generator: its event loop.
//!
//! One request goes through: [`Queue::take`] → `send` (a new connection, or a free one) →
//! [`Phase::Sending`] → [`Phase::Receiving`] → `answered` or `lost`.

mod exchange;

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event},
    },
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{
    connections::{Connection, Connections, Key, Opener, Phase, Request, Watched},
    lost::Lost,
    plan::{Plan, Share, Times},
    queue::Queue,
    tally::Tally,
};
use crate::{bench::model::Shape, failure::Failure};

/// How long a server has to close a connection that it was asked to.
const CLOSING: Duration = Duration::from_secs(1);

/// So many connections more than are in use may wait to be closed.
pub(super) const FINISHING: usize = 64;

/// So many deadlines of requests that have ended may be kept.
const DEADLINES: usize = 1024;

/// How many events are taken at a time.
const EVENTS: usize = 256;

/// What is read at a time, in bytes.
const BUFFER: usize = 64 * 1024;

/// A thread's load.
#[derive(Debug)]
pub(super) struct Driver<'a> {
    plan: &'a Plan,
    times: Times,
    limit: usize,
    epoll: OwnedFd,
    opener: Opener,
    queue: Queue,
    connections: Connections,
    /// Those that are not to be closed.
    open: usize,
    /// Free ones, the longest free first.
    idle: VecDeque<Key>,
    /// What was sent, in the order in which it times out: the connection, and how many requests that had
    /// got by then. Most have ended meanwhile.
    deadlines: VecDeque<(Instant, Key, u32)>,
    /// Those that the server is to close by then.
    finishing: VecDeque<(Instant, Key)>,
    buffer: Vec<u8>,
    tally: Tally,
}

impl<'a> Driver<'a> {
    /// # Errors
    /// When there can't be an epoll instance.
    pub(super) fn new(plan: &'a Plan, share: &Share, times: Times) -> Result<Self, Failure> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| cannot("epoll", error))?;
        Ok(Self {
            plan,
            times,
            limit: share.connections as usize,
            epoll,
            opener: Opener::new(plan.address, share.thread),
            queue: Queue::new(share, times, plan.timeout),
            connections: Connections::default(),
            open: 0,
            idle: VecDeque::new(),
            deadlines: VecDeque::new(),
            finishing: VecDeque::new(),
            buffer: vec![0; BUFFER],
            tally: Tally::new()?,
        })
    }

    /// Sends the whole load.
    ///
    /// # Errors
    /// When it can't wait for events.
    pub(super) fn run(mut self) -> Result<Tally, Failure> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut since = None;
        let mut until = None;
        loop {
            let now = Instant::now();
            if since.is_none() && now >= self.times.counted {
                since = Some((now, cpu_time()));
            }
            if until.is_none() && now >= self.times.end {
                until = Some((now, cpu_time()));
            }
            self.expire(now);
            self.send_due(now);
            if self.queue.is_done(now) {
                break;
            }
            self.wait(&mut events, now)?;
            for event in events.drain(..) {
                self.handle(event);
                // Whoever waits for a connection waits no longer than for this one.
                self.send_due(Instant::now());
            }
        }
        if let (Some((began, before)), Some((ended, after))) = (since, until) {
            let counted = ended.saturating_duration_since(began).as_secs_f64();
            // On a machine that stands still both may be the same moment.
            let used = after.saturating_sub(before).as_secs_f64();
            self.tally.busy = used / counted.max(f64::EPSILON);
            self.tally.cpu = cpu_time().saturating_sub(before);
        }
        Ok(self.tally)
    }

    /// Waits until something happens, or is to be done.
    fn wait(&self, events: &mut Vec<Event>, now: Instant) -> Result<(), Failure> {
        let ends = [self.times.counted, self.times.end];
        let wake = ends
            .into_iter()
            .filter(|&moment| moment > now)
            .chain(self.queue.wake())
            .chain(self.deadlines.front().map(|&(deadline, ..)| deadline))
            .chain(self.finishing.front().map(|&(deadline, _)| deadline))
            .min();
        let timeout = wake.map(|wake| {
            let left = wake.saturating_duration_since(now);
            // It is below an hour.
            Timespec::try_from(left).unwrap_or_default()
        });
        match epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(cannot("epoll_wait", error)),
        }
    }

    /// Ends what has taken too long.
    fn expire(&mut self, now: Instant) {
        while let Some(due) = self.queue.take_late(now) {
            if self.queue.is_counted(due) {
                self.tally.lost(Lost::Timeout);
            }
        }
        while let Some(&(deadline, key, number)) = self.deadlines.front() {
            if self.connections.is_under_way(key, number) {
                if deadline > now {
                    break;
                }
                self.lost(key, Lost::Timeout);
            }
            self.deadlines.pop_front();
        }
        while let Some(&(deadline, key)) = self.finishing.front() {
            if self.connections.has(key) {
                if deadline > now {
                    break;
                }
                self.reset(key);
            }
            self.finishing.pop_front();
        }
    }

    /// Sends what is due, as far as there are connections.
    fn send_due(&mut self, now: Instant) {
        self.tally.sent += self.queue.look(now);
        while let Some(due) = self.queue.take() {
            self.send(due);
        }
    }

    fn send(&mut self, due: Instant) {
        let is_counted = self.queue.is_counted(due);
        if is_counted {
            self.tally.late(self.queue.lateness(due, Instant::now()));
        }
        let key = match self.connection() {
            Ok(key) => key,
            Err(error) => return self.count_lost(is_counted, error.into()),
        };
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        connection.requests += 1;
        let request = Request {
            due,
            is_counted,
            is_last: match self.plan.shape {
                Shape::Connection => true,
                Shape::KeepAlive { requests } => connection.requests >= requests,
                Shape::LongLived => false,
            },
        };
        connection.phase = Phase::Sending(request, 0);
        let deadline = (due + self.plan.timeout, key, connection.requests);
        self.deadlines.push_back(deadline);
        // One that hangs would keep all that came after it.
        if self.deadlines.len() > 4 * self.limit + DEADLINES {
            let connections = &self.connections;
            self.deadlines
                .retain(|&(_, key, number)| connections.is_under_way(key, number));
        }
        // On the loopback interface it is mostly open by now.
        self.transmit(key);
    }

    /// A connection for a request: another one as long as there are too few, or the one that was free
    /// for longest.
    fn connection(&mut self) -> Result<Key, Errno> {
        // While all are open, and not all are busy, one is free.
        if self.open >= self.limit
            && let Some(key) = self.idle.pop_front()
        {
            return Ok(key);
        }
        let socket = self.opener.open()?;
        self.open += 1;
        Ok(self.connections.insert(Connection {
            socket,
            phase: Phase::Idle,
            watched: Watched::Nothing,
            requests: 0,
            is_counted: false,
        }))
    }
}

/// The CPU time that the calling thread has used, user and system.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn cannot(call: &str, error: Errno) -> Failure {
    Failure::io(
        super::WHAT,
        call,
        &error.into(),
        "correct the cause and start again",
    )
}
