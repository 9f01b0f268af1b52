//! The addresses that clients on the loopback interface come from.

use std::net::Ipv4Addr;

/// Threads that a generator of load has at most: they share the addresses out.
pub(super) const THREADS: usize = 2;

/// The addresses that a thread's connections come from: another one each time, or `source` would
/// send them all to one worker, and the ports of one address would not last. Each is in a /24 of its
/// own, and in no sequence.
#[derive(Debug)]
pub(super) struct Sources(u64);

impl Sources {
    /// Those of this one of the threads.
    pub(super) fn of(thread: usize) -> Self {
        Self(thread as u64)
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Ipv4Addr {
        // Threads take every other number. Multiplied by an odd one, no two of 2^16 meet.
        let scattered = (self.0 as u16).wrapping_mul(0x9e37);
        self.0 += THREADS as u64;
        let [high, low] = scattered.to_be_bytes();
        // All of 127.0.0.0/8 is loopback's.
        Ipv4Addr::new(127, high, low, 1)
    }
}
