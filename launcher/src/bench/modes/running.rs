//! A mode that runs: started, looked at, disturbed, stopped.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use rustix::process::{Signal, pidfd_send_signal};

use super::{Disturbance, Mode, Setup, link::Master, protocol::State, start::Start};
use crate::{
    bench::{
        launched::Launched,
        model::Usage,
        usage::{Lost, Used, children},
    },
    failure::{Exit, Failure},
    sys::cgroup::open_pidfd,
};

/// How long a stalled worker is stopped.
const STALL: Duration = Duration::from_secs(1);

/// A mode that runs. Dropped, all that it has started is stopped, and waited for; and so it is when this
/// process ends in any other way, a moment later.
#[derive(Debug)]
pub(crate) struct Running {
    mode: Mode,
    workers: u32,
    address: SocketAddr,
    // The front goes first.
    master: Option<Master>,
    /// One with all workers, or behind a proxy one for each.
    launchers: Vec<Launched>,
    /// The slot that is disturbed next.
    next: AtomicU32,
}

impl Running {
    /// Starts a mode, and returns when each worker takes connections.
    pub(crate) fn start(mode: &Mode, setup: &Setup) -> Result<Self> {
        Self::start_unless(mode, setup, &|| false)
    }

    /// The same, but gives up as soon as `off` says so.
    pub(crate) fn start_unless(mode: &Mode, setup: &Setup, off: &dyn Fn() -> bool) -> Result<Self> {
        let mode = *mode;
        if mode.needs_cooperation() && setup.command.is_some() {
            return Err(Failure::new(
                format!("cannot run your server in the mode {mode}"),
                "a server would have to take part in it, and only the built-in worker does",
                "leave the command out, or choose other modes: single, proxy-dispatch, \
                 reuseport-kernel, reuseport-ebpf:POLICY",
            )
            .exit(Exit::Usage)
            .into());
        }
        let workers = match mode {
            Mode::Single => 1,
            _ => setup.workers.max(1),
        };
        let start = Start {
            setup,
            workers,
            off,
        };
        let (address, master, launchers) = start.mode(mode)?;
        Ok(Self {
            mode,
            workers,
            address,
            master,
            launchers,
            next: AtomicU32::new(0),
        })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> u32 {
        self.workers
    }

    /// By slot the pid of its worker's main process; `None` while there is none that is ready.
    pub(crate) fn pids(&self) -> Result<Vec<Option<u32>>> {
        if self.launchers.is_empty() {
            return Ok(self.state()?.map_or_else(Vec::new, |state| state.pids));
        }
        let places = (0..self.workers).map(|slot| self.place(slot));
        let ready = places.map(|(launched, slot)| Ok(ready(launched, slot)?.map(|(pid, _)| pid)));
        ready.collect()
    }

    /// What all processes have used since they started. A worker's CPU time has its children's in it, and
    /// that of workers that have been replaced; the dispatcher's is the master's, and the launcher's with
    /// the process that passes its workers' output on. The context switches of a launcher's worker that
    /// has been replaced are not known any more.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut lost = Lost::in_namespace(None);
        let mut usage = Usage::default();
        let mut by_worker: Option<Vec<u64>> = None;
        for launched in &self.launchers {
            let snapshot = launched.snapshot()?;
            usage.workers_cpu += launched.workers_cpu()?;
            let mut main = Vec::new();
            for worker in &snapshot.workers {
                main.extend(worker.pid);
                for pid in launched.processes(worker.slot, worker.generation) {
                    usage.switches += Used::by(pid).switches;
                }
            }
            let mut dispatcher = Used::by(snapshot.pid);
            for pid in children(snapshot.pid) {
                if !main.contains(&pid) {
                    dispatcher += Used::by(pid);
                }
            }
            usage.dispatcher_cpu += dispatcher.cpu;
            usage.switches += dispatcher.switches;
            if let Mode::ReuseportEbpf(_) = self.mode {
                by_worker = launched.connections(&snapshot);
            }
            if self.mode == Mode::ProxyDispatch {
                lost += Lost::in_namespace(Some(snapshot.pid));
            }
        }
        if let Some(state) = self.state()? {
            usage.workers_cpu += state.workers_cpu;
            usage.dispatcher_cpu += state.dispatcher_cpu;
            usage.switches += state.switches;
            by_worker = state.by_worker;
        }
        usage.by_worker = by_worker;
        usage.listen_overflows = lost.overflows;
        usage.listen_drops = lost.drops;
        Ok(usage)
    }

    /// Disturbs a worker: another one each time, in turn. A reload returns when it is done; a stalled
    /// worker goes on by itself, after this has returned. Returns the slot.
    pub(crate) fn disturb(&self, disturbance: Disturbance) -> Result<u32> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % self.workers;
        for launched in &self.launchers {
            // The connections of a worker that goes are known from now.
            launched.connections(&launched.snapshot()?);
        }
        match disturbance {
            Disturbance::Reload => match &self.master {
                Some(master) if self.launchers.is_empty() => master.reload(slot)?,
                _ => {
                    let (launched, slot) = self.place(slot);
                    launched.restart(slot)?;
                }
            },
            Disturbance::Kill => {
                let main = self.processes(slot)?.into_iter().take(1);
                signal(&handles(main), Signal::KILL);
            }
            Disturbance::Stall => {
                let stalled = handles(self.processes(slot)?.into_iter());
                signal(&stalled, Signal::STOP);
                thread::spawn(move || {
                    thread::sleep(STALL);
                    signal(&stalled, Signal::CONT);
                });
            }
        }
        Ok(slot)
    }

    /// Stops all, and returns when all have ended.
    pub(crate) fn stop(self) {
        drop(self);
    }

    /// The processes of the worker of a slot, the main one first; none while there is none that is
    /// ready.
    fn processes(&self, slot: u32) -> Result<Vec<u32>> {
        if self.launchers.is_empty() {
            let pid = self.pids()?.get(slot as usize).copied().flatten();
            return Ok(pid.into_iter().collect());
        }
        let (launched, slot) = self.place(slot);
        let Some((main, generation)) = ready(launched, slot)? else {
            return Ok(Vec::new());
        };
        let mut pids = launched.processes(slot, generation);
        pids.retain(|&pid| pid != main);
        pids.insert(0, main);
        Ok(pids)
    }

    /// The launcher of the worker of a slot, and its slot there.
    fn place(&self, slot: u32) -> (&Launched, u32) {
        match &self.launchers[..] {
            [only] if self.mode != Mode::ProxyDispatch => (only, slot),
            each => (&each[slot as usize], 0),
        }
    }

    fn state(&self) -> Result<Option<State>> {
        self.master.as_ref().map(Master::state).transpose()
    }
}

/// The pid and the generation of the worker of a slot, if it is ready.
fn ready(launched: &Launched, slot: u32) -> Result<Option<(u32, u64)>> {
    let snapshot = launched.snapshot()?;
    let mut workers = snapshot.workers.into_iter();
    let ready = workers.find(|worker| worker.slot == slot && worker.state == "ready");
    Ok(ready.and_then(|worker| Some((worker.pid?, worker.generation))))
}

/// Handles of processes that do not turn into others when their pids are given away.
fn handles(pids: impl Iterator<Item = u32>) -> Vec<OwnedFd> {
    pids.filter_map(|pid| open_pidfd(pid).ok()).collect()
}

fn signal(processes: &[OwnedFd], signal: Signal) {
    for process in processes {
        // One that has ended is not disturbed any more.
        let _ = pidfd_send_signal(process, signal);
    }
}
