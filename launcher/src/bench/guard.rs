//! The process between a benchmark and a launcher that it measures: when the benchmark ends, however
//! that comes, its launcher ends too. (A launcher by itself leaves its workers to the next one.)
//!
//! It also makes the place where the launcher runs: the CPUs, and a network namespace.

use std::{
    env,
    ffi::OsString,
    io,
    os::fd::AsFd as _,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::{
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
    thread::{CpuSet, sched_setaffinity},
};

use crate::{
    failure::{Exit, Failure},
    sys::netns,
};

/// The hidden first argument that makes the executable a launcher's guard: see [`guard_main`].
pub const GUARD_VERB: &str = "__bench-guard";

/// How long a launcher may take to stop at once, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A launcher that is measured, and its guard.
#[derive(Debug, Parser)]
struct Options {
    /// The CPUs that it may use; none: any.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Give it a network namespace of its own.
    #[arg(long)]
    own_namespace: bool,
    /// The launcher's arguments.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// The whole life of a guard. It ends when its launcher does; and has that end when its standard input
/// is closed.
pub fn guard_main() -> ExitCode {
    let options = Options::parse_from(env::args_os().skip(1));
    match guard(&options) {
        Ok(()) => Exit::Clean.into(),
        Err(error) => super::failed(&error),
    }
}

/// Has this thread, and what it starts, run on these CPUs only; none: on any.
///
/// # Errors
/// When it may run on none of them.
pub(super) fn keep_to(cpus: &[usize]) -> Result<(), Failure> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    let known = cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU);
    known.for_each(|&cpu| set.set(cpu));
    sched_setaffinity(None, &set).map_err(|error| {
        let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
        let what = format!("cannot keep the workers to the CPUs {}", cpus.join(","));
        let hint = "see which CPUs may be used: taskset -cp $$";
        Failure::io(what, "sched_setaffinity", &error.into(), hint)
    })
}

fn guard(options: &Options) -> Result<()> {
    if options.own_namespace {
        netns::enter_new().map_err(|error| {
            let hint = "run as root, or with CAP_SYS_ADMIN; or leave this mode out";
            Failure::io(
                "cannot give each server a network namespace of its own",
                "making one",
                &error,
                hint,
            )
        })?;
    }
    keep_to(&options.cpus)?;
    let executable = env::current_exe().context("cannot find the launcher to measure")?;
    let mut child = Command::new(executable)
        .args(&options.arguments)
        .env_remove("REUSEPORT_LAUNCH_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start the launcher to measure")?;
    let launcher = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let stdin = io::stdin();
    let mut asked: Option<Instant> = None;
    loop {
        let timeout = match asked {
            None => PollTimeout::NONE,
            Some(asked) => match PATIENCE.checked_sub(asked.elapsed()) {
                Some(left) => PollTimeout::try_from(left.as_millis() + 1)?,
                None => {
                    let _ = pidfd_send_signal(&launcher, Signal::KILL);
                    break;
                }
            },
        };
        let told = PollFlags::POLLIN;
        let mut fds = [
            PollFd::new(launcher.as_fd(), told),
            PollFd::new(stdin.as_fd(), told),
        ];
        // Nothing but the end is to be heard of it after that.
        let count = if asked.is_some() { 1 } else { fds.len() };
        match poll(&mut fds[..count], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let heard = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if heard(&fds[0]) {
            break;
        }
        if asked.is_none() && heard(&fds[1]) {
            // It may have ended just now.
            let _ = pidfd_send_signal(&launcher, Signal::QUIT);
            asked = Some(Instant::now());
        }
    }
    child.wait()?;
    Ok(())
}
