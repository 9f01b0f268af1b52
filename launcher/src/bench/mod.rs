//! Measures the launcher as it is: what steering costs beside the kernel's own hash.
//!
//! Reached by hidden verbs; `cargo xtask bench-steer` builds for release and calls [`steer_main`].

mod comparison;
mod decision;
mod interrupt;
mod launched;
mod load;
mod report;
mod worker;

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::{self, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, value_parser};

use self::interrupt::Interrupt;
use crate::{
    failure::{Exit, Failure},
    sys::netns,
};

/// The hidden first argument that makes the executable the worker that is measured: see
/// [`worker_main`].
pub const WORKER_VERB: &str = "__bench-worker";

/// The hidden first argument that makes the executable measure steering: see [`steer_main`].
pub const STEER_VERB: &str = "__bench-steer";

/// Compare round-robin in eBPF with the kernel's hash, and measure a decision.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench-steer")]
struct Options {
    /// How often everything is measured, by turns
    #[arg(
        long,
        value_name = "N",
        default_value = "60",
        value_parser = value_parser!(u32).range(1..=1000)
    )]
    rounds: u32,
    /// How long each policy is loaded in a round
    #[arg(long, value_name = "S", default_value = "0.2", value_parser = seconds)]
    seconds: Duration,
    /// Numbers of workers
    #[arg(
        long,
        value_name = "N,…",
        default_value = "2,8",
        value_delimiter = ',',
        value_parser = value_parser!(u16).range(1..=256)
    )]
    workers: Vec<u16>,
    /// Connections that each of the two client threads has in flight
    #[arg(
        long,
        value_name = "N",
        default_value = "25",
        value_parser = value_parser!(u16).range(1..=1000)
    )]
    in_flight: u16,
    /// Connections over which a decision's cost is averaged in a round
    #[arg(
        long,
        value_name = "N",
        default_value = "3000",
        value_parser = value_parser!(u32).range(1..)
    )]
    connections: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "allowed: 0.1 to 3600".to_owned())
}

/// The whole life of a worker that is measured.
pub fn worker_main() -> ExitCode {
    let port = env::args().nth(2).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        return Exit::Usage.into();
    };
    match worker::serve(port) {
        Ok(()) => Exit::Clean.into(),
        Err(error) => failed(&error.into()),
    }
}

/// The whole measurement.
pub fn steer_main() -> ExitCode {
    let options = Options::parse_from(env::args_os().skip(1));
    match steer(options) {
        Ok(()) => Exit::Clean.into(),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to report to when stderr is gone.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    error
        .downcast_ref::<Failure>()
        .map_or(Exit::Failed, |failure| failure.exit)
        .into()
}

/// What a measurement is carried out with.
struct Bench {
    options: Options,
    interrupt: Interrupt,
    runtime_dir: Scratch,
}

fn steer(options: Options) -> Result<()> {
    // Before any thread is started: each has its own namespace.
    let place = match netns::enter_new() {
        Ok(()) => "a network namespace of its own".to_owned(),
        Err(error) => format!("the host's loopback (no network namespace of its own: {error})"),
    };
    let bench = Bench {
        options,
        interrupt: Interrupt::watch().context("cannot handle signals")?,
        runtime_dir: Scratch::create().context("cannot create a directory for control sockets")?,
    };
    let Options {
        rounds,
        seconds,
        ref workers,
        in_flight,
        connections,
    } = bench.options;
    let mut out = io::stdout();
    writeln!(
        out,
        "{}\nkernel {}, {} × {}, in {place}\n\n\
         Connections per second: {} clients × {in_flight} connections in flight, one request each; \
         {rounds} × {} s by turns",
        command(),
        rustix::system::uname().release().to_string_lossy(),
        std::thread::available_parallelism().map_or(0, usize::from),
        cpu_model(),
        load::THREADS,
        seconds.as_secs_f64(),
    )?;
    let compared = workers
        .iter()
        .map(|&workers| comparison::measure(&bench, workers.into()));
    writeln!(
        out,
        "{}",
        report::comparisons(&compared.collect::<Result<Vec<_>>>()?)
    )?;
    writeln!(
        out,
        "One decision, by the kernel's statistics: {rounds} × {connections} connections by turns"
    )?;
    let decided = workers
        .iter()
        .map(|&members| decision::measure(&bench, members));
    writeln!(
        out,
        "{}",
        report::decisions(&decided.collect::<Result<Vec<_>>>()?)
    )?;
    writeln!(
        out,
        "Medians of the rounds, and what the middle half of them lies between. Clients and workers \
         share the\nCPUs: on a busy or small machine only ratios and differences mean something. \
         hash spreads like the\nkernel, so its ratio is the program's price; round-robin's includes \
         what another spread changes."
    )?;
    Ok(())
}

/// What repeats the measurement.
fn command() -> String {
    let arguments: Vec<OsString> = env::args_os().skip(2).collect();
    let mut command = "cargo xtask bench-steer".to_owned();
    for argument in arguments {
        command.push(' ');
        command += &argument.to_string_lossy();
    }
    command
}

fn cpu_model() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown CPU".to_owned(), |(_, model)| model.to_owned())
}

/// Where the launchers under measurement meet, apart from those that serve. Goes when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn create() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("reuseport-launch-bench-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left then is an empty directory among the temporary ones.
        let _ = fs::remove_dir_all(&self.0);
    }
}
