//! Ways to take turns, run by the kernel on request: many times in a row, on the CPU that asks.

use std::{error::Error, fmt, io};

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues},
    programs::{ProgramError, SocketFilter, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use launcher_common::CpuCursor;

use super::OBJECT;
use crate::{failure::Failure, sys::privilege::ebpf_failure};

/// The shortest packet that the kernel takes: an Ethernet header.
const PACKET: [u8; 14] = [0; 14];

/// A way to take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// None are taken: what it costs to run a program.
    None,
    /// All CPUs take them from one counter.
    Shared,
    /// Each CPU has its own.
    Own,
    /// A busy CPU has its own, the others take them from one counter.
    Hybrid,
}

impl Way {
    /// All of them, the floor first.
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Shared, Self::Own, Self::Hybrid];

    const fn program(self) -> &'static str {
        match self {
            Self::None => "turn_none",
            Self::Shared => "turn_shared",
            Self::Own => "turn_own",
            Self::Hybrid => "turn_hybrid",
        }
    }
}

/// `shared counter`
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "no turn",
            Self::Shared => "shared counter",
            Self::Own => "per-CPU cursor",
            Self::Hybrid => "hybrid",
        })
    }
}

/// The loaded programs, and their counters.
pub(crate) struct Turns {
    ebpf: Ebpf,
    shared: Array<MapData, u64>,
    own: PerCpuArray<MapData, CpuCursor>,
    /// What the CPUs' own cursors began with, all together.
    began: u64,
}

impl Turns {
    /// Loads them.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub(crate) fn load() -> Result<Self, Failure> {
        load().map_err(|error| ebpf_failure("cannot load eBPF (taking turns)", error.as_ref()))
    }

    /// Takes so many turns in this way, on the CPU that the calling thread runs on.
    ///
    /// # Errors
    /// `EINTR` when a signal came; nobody knows how many were taken then.
    pub(crate) fn take(&self, way: Way, turns: u32) -> Result<(), ProgramError> {
        let program = self.ebpf.program(way.program());
        let program: &SocketFilter = program.ok_or(ProgramError::NotLoaded)?.try_into()?;
        program.test_run(TestRunOptions {
            data_in: Some(&PACKET),
            repeat: turns,
            ..TestRunOptions::new()
        })?;
        Ok(())
    }

    /// How many turns were taken since the programs were loaded, in any way, by the kernel's count.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn taken(&self) -> Result<u64, MapError> {
        let cursors = self.own.get(&0, 0)?;
        let own: u64 = cursors.iter().map(|cursor| cursor.next).sum();
        Ok(self.shared.get(&0, 0)? + own - self.began)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns")
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}

fn load() -> Result<Turns, Box<dyn Error>> {
    let mut ebpf = Ebpf::load(OBJECT)?;
    for way in Way::ALL {
        let program = ebpf.program_mut(way.program());
        let program: &mut SocketFilter = program
            .ok_or(ProgramError::UnexpectedProgramType)?
            .try_into()?;
        program.load()?;
    }
    let mut take = |name: &'static str| {
        ebpf.take_map(name)
            .ok_or_else(|| io::Error::other(format!("the object has no map {name}")))
    };
    let shared = Array::try_from(take("SHARED")?)?;
    let mut own = PerCpuArray::try_from(take("OWN")?)?;
    let cpus = nr_cpus().map_err(|(file, error)| format!("{file}: {error}"))? as u64;
    let cursors: Vec<CpuCursor> = (0..cpus).map(CpuCursor::of).collect();
    let began = cursors.iter().map(|cursor| cursor.next).sum();
    own.set(0, PerCpuValues::try_from(cursors)?, 0)?;
    Ok(Turns {
        ebpf,
        shared,
        own,
        began,
    })
}
