//! What a measurement of the steering program needs from the kernel: its run-time statistics, a
//! program that decides nothing, whose cost is that of the statistics themselves, and ways to take
//! turns.

mod turns;

use std::{
    error::Error,
    fmt,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aya::{
    Ebpf,
    programs::{ProgramError, ProgramInfo, SkReuseport},
    sys::{Stats, enable_stats},
};

use crate::{failure::Failure, sys::privilege::ebpf_failure};

pub(crate) use turns::{Turns, Way};

/// The compiled programs; see `launcher-ebpf/src/bin/bench.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("BPF_DIR"), "/bench.o"));

/// While this lives, the kernel measures every eBPF program, which makes each run of each of them
/// some tens of nanoseconds slower.
#[derive(Debug)]
pub(crate) struct Statistics {
    _enabled: OwnedFd,
}

impl Statistics {
    /// Turns the measuring on (Linux 5.8).
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`.
    pub(crate) fn enable() -> Result<Self, Failure> {
        let enabled = enable_stats(Stats::RunTime)
            .map_err(|error| ebpf_failure("cannot measure eBPF programs", &error))?;
        Ok(Self { _enabled: enabled })
    }
}

/// What a program has cost since it was loaded, as far as it was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunTime {
    total: Duration,
    runs: u64,
}

impl RunTime {
    pub(super) fn of(info: &ProgramInfo) -> Self {
        Self {
            total: info.run_time(),
            runs: info.run_count(),
        }
    }

    /// The mean of all runs that were measured, in seconds; `None` when there were none.
    pub(super) fn mean(self) -> Option<f64> {
        (self.runs > 0).then(|| self.total.as_secs_f64() / self.runs as f64)
    }

    /// The mean of the runs since `earlier`, in nanoseconds; not a number when there were none.
    pub(crate) fn nanoseconds_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        total.as_nanos() as f64 / self.runs.saturating_sub(earlier.runs) as f64
    }
}

/// A program that leaves every decision to the kernel's hash.
pub(crate) struct Empty(Ebpf);

impl Empty {
    /// Loads it.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub(crate) fn load() -> Result<Self, Failure> {
        let load = || -> Result<Self, Box<dyn Error>> {
            let mut empty = Self(Ebpf::load(OBJECT)?);
            let program = empty
                .0
                .program_mut(NAME)
                .ok_or(ProgramError::UnexpectedProgramType)?;
            let program: &mut SkReuseport = program.try_into()?;
            program.load()?;
            Ok(empty)
        };
        load().map_err(|error| ebpf_failure("cannot load eBPF (measuring)", error.as_ref()))
    }

    /// Attaches it to a group in place of the program that is attached; see
    /// [`Program::attach`](super::program::Program::attach).
    ///
    /// # Errors
    /// `EINVAL` for a socket that is in no group.
    pub(crate) fn attach(&self, socket: &impl AsFd) -> Result<(), ProgramError> {
        self.program()?.attach(socket)
    }

    /// What it has cost so far.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn run_time(&self) -> Result<RunTime, ProgramError> {
        self.program()?.info().map(|info| RunTime::of(&info))
    }

    fn program(&self) -> Result<&SkReuseport, ProgramError> {
        self.0
            .program(NAME)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()
    }
}

const NAME: &str = "empty";

impl fmt::Debug for Empty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Empty").finish_non_exhaustive()
    }
}
