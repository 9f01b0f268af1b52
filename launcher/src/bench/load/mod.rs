//! The load generator: a process of its own, so that its CPU time is nobody else's.
//!
//! It reads one [`LoadSpec`] from standard input (a line of JSON; it ends when its standard input
//! does), sends that load, and writes one [`LoadResult`] to standard output.
//!
//! - **Threads**: one for each CPU that it was given (or may use), two at most, each with connections,
//!   arrivals and an event loop of its own. Together, Poisson arrivals are Poisson arrivals.
//! - **Latency** is counted from the moment when a request was due. One that finds all connections busy
//!   waits, and its time counts, so a server that stands still can't hide what waits for it.
//! - **Each request that was due in the counted time** becomes one answer or one error, within the
//!   timeout after it was due; the load ends when all have. Nothing is tried twice: what a server
//!   closes under a request is an error.
//! - **Who closes**: a connection's last request says `Connection: close`, and the server closes it, as
//!   with any client, so what waits out its last minute (TIME_WAIT) is at the server's side. The next
//!   request does not wait for that. If that takes a second, or too many are left like that, the client resets it (SO_LINGER 0): after a whole answer nothing is lost by that, and
//!   closing it otherwise would cost a port for a minute.
//! - **Ports**: on IPv4's loopback interface each connection comes from another address of 127.0.0.0/8
//!   (see [`Sources`](super::sources::Sources)), with a port that is chosen when the kernel knows where
//!   to (IP_BIND_ADDRESS_NO_PORT). IPv6 has one address there, `::1`, and about 28 000 ports; the
//!   kernel gives one again while the server's end of it waits out its minute, so that is enough.
//! - **The closed pace pauses** a client for 10 ms after an error.

mod answer;
mod arrivals;
mod connections;
mod driver;
pub(super) mod generator;
mod lost;
mod plan;
mod queue;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead as _, Read as _, Write as _},
    num::NonZero,
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};

pub(crate) use self::generator::Generator;
use self::{
    driver::Driver,
    plan::{Plan, Share, Times},
    tally::Tally,
};
use super::{
    latency,
    model::{LoadResult, LoadSpec},
};
use crate::failure::{Exit, Failure};

/// The hidden first argument that makes the executable the generator: see [`load_main`].
pub const LOAD_VERB: &str = "__bench-load";

const WHAT: &str = "cannot send the load";
const REPORT: &str = "this is a fault of the program: report it";

/// How long the threads may take to start before the first request is due.
const STARTING: Duration = Duration::from_millis(5);

/// A thread that is on a CPU for a larger share of the time has nothing left to send more.
const BUSY: f64 = 0.9;

/// What a 99th percentile of lateness may be at least, in ns, and how many per cent of that of the
/// latency.
const LATE: u64 = 1_000_000;
const LATE_PERCENT: u64 = 20;

/// The whole life of a generator.
pub fn load_main() -> ExitCode {
    match answer_parent() {
        Ok(()) => Exit::Clean.into(),
        Err(failure) => {
            // Nothing is left to report to when stderr is gone.
            let _ = writeln!(io::stderr(), "error: {failure}");
            failure.exit.into()
        }
    }
}

/// Whether the generator was the bottleneck, so that the server could have done more or better: one of
/// its threads was on a CPU for more than 90 % of the counted time; or it sent requests so late that
/// this is a good part of what was measured (the 99th percentile of lateness is above 1 ms, and above
/// 20 % of that of the latency).
pub(crate) fn is_limit(result: &LoadResult) -> bool {
    // Without a good answer there is no latency to compare with.
    let p99 = latency::decode(&result.latency).map_or(0, |all| all.value_at_quantile(0.99));
    let is_late = result.late_p99 > LATE && result.late_p99 > p99 / 100 * LATE_PERCENT;
    result.busiest_thread > BUSY || is_late
}

fn answer_parent() -> Result<(), Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| misunderstood(&error))?;
    let spec: LoadSpec = serde_json::from_str(&line).map_err(|error| misunderstood(&error))?;
    let plan = Plan::new(&spec)?;
    let watch = thread::Builder::new().name("parent".to_owned());
    let watched = watch.spawn(|| {
        // There is nothing more to read: this returns when the parent has gone, or wants us to go.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        process::exit(Exit::Failed as i32)
    });
    watched.map_err(|error| no_thread(&error))?;
    let result = generate(&plan)?;
    let text = serde_json::to_string(&result).map_err(|error| misunderstood(&error))?;
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| {
        let hint = "read the generator's standard output";
        Failure::io("cannot tell what came of the load", "writing", &error, hint)
    })
}

/// Sends a load, and returns what came of it.
fn generate(plan: &Plan) -> Result<LoadResult, Failure> {
    let times = plan.times(Instant::now() + STARTING);
    let tallies = thread::scope(|scope| {
        let threads: Vec<_> = plan
            .shares
            .iter()
            .map(|share| {
                let thread = thread::Builder::new().name(format!("load {}", share.thread));
                thread.spawn_scoped(scope, move || drive(plan, share, times))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| {
            let thread = thread.map_err(|error| no_thread(&error))?;
            let panicked = |_| Err(Failure::new(WHAT, "a thread panicked", REPORT));
            thread.join().unwrap_or_else(panicked)
        });
        ended.collect::<Result<Vec<Tally>, Failure>>()
    })?;
    let mut all = Tally::new()?;
    for tally in &tallies {
        all.join(tally)?;
    }
    Ok(all.result(plan.counted))
}

/// A thread's whole life.
fn drive(plan: &Plan, share: &Share, times: Times) -> Result<Tally, Failure> {
    if let Some(cpu) = share.cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).map_err(|error| {
            let doing = format_args!("pinning a thread to CPU {cpu}");
            let hint = "name CPUs that this process may use";
            Failure::io(WHAT, doing, &error.into(), hint)
        })?;
    }
    // By default the kernel wakes a thread up to 50 µs late. Where it can't be changed, that shows as
    // lateness.
    let _ = set_current_timer_slack(NonZero::new(1));
    let driver = Driver::new(plan, share, times)?;
    thread::sleep(times.start.saturating_duration_since(Instant::now()));
    driver.run()
}

fn no_thread(error: &io::Error) -> Failure {
    Failure::io(
        WHAT,
        "starting a thread",
        error,
        "allow more threads: ulimit -u",
    )
}

fn misunderstood(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        "cannot tell what load is wanted",
        error,
        "start it with `reuseport-launch bench`",
    )
}
