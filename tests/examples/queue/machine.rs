//! What the machine gives us, and how busy it is.

use std::{fs, io};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Has as many files open as the machine lets us: what can't be served waits in connections.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// What the machine's CPUs have done since it started, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTimes {
    all: u64,
    idle: u64,
}

impl CpuTimes {
    /// How busy the CPUs were since `before`, from 0 to 1.
    pub(crate) fn busy_since(self, before: Self) -> f64 {
        let idle = self.idle.saturating_sub(before.idle);
        1.0 - idle as f64 / self.all.saturating_sub(before.all) as f64
    }

    /// Those of now.
    pub(crate) fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user's.
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|ticks| ticks.parse().ok())
            .collect();
        let idle = ticks.iter().skip(3).take(2).sum();
        Ok(Self {
            all: ticks.iter().sum(),
            idle,
        })
    }
}
