//! One mode by itself: `__bench-serve MODE [--workers N] [--work WORK] [-- COMMAND…]`.
//!
//! It writes a line of JSON when all workers are ready, and one for each line that it reads: `usage` or
//! the name of a disturbance. It ends with its standard input.

use std::{
    env,
    ffi::OsString,
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
};

use anyhow::Result;
use clap::Parser;
use serde_json::json;

use super::{Disturbance, Mode, Running, Setup, Work};

/// Run one mode of the benchmark.
#[derive(Debug, Parser)]
struct Options {
    mode: Mode,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    #[arg(long, default_value = "none")]
    work: Work,
    #[arg(long, default_value_t = 0)]
    port: u16,
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    #[arg(long)]
    runtime_dir: PathBuf,
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub(super) fn main() -> Result<()> {
    let options = Options::parse_from(env::args_os().skip(1));
    let Options {
        mode,
        workers,
        work,
        port,
        cpus,
        runtime_dir,
        command,
    } = options;
    let setup = Setup {
        workers,
        work,
        command: (!command.is_empty()).then_some(command),
        port,
        cpus,
        runtime_dir,
    };
    let running = Running::start(&mode, &setup)?;
    let mut out = io::stdout();
    let address = running.address();
    let workers = running.workers();
    writeln!(
        out,
        "{}",
        json!({"address": address, "workers": workers, "pids": running.pids()?})
    )?;
    for line in io::stdin().lock().lines() {
        let answer = match line?.as_str() {
            "pids" => json!(running.pids()?),
            "usage" => json!(running.usage()?),
            word => match word.parse::<Disturbance>() {
                Ok(disturbance) => json!(running.disturb(disturbance)?),
                Err(error) => json!({"error": error}),
            },
        };
        writeln!(out, "{answer}")?;
    }
    running.stop();
    Ok(())
}
