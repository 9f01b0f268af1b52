//! Proves that the committed objects are what their sources say, in three parts:
//!
//! 1. everywhere, and in every `cargo test`: the digests of sources and objects are those recorded;
//! 2. with the recorded toolchain: a rebuild gives the same bytes;
//! 3. with another toolchain: a rebuild passes the kernel tests.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    DIRECTORY,
    build::{self, FLAGS, Objects},
    digest, disassembly,
    manifest::Manifest,
    objects,
    toolchain::{Toolchain, find_for},
};
use crate::process::{self, cargo};

/// Names the directory of the objects to `launcher/build.rs`.
const DIRECTORY_VARIABLE: &str = "REUSEPORT_LAUNCH_BPF_DIR";

/// All that can be checked here: part 1, then 2 or 3. A missing toolchain is an error.
pub(crate) fn run(root: &Path) -> Result<()> {
    let manifest = fresh(root)?;
    println!("eBPF objects: as recorded");
    let toolchain = find_for(&manifest.toolchain)?;
    let rebuilt = build::build(root, &toolchain)?;
    if toolchain.versions == manifest.toolchain {
        compare(root, &manifest, &rebuilt)?;
        println!("eBPF objects: rebuilt with the recorded toolchain, the same bytes");
        Ok(())
    } else {
        println!("eBPF objects: {}", difference(&manifest, &toolchain));
        let tested = test_rebuilt(root, &rebuilt)?;
        println!("eBPF objects: rebuilt with another toolchain, {tested}");
        Ok(())
    }
}

/// Part 1 alone.
pub(crate) fn digests(root: &Path) -> Result<()> {
    fresh(root).map(|_| ())
}

/// Part 1. Returns the manifest, which is then known to be true of the files.
fn fresh(root: &Path) -> Result<Manifest> {
    let manifest = Manifest::read(root)?;
    if digest::sources(root, &FLAGS)? != manifest.sources {
        bail!(
            "the committed eBPF objects are stale: their sources have changed since they were \
             built\n  → run `cargo xtask ebpf` and commit what it writes"
        );
    }
    if build::digests(&committed(root)?) != manifest.objects {
        bail!(
            "the committed eBPF objects are not those that were built: their digests are not those \
             in {DIRECTORY}\n  → run `cargo xtask ebpf` and commit what it writes"
        );
    }
    Ok(manifest)
}

/// The committed objects.
fn committed(root: &Path) -> Result<Objects> {
    objects()
        .map(|(name, file)| {
            let path = root.join(file);
            let object =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((name.to_owned(), object))
        })
        .collect()
}

/// Part 2.
fn compare(root: &Path, manifest: &Manifest, rebuilt: &Objects) -> Result<()> {
    let digests = build::digests(rebuilt);
    if digests == manifest.objects {
        return Ok(());
    }
    let directory = root.join("target/ebpf-rebuilt");
    build::write(rebuilt, &directory)?;
    let mut changed = Vec::new();
    for (name, file) in objects() {
        if digests.get(name) != manifest.objects.get(name) {
            let new = directory.join(format!("{name}.o"));
            println!("{}", disassembly::diff(&root.join(file), &new));
            changed.push(name);
        }
    }
    bail!(
        "the committed {} cannot have come from these sources: the recorded toolchain builds other \
         bytes\n  → run `cargo xtask ebpf` and commit what it writes",
        changed.join(", ")
    )
}

/// Part 3. Says what was tested: without root, kernel tests leave out what they may not do.
fn test_rebuilt(root: &Path, rebuilt: &Objects) -> Result<&'static str> {
    let is_root = rustix::process::geteuid().is_root();
    let directory = root.join("target/ebpf-rebuilt");
    build::write(rebuilt, &directory)?;
    let directory = directory
        .canonicalize()
        .with_context(|| format!("cannot find {}", directory.display()))?;
    for arguments in [
        &["build", "--package", "reuseport-launch"][..],
        &[
            "test",
            "--package",
            "reuseport-launch",
            "--package",
            "kernel-tests",
        ],
    ] {
        let mut cargo = cargo();
        cargo
            .args(arguments)
            .current_dir(root)
            .env(DIRECTORY_VARIABLE, &directory);
        if is_root {
            cargo.env(process::REQUIRE_KERNEL_TESTS, "1");
        }
        process::run(&mut cargo)?;
    }
    Ok(if is_root {
        "the kernel tests pass"
    } else {
        "the kernel tests that need no root pass"
    })
}

/// How the toolchain differs from the recorded one.
fn difference(manifest: &Manifest, toolchain: &Toolchain) -> String {
    let shown = |versions: &BTreeMap<String, String>| {
        let versions: Vec<_> = versions.values().map(String::as_str).collect();
        versions.join(", ")
    };
    format!(
        "recorded with {}; here is {}",
        shown(&manifest.toolchain),
        shown(&toolchain.versions)
    )
}
