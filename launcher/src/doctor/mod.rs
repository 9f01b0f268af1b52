//! `doctor`: says whether launchers can run here, on which rung of the ladder, and what would help.
//!
//! Features are tried, not guessed from a version: a worker is started in a cgroup of its own, its
//! socket captured and steered. It is killed then, and nothing is left behind.

mod machine;
mod table;
mod trial;

use std::{
    collections::HashSet,
    env,
    fmt::Display,
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    process::ExitCode,
    thread,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;

use crate::failure::Failure;

/// The hidden first argument that makes the executable the worker that is tried with.
pub const WORKER_VERB: &str = "__doctor-worker";

/// What was found. `docs/DOCTOR.md` describes its JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    version: &'static str,
    /// The kernel's release.
    kernel: String,
    usable: bool,
    rung: Rung,
    /// What would lead to a higher rung.
    raise: Vec<String>,
    checks: Vec<Check>,
}

/// How much of the launcher works: the higher, the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Rung {
    /// Nothing.
    None,
    /// Ports are shared, and dealt out by the kernel's own hash (`--steer kernel`).
    KernelHash,
    /// Connections are steered; those that wait in a worker that goes are lost.
    Ebpf,
    /// All of it.
    EbpfWithMigration,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// Stays the same from version to version: `cap-bpf`.
    id: String,
    area: Area,
    /// What it is about, for people.
    title: String,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Area {
    Privileges,
    Cgroup,
    Kernel,
    Network,
    Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// The launcher runs without it, less well.
    Warn,
    /// It is missing, and something does not work for that.
    Failed,
    /// It could not be tried.
    Unknown,
}

impl Check {
    fn new(
        area: Area,
        id: impl Into<String>,
        title: impl Into<String>,
        state: State,
        found: impl Display,
    ) -> Self {
        Self {
            id: id.into(),
            area,
            title: title.into(),
            state,
            found: found.to_string(),
            advice: None,
        }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        if self.state != State::Ok {
            self.advice = Some(advice.into());
        }
        self
    }

    /// Something that works, or fails for a reason that is known in full.
    fn of(area: Area, id: &str, title: &str, result: Result<String, Failure>) -> Self {
        match result {
            Ok(found) => Self::new(area, id, title, State::Ok, found),
            Err(failure) => {
                Self::new(area, id, title, State::Failed, failure.why).advise(failure.hint)
            }
        }
    }
}

/// Looks at everything.
#[must_use]
pub fn examine() -> Report {
    let mut checks = machine::privileges();
    let lacking = checks.iter().any(|check| check.state == State::Failed);
    let rung = trial::run(&mut checks, lacking);
    checks.extend(machine::network());
    checks.extend(machine::limits());
    let raise = match rung {
        Rung::EbpfWithMigration => Vec::new(),
        _ => raise(&checks),
    };
    Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: machine::kernel(),
        usable: rung > Rung::None,
        rung,
        raise,
        checks,
    }
}

/// What is to be done about what is missing; each only once.
fn raise(checks: &[Check]) -> Vec<String> {
    let missing = checks.iter().filter(|check| check.state == State::Failed);
    let mut seen = HashSet::new();
    missing
        .filter_map(|check| {
            let advice = check.advice.as_ref()?;
            seen.insert(advice)
                .then(|| format!("{}: {advice}", check.title))
        })
        .collect()
}

impl Report {
    /// Writes it as one JSON object, or as a table for people; and tells whether launchers can run.
    ///
    /// # Errors
    /// When `out` can't be written to.
    pub fn write(&self, json: bool, colour: bool, out: &mut impl Write) -> Result<bool, Failure> {
        let text = match json {
            true => serde_json::to_string_pretty(self)
                .map(|text| text + "\n")
                .map_err(io::Error::from),
            false => Ok(table::text(self, colour, table::is_utf8())),
        };
        text.and_then(|text| out.write_all(text.as_bytes()))
            .and_then(|()| out.flush())
            .map_err(|error| {
                let hint = "look at where standard output goes";
                Failure::io("cannot show what was found", "writing", &error, hint)
            })?;
        Ok(self.usable)
    }
}

/// The worker that is tried with: listens on a port of the loopback interface until it is killed.
#[must_use]
pub fn worker_main() -> ExitCode {
    // Should the one that tries be killed, so is this.
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    let port = env::args().nth(2).and_then(|port| port.parse::<u16>().ok());
    let Some((port, ())) = port.zip(bound.ok()) else {
        return ExitCode::FAILURE;
    };
    let Ok(_listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else {
        return ExitCode::FAILURE;
    };
    loop {
        thread::park();
    }
}
