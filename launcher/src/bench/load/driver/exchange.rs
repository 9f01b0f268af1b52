//! What happens on a connection: a request goes out, an answer comes in.

use std::time::{Duration, Instant};

use rustix::{
    event::epoll::{self, Event, EventData, EventFlags},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send, sockopt::set_socket_linger},
};

use super::{BUFFER, CLOSING, Driver, FINISHING};
use crate::bench::load::{
    answer::Answer,
    connections::{Key, Phase, Request, Watched},
    lost::Lost,
};

impl Driver<'_> {
    /// Does what an event asks for.
    pub(super) fn handle(&mut self, event: Event) {
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
                self.idle.retain(|&idle| idle != key);
            }
            Phase::Finishing if has_closed => {
                self.connections.remove(key);
            }
            Phase::Finishing => self.reset(key),
        }
    }

    /// Sends the request, or what is left of it.
    pub(super) fn transmit(&mut self, key: Key) {
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
        if self.finishing.len() > self.limit + FINISHING {
            let connections = &self.connections;
            self.finishing.retain(|&(_, key)| connections.has(key));
        }
        if self.finishing.len() > self.limit + FINISHING
            && let Some((_, oldest)) = self.finishing.pop_front()
        {
            self.reset(oldest);
        }
    }

    /// Closes a connection that the server should have closed. It would keep its port for another
    /// minute (TIME_WAIT) if it were not reset.
    pub(super) fn reset(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            // What is left of it then is a port that is not free.
            let _ = set_socket_linger(&connection.socket, Some(Duration::ZERO));
        }
    }

    /// Ends a connection's request without a good answer, and the connection.
    pub(super) fn lost(&mut self, key: Key, kind: Lost) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        self.open -= 1;
        if let Phase::Sending(request, _) | Phase::Receiving(request, _) = connection.phase {
            self.count_lost(request.is_counted, kind);
        }
    }

    pub(super) fn count_lost(&mut self, is_counted: bool, kind: Lost) {
        if is_counted {
            self.tally.lost(kind);
        }
        self.queue.end(Instant::now(), false);
    }
}
