//! The clock of eBPF programs.

use std::{fs, time::Duration};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// What `bpf_ktime_get_coarse_ns` gives in an eBPF program: the time since the machine's start, as
/// coarse as the kernel's tick.
///
/// In a time namespace the clock that processes are shown is another one, but not that of programs
/// (time_namespaces(7)).
#[must_use]
pub fn kernel_now() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::MonotonicCoarse);
    let (seconds, nanoseconds) = fs::read_to_string("/proc/self/timens_offsets")
        .ok()
        .and_then(|offsets| monotonic(&offsets))
        .unwrap_or_default();
    let total = i128::from(tv_sec - seconds) * 1_000_000_000 + i128::from(tv_nsec - nanoseconds);
    Duration::from_nanos(u64::try_from(total).unwrap_or(0))
}

/// The seconds and nanoseconds by which this namespace's monotonic clock is ahead.
fn monotonic(offsets: &str) -> Option<(i64, i64)> {
    let line = offsets
        .lines()
        .find_map(|line| line.strip_prefix("monotonic"))?;
    let mut numbers = line.split_whitespace().map(str::parse);
    match (numbers.next()?, numbers.next()?) {
        (Ok(seconds), Ok(nanoseconds)) => Some((seconds, nanoseconds)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_a_time_namespace() {
        let text = "monotonic           -5         7\nboottime             0         0\n";
        assert_eq!(monotonic(text), Some((-5, 7)));
        assert_eq!(monotonic("boottime 0 0\n"), None);
    }

    #[test]
    fn it_is_the_uptime_that_everybody_has() {
        let before = kernel_now();
        assert!(before > Duration::ZERO && kernel_now() >= before);
    }
}
