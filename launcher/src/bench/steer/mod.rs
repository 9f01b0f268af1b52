//! Measures the launcher as it is: what steering costs beside the kernel's own hash.
//!
//! Reached by hidden verbs; `cargo xtask bench-steer` builds for release and calls [`steer_main`].

mod comparison;
mod decision;
mod evenness;
mod launched;
mod load;
mod options;
mod report;
mod turns;
mod worker;

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
    thread,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;

use self::options::{Options, Part};
use super::{failed, interrupt::Interrupt, machine::cpu_model, scratch::Scratch};
use crate::{
    failure::Exit,
    sys::{netns, process::raise_file_limit},
};

/// The hidden first argument that makes the executable the worker that is measured: see
/// [`worker_main`].
pub const WORKER_VERB: &str = "__bench-worker";

/// The hidden first argument that makes the executable measure steering: see [`steer_main`].
pub const STEER_VERB: &str = "__bench-steer";

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
    // Decisions are measured with many sockets. (The launchers take care of their workers' own.)
    raise_file_limit(0)?;
    let bench = Bench {
        options,
        interrupt: Interrupt::watch().context("cannot handle signals")?,
        runtime_dir: Scratch::create().context("cannot create a directory for control sockets")?,
    };
    let options = &bench.options;
    let mut out = io::stdout();
    writeln!(
        out,
        "{}\nkernel {}, {} × {}, in {place}; about {} min",
        command(),
        rustix::system::uname().release().to_string_lossy(),
        thread::available_parallelism().map_or(0, usize::from),
        cpu_model(),
        options.estimate().as_secs().div_ceil(60),
    )?;
    for part in &options.parts {
        writeln!(out, "\n{}", options.title(*part))?;
        write!(out, "{}", measure(&bench, *part)?)?;
    }
    writeln!(
        out,
        "\nMedians of the rounds, and what the middle half of them lies between. Clients and workers \
         share the\nCPUs: on a busy or small machine only ratios and differences mean something. \
         hash spreads like the\nkernel, so its ratio is the program's price; that of the others includes \
         what another spread changes."
    )?;
    Ok(())
}

/// Measures a part. Returns its tables.
fn measure(bench: &Bench, part: Part) -> Result<String> {
    let workers = bench.options.workers(part);
    Ok(match part {
        Part::Rates => {
            let compared = workers
                .iter()
                .map(|&workers| comparison::measure(bench, workers.into()));
            report::comparisons(&compared.collect::<Result<Vec<_>>>()?)
        }
        Part::Decisions => {
            let decided = workers
                .iter()
                .map(|&members| decision::measure(bench, members));
            report::decisions(&decided.collect::<Result<Vec<_>>>()?)
        }
        Part::Evenness => {
            let mut dealt = Vec::new();
            for &workers in workers {
                for policy in bench.options.policies() {
                    dealt.push(evenness::measure(bench, policy, workers)?);
                }
            }
            report::dealt(&dealt)
        }
        Part::Turns => {
            let costs = report::costs(&turns::measure(bench)?);
            costs + &report::turns(&turns::simulate_all())
        }
    })
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
