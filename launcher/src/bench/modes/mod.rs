//! What is compared: the ways of spreading connections over workers ([`Mode`]), with the built-in worker
//! or a server of one's own.
//!
//! ```text
//! Running ── master ── built-in workers        single, shared-listener*, master-dispatch, proxy-dispatch
//! Running ── guard ── launcher ── workers      reuseport-*; a server of one's own: single
//! Running ─┬ master                            a server of one's own: proxy-dispatch
//!          └ guard ── launcher ── the server   (one for each, in a network namespace of its own)
//! ```
//!
//! All of it ends with who has started it.

mod disturbance;
mod link;
mod listening;
mod master;
mod mode;
mod passing;
mod protocol;
mod running;
mod serve;
mod start;
mod table;
mod work;
mod worker;

use std::process::ExitCode;

use anyhow::Result;

use crate::failure::Exit;

pub(crate) use self::{
    disturbance::Disturbance, mode::Mode, running::Running, start::Setup, work::Work,
};

/// The hidden first argument that makes the executable the built-in worker: see [`http_main`].
pub const HTTP_VERB: &str = "__bench-http";

/// The hidden first argument that makes the executable a master: see [`master_main`].
pub const MASTER_VERB: &str = "__bench-master";

/// The hidden first argument that makes the executable run one mode: see [`serve_main`].
pub const SERVE_VERB: &str = "__bench-serve";

/// The whole life of the built-in worker.
pub fn http_main() -> ExitCode {
    exit(worker::main())
}

/// The whole life of a master.
pub fn master_main() -> ExitCode {
    exit(master::main())
}

/// Runs one mode until its standard input ends, for tests and to try it out.
pub fn serve_main() -> ExitCode {
    exit(serve::main())
}

fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => Exit::Clean.into(),
        Err(error) => super::failed(&error),
    }
}
