//! Measures what kernel steering buys, against the alternatives.
//!
//! [`runner`] compares the launcher with them, for its users (`reuseport-launch bench`); [`steer`]
//! measures it as it is, for its developers (`cargo xtask bench-steer`). [`modes`] are what users compare.

mod guard;
mod interrupt;
mod latency;
mod launched;
mod load;
mod machine;
mod model;
mod modes;
mod report;
mod runner;
mod scratch;
mod sources;
mod stats;
mod steer;
mod usage;
mod words;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::failure::{Exit, Failure};

pub use guard::{GUARD_VERB, guard_main};
pub use load::{LOAD_VERB, load_main};
pub use modes::{HTTP_VERB, MASTER_VERB, SERVE_VERB, http_main, master_main, serve_main};
pub use runner::compare;
pub use steer::{STEER_VERB, WORKER_VERB, steer_main, worker_main};

fn failed(error: &anyhow::Error) -> ExitCode {
    // Nothing is left to report to when stderr is gone.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    error
        .downcast_ref::<Failure>()
        .map_or(Exit::Failed, |failure| failure.exit)
        .into()
}
