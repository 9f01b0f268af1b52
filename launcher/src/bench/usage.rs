//! What processes have used, as `/proc` tells.

use std::{fs, io, ops::AddAssign, path::Path};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// What a process, or several, have used since they started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    /// CPU seconds, user and system.
    pub(super) cpu: f64,
    /// Context switches, voluntary or not.
    pub(super) switches: u64,
}

impl AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.switches += other.switches;
    }
}

impl Used {
    /// What the threads of a process have used that still run; nothing when it has gone.
    pub(super) fn by(pid: u32) -> Self {
        let mut used = Self::default();
        let mut exact = true;
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let task = task.path();
            match nanoseconds(&task) {
                Some(nanoseconds) => used.cpu += nanoseconds as f64 / 1e9,
                None => exact = false,
            }
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            // Two lines: the voluntary ones, and the others.
            let counts = status
                .lines()
                .filter_map(|line| line.split_once("_ctxt_switches:"));
            used.switches += counts
                .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
        if !exact {
            // A kernel without CONFIG_SCHED_INFO counts only ticks.
            used.cpu = seconds_by_ticks(pid).unwrap_or(0.0);
        }
        used
    }

    /// What this process has used, or its children that have ended and been reaped.
    pub(super) fn of(who: UsageWho) -> io::Result<Self> {
        let usage = getrusage(who)?;
        let micros = (usage.user_time() + usage.system_time()).num_microseconds();
        let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
        Ok(Self {
            cpu: micros as f64 / 1e6,
            switches: switches.unsigned_abs(),
        })
    }
}

/// The time that a thread has run.
fn nanoseconds(task: &Path) -> Option<u64> {
    let text = fs::read_to_string(task.join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok()
}

fn seconds_by_ticks(pid: u32) -> Option<f64> {
    let ticks: u64 = fields(pid)?.iter().skip(11).take(2).sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The processes of which this one is the parent.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&pid| fields(pid).and_then(|fields| fields.get(1).copied()) == Some(parent.into()))
        .collect()
}

/// The fields of `/proc/PID/stat` that follow the name, from the state; what is no number is 0.
fn fields(pid: u32) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have any character; what follows it does not.
    let (_, fields) = stat.rsplit_once(')')?;
    let number = |field: &str| field.parse().unwrap_or(0);
    Some(fields.split_whitespace().map(number).collect())
}

/// What listeners of a network namespace have lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Accept queues that overflowed.
    pub(super) overflows: u64,
    /// SYNs that were dropped.
    pub(super) drops: u64,
}

impl Lost {
    /// Of the namespace of this process; of that of the calling thread when `None`.
    pub(super) fn in_namespace(of: Option<u32>) -> Self {
        let process = of.map_or_else(|| "thread-self".to_owned(), |pid| pid.to_string());
        let text = fs::read_to_string(format!("/proc/{process}/net/netstat")).unwrap_or_default();
        Self {
            overflows: counter(&text, "ListenOverflows"),
            drops: counter(&text, "ListenDrops"),
        }
    }
}

impl AddAssign for Lost {
    fn add_assign(&mut self, other: Self) {
        self.overflows += other.overflows;
        self.drops += other.drops;
    }
}

/// A counter of netstat's `TcpExt`: a line of names, and below it a line of their values.
fn counter(netstat: &str, name: &str) -> u64 {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let mut fields = || lines.next().unwrap_or_default().split(' ');
    let (names, values) = (fields(), fields());
    let found = names.zip(values).find(|(found, _)| *found == name);
    found
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use super::*;

    #[test]
    fn our_own_usage_is_told_alike_by_both() {
        let of = Used::of(UsageWho::RUSAGE_SELF).expect("getrusage");
        let by = Used::by(process::id());
        // Other threads of this process may have ended, or run meanwhile.
        assert!(of.cpu > 0.0 && by.cpu > 0.0, "{of:?} {by:?}");
        assert!(seconds_by_ticks(process::id()).expect("/proc is mounted") >= 0.0);
        assert_eq!(Used::by(u32::MAX), Used::default());
    }

    #[test]
    fn a_child_is_found() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read _"])
            .stdin(process::Stdio::piped())
            .spawn()
            .expect("started");
        assert!(children(process::id()).contains(&child.id()));
        // Its standard input is closed by that.
        child.wait().expect("ended");
    }

    #[test]
    fn a_counter_is_found_by_its_name() {
        let netstat =
            "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: A ListenDrops\nIpExt: 4 5\n";
        assert_eq!(counter(netstat, "ListenOverflows"), 22);
        assert_eq!(counter(netstat, "ListenDrops"), 0);
        let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("/proc is mounted");
        assert!(text.contains(" ListenOverflows ") && text.contains(" ListenDrops "));
    }
}
