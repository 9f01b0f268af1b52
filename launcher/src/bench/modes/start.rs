//! How a mode is started: with a master, with a launcher, or with both.

use std::{
    env,
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::{
    HTTP_VERB, Mode, Work,
    link::Master,
    protocol::{Spec, Upstream, Way},
    worker,
};
use crate::{
    bench::launched::{Launch, Launched},
    policy::Policy,
};

/// What is measured, besides the mode.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// How many workers; `single` has one.
    pub(crate) workers: u32,
    /// What the built-in worker does for a request.
    pub(crate) work: Work,
    /// A server of one's own instead of the built-in worker.
    pub(crate) command: Option<Vec<OsString>>,
    /// Where clients connect to; 0: any free port. That of a server of one's own is found out; the
    /// port is then that of `proxy-dispatch` alone.
    pub(crate) port: u16,
    /// The CPUs that may be used by the workers, and by the master or the launcher; empty: any.
    pub(crate) cpus: Vec<usize>,
    /// Where launchers have their control sockets.
    pub(crate) runtime_dir: PathBuf,
}

/// What was started: where clients connect to, and by what.
pub(super) type Started = (SocketAddr, Option<Master>, Vec<Launched>);

/// How a mode is started.
pub(super) struct Start<'a> {
    pub(super) setup: &'a Setup,
    /// How many workers the mode has.
    pub(super) workers: u32,
    /// Whether to give up.
    pub(super) off: &'a dyn Fn() -> bool,
}

impl Start<'_> {
    /// Starts it, and returns when each worker takes connections.
    pub(super) fn mode(&self, mode: Mode) -> Result<Started> {
        match (mode, &self.setup.command) {
            (Mode::Single, Some(command)) => self.launcher(Policy::Kernel, command),
            (Mode::ProxyDispatch, Some(command)) => self.proxy(command),
            (Mode::ReuseportKernel, command) => {
                self.launcher(Policy::Kernel, &self.command(command)?)
            }
            (Mode::ReuseportEbpf(policy), command) => {
                self.launcher(policy, &self.command(command)?)
            }
            (Mode::Single, None) => self.master(Way::Own),
            (Mode::SharedListener, _) => self.master(Way::Shared),
            (Mode::SharedListenerExclusive, _) => self.master(Way::SharedExclusive),
            (Mode::MasterDispatch, _) => self.master(Way::Pass),
            (Mode::ProxyDispatch, None) => self.master(Way::Proxy),
        }
    }

    /// A master with built-in workers.
    fn master(&self, way: Way) -> Result<Started> {
        let spec = self.spec(way, self.workers, Vec::new());
        let (master, state) = Master::start(&spec, self.off)?;
        let address = state.address.context("the worker has ended at once")?;
        Ok((address, Some(master), Vec::new()))
    }

    /// A launcher with all workers.
    fn launcher(&self, policy: Policy, command: &[OsString]) -> Result<Started> {
        let launch = self.launch(policy, self.workers, command, false);
        let launched = Launched::start(&launch)?.wait(self.off)?;
        Ok((launched.address()?, None, vec![launched]))
    }

    /// A proxy to servers of one's own: all listen on the same port, so each is in a network namespace
    /// of its own, under a launcher of its own, which adds nothing to a connection.
    fn proxy(&self, command: &[OsString]) -> Result<Started> {
        let start = |slot: u32| {
            // Each launcher has a slot 0 only.
            let slot = slot.to_string();
            let command: Vec<OsString> = command
                .iter()
                .map(|word| match word.to_str() {
                    Some(text) => text.replace("{slot}", &slot).into(),
                    None => word.clone(),
                })
                .collect();
            Launched::start(&self.launch(Policy::Kernel, 1, &command, true))
        };
        // They start at the same time.
        let started: Vec<Launched> = (0..self.workers).map(start).collect::<Result<_>>()?;
        let mut launchers = Vec::new();
        let mut upstreams = Vec::new();
        for launched in started {
            let launched = launched.wait(self.off)?;
            upstreams.push(Upstream {
                pid: launched.snapshot()?.pid,
                address: launched.address()?,
            });
            launchers.push(launched);
        }
        let spec = self.spec(Way::Proxy, 0, upstreams);
        let (master, state) = Master::start(&spec, self.off)?;
        let address = state.address.context("the proxy does not listen")?;
        Ok((address, Some(master), launchers))
    }

    fn spec(&self, way: Way, workers: u32, upstreams: Vec<Upstream>) -> Spec {
        Spec {
            way,
            workers,
            work: self.setup.work.to_string(),
            port: self.setup.port,
            cpus: self.setup.cpus.clone(),
            upstreams,
        }
    }

    fn launch(
        &self,
        policy: Policy,
        workers: u32,
        command: &[OsString],
        own_namespace: bool,
    ) -> Launch<'_> {
        Launch {
            policy,
            workers,
            command: command.to_vec(),
            cpus: &self.setup.cpus,
            own_namespace,
            runtime_dir: &self.setup.runtime_dir,
        }
    }

    /// The server of one's own, or the built-in worker.
    fn command(&self, own: &Option<Vec<OsString>>) -> Result<Vec<OsString>> {
        if let Some(command) = own {
            return Ok(command.clone());
        }
        let port = match self.setup.port {
            0 => free_port().context("cannot find a free port")?,
            port => port,
        };
        let mut command: Vec<OsString> = vec![env::current_exe()?.into(), HTTP_VERB.into()];
        command.extend(worker::arguments(port, &self.setup.work).map(OsString::from));
        Ok(command)
    }
}

/// A port that nobody has. In a namespace of our own nobody can take it before the workers do.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
