//! The eBPF objects in `launcher/bpf`: built here, committed, and proved to be what their sources
//! say, so that building the launcher takes nothing but stable Rust.

pub(crate) mod build;
pub(crate) mod check;
mod digest;
mod disassembly;
mod manifest;
mod strip;
pub(crate) mod toolchain;
pub(crate) mod wrapper;

/// The binaries of `launcher-ebpf`, each of which becomes `launcher/bpf/NAME.o`.
const OBJECTS: [&str; 4] = ["account", "bench", "capture", "steer"];

/// Where the objects are committed, below the workspace's directory.
const DIRECTORY: &str = "launcher/bpf";
