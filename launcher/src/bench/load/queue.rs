//! Which request is sent when. Time is an argument.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    arrivals::Arrivals,
    plan::{Share, Times},
};

/// How long a client of the closed pace waits after a request that failed. A refusal comes at once:
/// without a pause, a server that is away for a moment would be asked tens of thousands of times.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// The requests of a thread that are not sent yet, and how many of those that are have not ended.
#[derive(Debug)]
pub(super) struct Queue {
    times: Times,
    timeout: Duration,
    /// Requests at a time.
    limit: u32,
    /// Sent, and not ended; and the clients that pause.
    busy: u32,
    pauses: VecDeque<Instant>,
    /// Those to come, in the open pace.
    arrivals: Option<Arrivals>,
    /// The next of them, if it comes before the end.
    next: Option<Instant>,
    /// When those that are due and not sent were due.
    waiting: VecDeque<Instant>,
    /// When the last request ended that others may have waited for.
    freed: Instant,
}

impl Queue {
    pub(super) fn new(share: &Share, times: Times, timeout: Duration) -> Self {
        let arrivals = share.rate.map(|rate| Arrivals::new(rate, share.seed));
        let mut queue = Self {
            times,
            timeout,
            limit: share.connections,
            busy: 0,
            pauses: VecDeque::new(),
            arrivals,
            next: None,
            waiting: VecDeque::new(),
            freed: times.start,
        };
        queue.advance();
        queue
    }

    /// Notes what has become due. Returns how many of these requests are counted.
    pub(super) fn look(&mut self, now: Instant) -> u64 {
        while self.pauses.front().is_some_and(|&until| until <= now) {
            self.pauses.pop_front();
            self.busy -= 1;
        }
        let mut counted = 0;
        while let Some(due) = self.next.filter(|&due| due <= now) {
            counted += u64::from(self.is_counted(due));
            self.waiting.push_back(due);
            self.advance();
        }
        if self.arrivals.is_none() && now < self.times.end {
            // Each client that is free sends at once.
            let free = (self.limit - self.busy) as usize;
            while self.waiting.len() < free {
                counted += u64::from(self.is_counted(now));
                self.waiting.push_back(now);
            }
        }
        counted
    }

    /// Takes the next request to be sent: when it was due.
    pub(super) fn take(&mut self) -> Option<Instant> {
        if self.busy == self.limit {
            return None;
        }
        let due = self.waiting.pop_front()?;
        self.busy += 1;
        Some(due)
    }

    /// Takes a request that has waited for longer than it may take.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Instant> {
        let due = *self.waiting.front()?;
        (due + self.timeout <= now).then(|| self.waiting.pop_front())?
    }

    /// Notes that a request has ended that was sent.
    pub(super) fn end(&mut self, now: Instant, is_good: bool) {
        if !is_good && self.arrivals.is_none() {
            self.pauses.push_back(now + PAUSE);
            return;
        }
        if self.busy == self.limit {
            self.freed = now;
        }
        self.busy -= 1;
    }

    /// How much later a request was sent than it could have been: it was due, and, if it had to wait
    /// for another one's end, that had come. In the closed pace none is due before it is sent.
    pub(super) fn lateness(&self, due: Instant, sent: Instant) -> Duration {
        match self.arrivals {
            Some(_) => sent.saturating_duration_since(due.max(self.freed)),
            None => Duration::ZERO,
        }
    }

    /// Whether a request that was due then is counted.
    pub(super) fn is_counted(&self, due: Instant) -> bool {
        (self.times.counted..self.times.end).contains(&due)
    }

    /// When there is something to do at the latest, if nothing ends before.
    pub(super) fn wake(&self) -> Option<Instant> {
        let late = self.waiting.front().map(|&due| due + self.timeout);
        [self.next, late, self.pauses.front().copied()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether all requests have ended, and no more come.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        let running = self.busy as usize - self.pauses.len();
        now >= self.times.end && running == 0 && self.waiting.is_empty()
    }

    fn advance(&mut self) {
        let due = self.arrivals.as_mut().and_then(Iterator::next);
        self.next = due
            .map(|after| self.times.start + after)
            .filter(|&due| due < self.times.end);
    }
}
