//! The project's own tasks, as `cargo xtask TASK`: build the eBPF objects, set a machine up, test,
//! measure.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool: what it prints is its output"
)]

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::Parser;

mod apt;
mod bench;
mod bpf;
mod dist;
mod fuzz;
mod process;
mod setup;
mod test;

pub use dist::package;

#[cfg(test)]
mod modules;

/// The project's own tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Task {
    /// Build the eBPF objects in launcher/bpf
    Ebpf {
        /// Build nothing: prove that the committed objects are what their sources say
        #[arg(long)]
        check: bool,
        /// Install the toolchain first, where there is none (Debian-like, as root)
        #[arg(long)]
        install: bool,
    },
    /// Install what the tests need (Debian-like, as root)
    Setup {
        /// Install nothing: fail if something is missing
        #[arg(long)]
        check: bool,
    },
    /// Set up, then run every check and every test
    Test {
        /// Only build and run the tests whose name contains this
        filter: Option<String>,
    },
    /// Build the launcher for release, and a Debian package of it in target/dist
    Dist,
    /// Fuzz choose() for a while; a finding is a failure (installs cargo-fuzz below target/)
    Fuzz {
        /// How long each target is run
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
    },
    /// Measure what steering costs, beside the kernel's own hash (a benchmark, not a test)
    #[command(disable_help_flag = true)]
    BenchSteer {
        /// The benchmark's own: see --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure the slowest requests while workers are killed and replaced, beside Node's cluster module
    #[command(disable_help_flag = true)]
    BenchTail {
        /// The benchmark's own: see --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Measure how long requests wait for a free worker under each policy, beside one shared queue
    #[command(disable_help_flag = true)]
    BenchQueue {
        /// The benchmark's own: see --help
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Fails if the committed eBPF objects are not what their sources say, as far as digests tell: part 1
/// of `cargo xtask ebpf --check`, for every plain `cargo test`.
///
/// # Errors
/// Says what is stale, and what to do.
pub fn check_objects() -> Result<()> {
    bpf::check::digests(process::root())
}

/// Performs the task that the command line names.
#[must_use]
pub fn main() -> ExitCode {
    let result = if bpf::wrapper::requested() {
        bpf::wrapper::run()
    } else {
        perform(Task::parse())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let root = process::root();
    match task {
        Task::Ebpf { check, install } => {
            if install {
                bpf::toolchain::install()?;
            }
            if check {
                bpf::check::run(root)
            } else {
                bpf::build::commit(root)
            }
        }
        Task::Setup { check: true } => setup::check(),
        Task::Setup { check: false } => setup::install(),
        Task::Test { filter } => test::run(root, filter.as_deref()),
        Task::Dist => dist::build(),
        Task::Fuzz { seconds } => fuzz::run_all(root, seconds),
        Task::BenchSteer { arguments } => bench::steer(root, &arguments),
        Task::BenchTail { arguments } => bench::tail(root, &arguments),
        Task::BenchQueue { arguments } => bench::queue(root, &arguments),
    }
}
