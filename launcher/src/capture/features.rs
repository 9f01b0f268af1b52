//! Which of the kernel's features that capture needs are there, found out by trying each by itself.

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};

use crate::{failure::Failure, sys::privilege::ebpf_failure};

/// A feature's name, and whether the kernel has it; or why that can't be told.
pub type Feature = (&'static str, Result<bool, Failure>);

/// The features; all of them are needed.
#[must_use]
pub fn tried() -> Vec<Feature> {
    vec![
        ("ring-buffer", map(MapType::RingBuf)),
        ("socket-storage", map(MapType::SkStorage)),
        ("bind-hooks", hooks()),
        ("sock-ops", program(ProgramType::SockOps)),
    ]
}

fn map(kind: MapType) -> Result<bool, Failure> {
    is_map_supported(kind).map_err(|error| ebpf_failure("cannot make a map", &error))
}

fn program(kind: ProgramType) -> Result<bool, Failure> {
    is_program_supported(kind).map_err(|error| ebpf_failure("cannot load a program", &error))
}

fn hooks() -> Result<bool, Failure> {
    let before = program(ProgramType::CgroupSockAddr)?;
    let after = program(ProgramType::CgroupSock)?;
    Ok(before && after)
}
