//! Launchers of the smallest worker there can be.

use std::{
    env, io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context as _, Result};

use super::WORKER_VERB;
pub(super) use crate::bench::launched::Launched;
use crate::{bench::launched::Launch, policy::Policy};

/// Starts a launcher, and waits until all its workers are ready.
pub(super) fn start(policy: Policy, workers: u32, runtime_dir: &Path) -> Result<Launched> {
    let executable = env::current_exe().context("cannot find the launcher to measure")?;
    let port = free_port().context("cannot find a free port")?;
    let launch = Launch {
        policy,
        workers,
        command: vec![
            executable.into(),
            WORKER_VERB.into(),
            port.to_string().into(),
        ],
        cpus: &[],
        own_namespace: false,
        runtime_dir,
    };
    Launched::start(&launch)?.wait(&|| false)
}

/// A port that nobody has. In a namespace of our own nobody can take it before the workers do.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
