//! The benchmark for users: `reuseport-launch bench`.

mod files;
mod limits;
mod measurement;
mod order;
mod output;
mod plan;
mod progress;
mod rounds;

use std::{env, fs, io, time::SystemTime};

use self::{
    plan::Plan,
    rounds::{Outcome, Rounds},
};
use super::{
    interrupt::Interrupt,
    machine,
    model::{REPORT_VERSION, Report},
    modes::Setup,
    scratch::Scratch,
};
use crate::{
    cli,
    failure::{Exit, Failure},
    sys::netns,
};

/// Compares modes, and reports.
///
/// # Errors
/// When the options make no sense, nothing can be measured, the baseline or all modes failed, or the
/// report can't be written.
pub fn compare(options: cli::Bench) -> Result<Exit, Failure> {
    let started = SystemTime::now();
    let machine = machine::read();
    let plan = Plan::new(options, &machine)?;
    // Before any thread is started: each has its own namespace.
    let (own_namespace, note) = enter(plan.host_network);
    let mut notes: Vec<String> = note.into_iter().collect();
    let host = machine::host(&machine, own_namespace);
    let interrupt = Interrupt::watch().map_err(|error| cannot("handling signals", &error))?;
    let scratch = Scratch::create()
        .map_err(|error| cannot("creating a directory for control sockets", &error))?;
    let apart = machine::set_apart(&machine, plan.workers);
    notes.extend(limits::of_cpus(&plan, machine.cpus.len(), apart.is_some()));
    let (worker_cpus, generator_cpus) = apart.unwrap_or_default();
    let setup = Setup {
        workers: plan.workers,
        work: plan.work.clone(),
        command: plan.command.clone(),
        port: 0,
        cpus: worker_cpus.clone(),
        runtime_dir: scratch.path().to_owned(),
    };
    let outcome = rounds::measure(Rounds {
        plan: &plan,
        setup,
        generator_cpus: generator_cpus.clone(),
        interrupt: &interrupt,
    });
    drop(scratch);
    let Outcome {
        modes,
        notes: of_rounds,
        interrupted,
    } = outcome;
    notes.extend(of_rounds);
    let report = Report {
        version: REPORT_VERSION,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        started: humantime::format_rfc3339_seconds(started).to_string(),
        command: env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        host,
        work: plan.work(),
        shape: plan.shape,
        worker_cpus,
        generator_cpus,
        disturb: plan.disturb.map(disturbed),
        baseline: plan
            .modes
            .get(plan.baseline)
            .map(ToString::to_string)
            .unwrap_or_default(),
        modes,
        notes,
    };
    output::finish(report, &plan.files, interrupted)
}

fn cannot(doing: &str, error: &io::Error) -> Failure {
    Failure::io(
        "cannot measure",
        doing,
        error,
        "try again, with more memory or processes allowed",
    )
}

/// Enters a network namespace of our own, where that is wanted and allowed. Returns whether that is so,
/// and what there is to say about it.
///
/// The namespace gets the host's limit of accept queues.
fn enter(host_network: bool) -> (bool, Option<String>) {
    const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
    let shared = "other traffic of this host is in these figures";
    if host_network {
        let note = format!("measured on the host's own network (--host-network): {shared}");
        return (false, Some(note));
    }
    let limit = fs::read(SOMAXCONN);
    match netns::enter_new() {
        Ok(()) => {
            let set = limit.and_then(|limit| fs::write(SOMAXCONN, limit));
            let note = set.err().map(|error| {
                format!("net.core.somaxconn is the kernel's default, not the host's ({error})")
            });
            (true, note)
        }
        Err(error) => {
            let note = format!(
                "measured on the host's loopback, without a network namespace of its own ({error}): {shared}"
            );
            (false, Some(note))
        }
    }
}
fn disturbed(disturb: cli::Disturb) -> String {
    match disturb {
        cli::Disturb::Reload => "reload",
        cli::Disturb::Kill => "kill",
        cli::Disturb::Stall => "stall",
    }
    .to_owned()
}
