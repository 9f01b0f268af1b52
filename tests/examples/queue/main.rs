//! Queueing: how long requests wait for a worker that is free, under each policy, beside the kernel's
//! own hash and beside workers that share one queue. A benchmark, not a test: `cargo xtask
//! bench-queue`.
//!
//! A request occupies its worker for a while; 70 % of what the workers can do is asked of them, each
//! request on a connection of its own and at its time, whether or not the ones before have been
//! answered. All systems run at the same time and are loaded by turns with the same requests, so that
//! chance and whatever else the machine does meet all alike.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what it prints is its output"
)]

mod case;
mod interrupt;
mod load;
mod machine;
mod report;
mod schedule;
mod system;
mod worker;

use std::{env, io, process::ExitCode, thread, time::Duration};

use clap::{Parser, value_parser};
use kernel_tests::gate;

use case::Case;
use interrupt::Interrupt;
use report::Measured;
use schedule::poisson;
use system::{KERNEL, Running, System};

/// Load that is not measured: what a server does only once is done.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a system takes to start, about.
const STARTING: Duration = Duration::from_secs(1);

/// The first system's port; the others have the next ones.
const FIRST_PORT: u16 = 8000;

/// Measure how long requests wait, under each policy.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench-queue")]
struct Options {
    /// How often each system is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// For how many seconds each time
    #[arg(long, value_name = "S", default_value_t = 4, value_parser = value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// The workers and what is asked of them
    #[arg(
        long,
        value_name = "CASE,…",
        value_delimiter = ',',
        default_value = "2-spin,8-block,32-block,8-skewed"
    )]
    cases: Vec<Case>,
    /// The policies beside the kernel's hash and the shared queue [default: all]
    #[arg(long, value_name = "POLICY,…", value_delimiter = ',')]
    policies: Option<Vec<String>>,
    /// Where chance begins: the same number asks the same requests
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(worker::VERB) {
        return worker::main(arguments);
    }
    let options = Options::parse();
    let Some(_netns) = gate::enter(&[]) else {
        return ExitCode::FAILURE;
    };
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> io::Result<()> {
    let interrupt = Interrupt::watch()?;
    machine::raise_file_limit()?;
    let systems = systems(options)?;
    println!(
        "cargo xtask bench-queue{}\nkernel {}, {} CPUs; {} of the workers' capacity, Poisson arrivals, a \
         connection per request;\n{} × {} s by turns, seed {}; about {} min",
        env::args()
            .skip(1)
            .map(|word| format!(" {word}"))
            .collect::<String>(),
        rustix::system::uname().release().to_string_lossy(),
        thread::available_parallelism().map_or(0, usize::from),
        percent(case::UTILISATION),
        options.rounds,
        options.seconds,
        options.seed,
        estimate(options, systems.len()).as_secs().div_ceil(60),
    );
    for &case in &options.cases {
        let Some(measured) = case_of(case, &systems, options, &interrupt)? else {
            return Err(io::Error::other(
                "not measured to the end: a signal came\n  → what was started has been stopped; start again",
            ));
        };
        print!(
            "\n{}",
            report::table(&case.title(), &measured, &case.goals())
        );
    }
    println!(
        "\nMedians of the rounds (least–greatest). A request's time runs from the moment it was meant to be \
         sent; one without an\nanswer has the time until it was given up. late: how late 99 % were sent at \
         most. Load and workers share the CPUs: only\ncomparisons within one run mean something."
    );
    Ok(())
}

/// The kernel's hash, the shared queue, and the policies between them.
fn systems(options: &Options) -> io::Result<Vec<System>> {
    let known = system::policies();
    let policies = options.policies.as_ref().unwrap_or(&known);
    if let Some(unknown) = policies.iter().find(|policy| !known.contains(policy)) {
        let known = known.join(", ");
        return Err(io::Error::other(format!(
            "cannot measure {unknown}: the launcher has no such policy\n  → allowed: {known}"
        )));
    }
    let between = policies.iter().filter(|policy| *policy != KERNEL);
    let between = between.cloned().map(System::Policy);
    Ok([System::Policy(KERNEL.to_owned())]
        .into_iter()
        .chain(between)
        .chain([System::SharedQueue])
        .collect())
}

/// How long it all takes, about.
fn estimate(options: &Options, systems: usize) -> Duration {
    let rounds = Duration::from_secs(options.seconds) * options.rounds;
    let each = rounds + WARM_UP + STARTING;
    each * systems as u32 * options.cases.len() as u32
}

/// Measures all systems, or `None` when a signal has come.
fn case_of(
    case: Case,
    systems: &[System],
    options: &Options,
    interrupt: &Interrupt,
) -> io::Result<Option<Vec<Measured>>> {
    let load = |running: &Running, length, seed| {
        let requests = poisson(case.rate(), length, case.service(), seed);
        load::send(running.address, &requests, interrupt)
    };
    let mut sides = Vec::new();
    for (system, port) in systems.iter().zip(FIRST_PORT..) {
        if interrupt.came() {
            return Ok(None);
        }
        let running = system.start(port, case.workers(), case.occupation());
        let warm_up = load(&running, WARM_UP, options.seed)?;
        let sent = warm_up.latencies.len() as u64;
        sides.push((Measured::new(system.clone(), case.workers(), sent), running));
    }
    for round in 0..options.rounds {
        // Another one begins each time.
        let first = round as usize % sides.len();
        sides.rotate_left(first);
        for (measured, running) in &mut sides {
            let length = Duration::from_secs(options.seconds);
            let seed = options.seed.wrapping_add(1 + u64::from(round));
            let outcome = load(running, length, seed)?;
            if interrupt.came() {
                return Ok(None);
            }
            measured.runs.push(outcome);
        }
        sides.rotate_right(first);
    }
    let stop = |(mut measured, running): (Measured, Running)| {
        measured.chosen = running.chosen();
        running.stop();
        measured
    };
    Ok(Some(sides.into_iter().map(stop).collect()))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
