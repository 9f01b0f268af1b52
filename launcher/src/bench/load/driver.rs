//! A thread of the generator: its event loop.
//!
//! One request goes through: [`Queue::take`] → `send` (a new connection, or a free one) →
//! [`Phase::Sending`] → [`Phase::Receiving`] → `answered` or `lost`.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt::set_socket_linger},
    time::{ClockId, clock_gettime},
};

use super::{
    answer::Answer,
    connections::{Connection, Connections, Key, Opener, Phase, Request, Watched},
    lost::Lost,
    plan::{Plan, Share, Times},
    queue::Queue,
    tally::Tally,
};
use crate::{bench::model::Shape, failure::Failure};

/// How long a server has to close a connection that it was asked to.
const CLOSING: Duration = Duration::from_secs(1);

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
    /// Free ones, the longest free first. Some may have gone meanwhile.
    idle: VecDeque<Key>,
    /// What was sent, in the order in which it times out: on which connection, as its how manieth
    /// request. Most have ended meanwhile.
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
            self.tally.busy = after.saturating_sub(before).as_secs_f64() / counted;
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
            if self.is_under_way(key, number) {
                if deadline > now {
                    break;
                }
                self.lost(key, Lost::Timeout);
            }
            self.deadlines.pop_front();
        }
        while let Some(&(deadline, key)) = self.finishing.front() {
            if self.connections.get(key).is_some() {
                if deadline > now {
                    break;
                }
                self.reset(key);
            }
            self.finishing.pop_front();
        }
    }

    /// Whether this is the connection's present request, and has not ended.
    fn is_under_way(&mut self, key: Key, number: u32) -> bool {
        self.connections.get(key).is_some_and(|connection| {
            connection.requests == number
                && matches!(connection.phase, Phase::Sending(..) | Phase::Receiving(..))
        })
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
        // On the loopback interface it is mostly open by now.
        self.transmit(key);
    }

    /// A connection for a request: another one as long as there are too few, or the one that was free
    /// for longest.
    fn connection(&mut self) -> Result<Key, Errno> {
        if self.open >= self.limit {
            while let Some(key) = self.idle.pop_front() {
                if self.connections.get(key).is_some() {
                    return Ok(key);
                }
            }
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

    /// Does what an event asks for.
    fn handle(&mut self, event: Event) {
        let (flags, data) = (event.flags, event.data);
        let key = Key::from(data.u64());
        let has_closed = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        match &connection.phase {
            Phase::Sending(..) => self.transmit(key),
            Phase::Receiving(..) => self.receive(key, has_closed),
            // Nothing should come; the server closes what was idle for too long.
            Phase::Idle => {
                self.open -= 1;
                self.connections.remove(key);
            }
            Phase::Finishing if has_closed => {
                self.connections.remove(key);
            }
            Phase::Finishing => self.reset(key),
        }
    }

    /// Sends the request, or what is left of it.
    fn transmit(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let Phase::Sending(request, sent) = connection.phase else {
            return;
        };
        let bytes = match request.is_last {
            true => &self.plan.last_request,
            false => &self.plan.request,
        };
        let left = bytes.get(sent..).unwrap_or_default();
        let watched = match send(&connection.socket, left, SendFlags::NOSIGNAL) {
            Ok(more) if more < left.len() => {
                connection.phase = Phase::Sending(request, sent + more);
                Watched::Writing
            }
            Ok(_) => {
                if request.is_counted && !connection.is_counted {
                    connection.is_counted = true;
                    self.tally.connections += 1;
                }
                connection.phase = Phase::Receiving(request, Answer::default());
                Watched::Reading
            }
            Err(Errno::AGAIN | Errno::INTR) => Watched::Writing,
            Err(error) => return self.lost(key, error.into()),
        };
        self.watch(key, watched);
    }

    /// Reads what has come of the answer. `has_closed`: no more comes after that.
    fn receive(&mut self, key: Key, has_closed: bool) {
        loop {
            let Some(connection) = self.connections.get(key) else {
                return;
            };
            let Phase::Receiving(request, answer) = &mut connection.phase else {
                return;
            };
            let came = match recv(&connection.socket, &mut *self.buffer, RecvFlags::empty()) {
                Ok((_, came)) => came,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => return self.lost(key, error.into()),
            };
            let bytes = self.buffer.get(..came).unwrap_or_default();
            let is_whole = match answer.feed(bytes) {
                _ if came == 0 => answer.close(),
                Ok(is_whole) => is_whole,
                Err(_) => return self.lost(key, Lost::Bad),
            };
            if is_whole {
                let request = *request;
                return self.answered(key, request, has_closed || came == 0);
            }
            if came == 0 {
                return self.lost(key, Lost::Closed);
            }
            if came < BUFFER && !has_closed {
                return;
            }
        }
    }

    /// Has epoll look for something.
    fn watch(&mut self, key: Key, watched: Watched) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let flags = match watched {
            Watched::Nothing => EventFlags::empty(),
            Watched::Reading => EventFlags::IN | EventFlags::RDHUP,
            Watched::Writing => EventFlags::OUT,
        };
        let data = EventData::new_u64(key.into());
        let done = match connection.watched {
            present if present == watched => Ok(()),
            Watched::Nothing => epoll::add(&self.epoll, &connection.socket, data, flags),
            _ => epoll::modify(&self.epoll, &connection.socket, data, flags),
        };
        connection.watched = watched;
        if let Err(error) = done {
            self.lost(key, error.into());
        }
    }

    /// Notes a whole answer.
    fn answered(&mut self, key: Key, request: Request, has_closed: bool) {
        let now = Instant::now();
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let Phase::Receiving(_, answer) = &connection.phase else {
            return;
        };
        let is_good = answer.is_good();
        let goes_on = answer.is_reusable() && !request.is_last && !has_closed;
        if request.is_counted {
            match is_good {
                true => {
                    let took = now.saturating_duration_since(request.due);
                    self.tally.answered(took, answer.worker());
                }
                false => self.tally.lost(Lost::Bad),
            }
        }
        if goes_on {
            connection.phase = Phase::Idle;
            self.idle.push_back(key);
        } else {
            connection.phase = Phase::Finishing;
            self.open -= 1;
            self.finish(key, has_closed, now);
        }
        self.queue.end(now, is_good);
    }

    /// Has the server close a connection that it was asked to close.
    fn finish(&mut self, key: Key, has_closed: bool, now: Instant) {
        if has_closed {
            self.connections.remove(key);
            return;
        }
        self.finishing.push_back((now + CLOSING, key));
        // Those that have been closed meanwhile are in it, too.
        if self.finishing.len() > self.limit {
            let connections = &mut self.connections;
            self.finishing
                .retain(|&(_, key)| connections.get(key).is_some());
        }
        if self.finishing.len() > self.limit
            && let Some((_, oldest)) = self.finishing.pop_front()
        {
            self.reset(oldest);
        }
    }

    /// Closes a connection that the server should have closed. It would keep its port for another
    /// minute (TIME_WAIT) if it were not reset.
    fn reset(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            // What is left of it then is a port that is not free.
            let _ = set_socket_linger(&connection.socket, Some(Duration::ZERO));
        }
    }

    /// Ends a connection's request without a good answer, and the connection.
    fn lost(&mut self, key: Key, kind: Lost) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        self.open -= 1;
        if let Phase::Sending(request, _) | Phase::Receiving(request, _) = connection.phase {
            self.count_lost(request.is_counted, kind);
        }
    }

    fn count_lost(&mut self, is_counted: bool, kind: Lost) {
        if is_counted {
            self.tally.lost(kind);
        }
        self.queue.end(Instant::now(), false);
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
