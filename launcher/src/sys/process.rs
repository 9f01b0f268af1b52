//! Starting a worker's process, and reaping.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Resource, Rlimit, WaitOptions, getrlimit, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

use super::{cgroup::WorkerCgroup, identity::Identity};
use crate::failure::{Failure, MORE_FILES};

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program's path, from [`find_program`](super::program::find_program).
    pub program: &'a Path,
    /// The arguments; the first is the program's own name.
    pub arguments: &'a [OsString],
    /// The whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// The cgroup that the process joins before it runs the program.
    pub cgroup: &'a WorkerCgroup,
    /// The CPUs it may use; all that we may use when `None`.
    pub cpus: Option<&'a [u32]>,
    /// Who it runs as; like us when `None`.
    pub identity: Option<&'a Identity>,
    /// How many files it may open: what we were given, from [`raise_file_limit`].
    pub file_limit: Rlimit,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

/// The steps between fork and exec, in order; what a child reports when one fails.
const STEPS: [&str; 5] = [
    "joining its cgroup",
    "setting its file limit",
    "setting its CPUs",
    "setting its groups",
    "setting its user",
];

/// Starts a process in its own process group, with `/dev/null` as standard input, and returns its
/// pid, which is not recycled before [`reap`] has returned it.
///
/// # Errors
/// A sentence that names the step that failed: fork, one of [`STEPS`], or exec.
pub fn spawn(launch: Launch<'_>) -> io::Result<u32> {
    let Launch {
        program,
        arguments,
        environment,
        cgroup,
        cpus,
        identity,
        file_limit,
        stdout,
        stderr,
    } = launch;
    let mut command = Command::new(program);
    if let Some((name, arguments)) = arguments.split_first() {
        command.arg0(name).args(arguments);
    }
    command
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // A Ctrl-C of the terminal must not reach it: the stop signal comes from us, once.
        .process_group(0);
    // std reports only an errno, which would leave exec's and ours indistinguishable.
    let (mut failed_step, report) = io::pipe()?;
    let procs = cgroup.procs().try_clone()?;
    let cpus = cpus.map(|cpus| {
        let mut set = CpuSet::new();
        for &cpu in cpus {
            set.set(cpu as usize);
        }
        set
    });
    let identity = identity.cloned();
    let prepare = move || {
        let steps: [&dyn Fn() -> io::Result<()>; STEPS.len()] = [
            &|| (&procs).write_all(b"0"),
            &|| Ok(setrlimit(Resource::Nofile, file_limit)?),
            &|| {
                cpus.as_ref()
                    .map_or(Ok(()), |set| Ok(sched_setaffinity(None, set)?))
            },
            &|| identity.as_ref().map_or(Ok(()), Identity::assume_groups),
            &|| identity.as_ref().map_or(Ok(()), Identity::assume_user),
        ];
        for (number, step) in steps.iter().enumerate() {
            if let Err(error) = step() {
                let _ = (&report).write_all(&[number as u8]);
                return Err(error);
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: the closure does
    // nothing but plain system calls (write, setrlimit, sched_setaffinity, setgroups, setresgid, setresuid),
    // on memory that was allocated before the fork. glibc's set*id would have other threads follow,
    // but the child of a fork has none.
    unsafe { command.pre_exec(prepare) };
    match command.spawn() {
        Ok(child) => Ok(child.id()),
        Err(error) => {
            // Drops the closure and with it our end of the pipe, so that the read below ends.
            drop(command);
            let mut step = [0];
            let during = match failed_step.read(&mut step) {
                Ok(1) => STEPS
                    .get(usize::from(step[0]))
                    .copied()
                    .unwrap_or("preparing it"),
                _ => "fork and exec",
            };
            Err(io::Error::new(
                error.kind(),
                format!("{during} failed: {error}"),
            ))
        }
    }
}

/// How many files the launcher needs open, whatever the number of workers.
const FILES: u64 = 64;

/// And how many more for each worker: its cgroup, its pipes, and what a start needs for a moment.
const FILES_PER_WORKER: u64 = 4;

/// Raises our own limit of open files as far as it goes, because each worker costs us a handful of
/// them, and returns what it was, which is what the workers get.
///
/// # Errors
/// When so many workers can't be had with what is allowed.
pub fn raise_file_limit(workers: u32) -> Result<Rlimit, Failure> {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: given.maximum,
        ..given
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => given.maximum,
        Err(_) => given.current,
    };
    let needed = FILES + FILES_PER_WORKER * u64::from(workers);
    match limit {
        Some(limit) if limit < needed => Err(Failure::new(
            format!("cannot run {workers} workers"),
            format_args!("only {limit} files may be open at once, and about {needed} are needed"),
            MORE_FILES,
        )),
        _ => Ok(given),
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid, free from now on.
    pub pid: u32,
    /// Its exit code, or the signal that killed it.
    pub status: Result<i32, i32>,
}

/// Collects every child that has ended, strangers that were re-parented to us included.
#[must_use]
pub fn reap() -> Vec<Ended> {
    let mut ended = Vec::new();
    loop {
        // Not nix's, which fails after the child is gone when a real-time signal has killed it.
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let status = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ok(code),
                    (None, Some(signal)) => Err(signal),
                    // Stopped or continued, which was not asked for.
                    (None, None) => continue,
                };
                ended.push(Ended {
                    pid: pid.as_raw_pid().unsigned_abs(),
                    status,
                });
            }
            Err(Errno::INTR) => {}
            // Nobody (more) has ended, or there are no children.
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// Makes orphans among our descendants our children, so that they are reaped and their worker's
/// end is noticed (PID 1 of a container is that anyway).
///
/// # Errors
/// Those of `prctl(PR_SET_CHILD_SUBREAPER)`.
pub fn become_subreaper() -> io::Result<()> {
    // Any pid means "on" (prctl(2)).
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// The command line of a process, for messages; its pid alone when it is gone or hidden.
#[must_use]
pub fn describe(pid: u32) -> String {
    let mut line = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(4096).read_to_end(&mut line));
    let words: Vec<_> = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    if read.is_err() || words.is_empty() {
        return format!("pid {pid}");
    }
    format!("pid {pid} ({})", words.join(" "))
}
