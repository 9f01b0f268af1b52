//! Notices a listening socket whose worker has stopped to accept, from its queue alone.
//!
//! A socket is stalled when its accept queue was never empty and nothing was taken out of it for
//! the stall timeout. Between two samples connections come as well as go, so that a queue of the
//! same length may have moved: what was sent to the socket less what waits in it tells. That
//! number wobbles, as connections are sent when their first packet arrives and wait when their
//! handshake is complete; only a value that it never had means that something was accepted. Of a
//! full queue it says nothing: the kernel still sends connections there and then drops them.

use std::time::Duration;

/// One look at a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Connections that wait to be accepted (`idiag_rqueue`).
    pub queue: u32,
    /// How many may wait (`idiag_wqueue`).
    pub backlog: u32,
    /// Connections that were ever sent to it; `None` where nobody counts them. Then only a queue
    /// that gets shorter proves that something was accepted.
    pub sent: Option<u64>,
}

/// Watches one listening socket.
#[derive(Clone, Debug)]
pub struct Stall {
    timeout: Duration,
    /// Since when nothing is known to have been accepted. `None` with an empty queue.
    idle_since: Option<Duration>,
    /// The last sample's queue.
    queue: u32,
    /// The highest value of `sent − queue`.
    accepted: u64,
    stalled: bool,
}

impl Stall {
    /// A socket that works, and the time without an accept that makes it stalled.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            idle_since: None,
            queue: 0,
            accepted: 0,
            stalled: false,
        }
    }

    /// What the last sample came to.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Takes a sample at `now`, on a clock that never runs backwards. Returns whether the socket
    /// is stalled, where that changed.
    pub fn sample(&mut self, now: Duration, sample: Sample) -> Option<bool> {
        let Sample {
            queue,
            backlog,
            sent,
        } = sample;
        let accepted = sent.map_or(0, |sent| sent.saturating_sub(u64::from(queue)));
        let shrank = queue < self.queue;
        // A queue that gets as long as the backlog may have been full between the samples.
        let grew = queue < backlog && accepted > self.accepted;
        self.queue = queue;
        self.accepted = self.accepted.max(accepted);

        let since = if queue == 0 {
            self.idle_since = None;
            now
        } else if shrank || grew {
            *self.idle_since.insert(now)
        } else {
            *self.idle_since.get_or_insert(now)
        };
        let stalled = if self.stalled {
            // Connections sent before it left the table may still complete their handshakes, or
            // give up: only its queue is proof.
            queue > 0 && !shrank
        } else {
            now.saturating_sub(since) >= self.timeout && queue > 0
        };
        let changed = stalled != self.stalled;
        self.stalled = stalled;
        changed.then_some(stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a queue with a backlog of 10 each second; the timeout is two.
    fn changes(samples: &[(u32, Option<u64>)]) -> Vec<Option<bool>> {
        let mut stall = Stall::new(Duration::from_secs(2));
        let sample = |(at, &(queue, sent))| {
            let backlog = 10;
            let sample = Sample {
                queue,
                backlog,
                sent,
            };
            stall.sample(Duration::from_secs(at), sample)
        };
        (0..).zip(samples).map(sample).collect()
    }

    #[test]
    fn a_queue_that_only_grows_stalls_and_recovers_as_soon_as_it_shrinks() {
        let samples = [(0, 0), (1, 1), (1, 1), (4, 4), (5, 5), (4, 5), (4, 5)];
        let expected = [None, None, None, Some(true), None, Some(false), None];
        assert_eq!(changes(&samples.map(|(q, s)| (q, Some(s)))), expected);
    }

    #[test]
    fn a_queue_that_empties_recovers() {
        let samples = [(1, 1), (1, 1), (1, 1), (0, 1), (1, 2), (1, 2), (1, 2)];
        let expected = [None, None, Some(true), Some(false), None, None, Some(true)];
        assert_eq!(changes(&samples.map(|(q, s)| (q, Some(s)))), expected);
    }

    #[test]
    fn an_empty_queue_never_stalls() {
        assert_eq!(changes(&[(0, Some(5)); 6]), [None; 6]);
    }

    #[test]
    fn a_busy_queue_of_constant_length_does_not_stall() {
        let samples: Vec<_> = (0..20).map(|at| (5, Some(100 + at))).collect();
        assert_eq!(changes(&samples), [None; 20]);
    }

    #[test]
    fn half_open_connections_do_not_look_like_accepts_twice() {
        // Five are sent and complete their handshakes later: sent − queue goes up and down.
        let samples = [(1, 6), (3, 6), (6, 9), (6, 9), (8, 9)];
        let expected = [None, None, Some(true), None, None];
        assert_eq!(changes(&samples.map(|(q, s)| (q, Some(s)))), expected);
    }

    #[test]
    fn what_is_dropped_at_a_full_queue_was_not_accepted() {
        let samples: Vec<_> = (0..5).map(|at| (10, Some(20 + 7 * at))).collect();
        assert_eq!(
            changes(&samples),
            [None, None, Some(true), None, None],
            "only the first sample may start the clock"
        );
    }

    #[test]
    fn without_a_count_only_the_queue_tells() {
        let samples = [5, 5, 4, 4, 4, 9, 8].map(|queue| (queue, None));
        let expected = [None, None, None, None, Some(true), None, Some(false)];
        assert_eq!(changes(&samples), expected);
    }

    #[test]
    fn once_stalled_only_the_queue_tells() {
        let samples = [(1, 1), (1, 1), (1, 1), (2, 9), (1, 9)];
        let expected = [None, None, Some(true), None, Some(false)];
        assert_eq!(changes(&samples.map(|(q, s)| (q, Some(s)))), expected);
    }
}
