//! Which of the kernel's features that steering needs are there, found out by trying them.

use std::os::fd::OwnedFd;

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};

use super::program::{Kind, Program};
use crate::{failure::Failure, sys::privilege::ebpf_failure};

/// A feature's name, and whether the kernel has it; or why that can't be told.
pub type Feature = (&'static str, Result<bool, Failure>);

/// The features; all of them are needed.
#[must_use]
pub fn tried() -> Vec<Feature> {
    let map =
        |kind| is_map_supported(kind).map_err(|error| ebpf_failure("cannot make a map", &error));
    let program = is_program_supported(ProgramType::SkReuseport);
    let program = program.map_err(|error| ebpf_failure("cannot load a program", &error));
    vec![
        ("array-of-maps", map(MapType::ArrayOfMaps)),
        ("socket-array", map(MapType::ReuseportSockArray)),
        ("sk-reuseport", program),
    ]
}

/// Steers the reuseport group of a listening socket for a moment, by our own program, and returns
/// whether connections would move when their listener goes.
///
/// # Errors
/// When the program can't be loaded or attached, or the socket not be put into the socket array.
pub fn try_on(socket: &OwnedFd) -> Result<bool, Failure> {
    const WHAT: &str = "cannot steer a socket";
    let mut program = Program::load(Kind::Connections, None)?;
    let member = program.set_member(0, socket);
    member.map_err(|error| ebpf_failure(WHAT, &error))?;
    let attached = program.attach(socket);
    attached.map_err(|error| ebpf_failure(WHAT, &error))?;
    Program::detach(socket).map_err(|error| ebpf_failure(WHAT, &error))?;
    Ok(program.migrates())
}
