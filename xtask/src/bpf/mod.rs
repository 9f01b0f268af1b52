//! The eBPF objects in `launcher/bpf`, and those of the examples: built here, committed, and proved to
//! be what their sources say, so that building the launcher takes nothing but stable Rust.

pub(crate) mod build;
pub(crate) mod check;
mod digest;
mod disassembly;
mod manifest;
mod strip;
pub(crate) mod toolchain;
pub(crate) mod wrapper;

use std::path::{Path, PathBuf};

/// A crate of eBPF programs, with a lock file of its own.
#[derive(Clone, Copy, Debug)]
struct Package {
    /// Where it is, below the workspace's directory.
    place: &'static str,
    /// Its binaries, each of which becomes `NAME.o`.
    objects: &'static [&'static str],
    /// Where the objects are committed, below the workspace's directory.
    directory: &'static str,
}

const PACKAGES: [Package; 2] = [
    Package {
        place: "launcher-ebpf",
        objects: &["account", "bench", "capture", "steer"],
        directory: DIRECTORY,
    },
    Package {
        place: "examples/least-hint",
        objects: &["least-hint"],
        directory: "examples/least-hint",
    },
];

/// Where the manifest of all objects is, and the launcher's own.
const DIRECTORY: &str = "launcher/bpf";

/// Each object: its name, and the path of its committed file below the workspace's directory.
fn objects() -> impl Iterator<Item = (&'static str, PathBuf)> {
    PACKAGES.into_iter().flat_map(|package| {
        let place = |&name: &&'static str| {
            let file = Path::new(package.directory).join(format!("{name}.o"));
            (name, file)
        };
        package.objects.iter().map(place)
    })
}
