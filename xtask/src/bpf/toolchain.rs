//! Finding, and on request installing, what compiles for the eBPF target: a Rust compiler that
//! takes unstable options, the source of `core`, and bpf-linker.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt,
    process::{cargo, output, run},
};

/// The oldest compiler that the programs are written for: 1.MINIMUM.
const MINIMUM: u32 = 95;

/// What `--install` installs of bpf-linker.
const BPF_LINKER: &str = "0.13.0";

const HINT: &str = "run `cargo xtask ebpf --install` as root on a Debian-like system, or \
     `rustup toolchain install nightly --component rust-src` and `cargo install bpf-linker`";

/// A complete toolchain.
#[derive(Debug)]
pub(super) struct Toolchain {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    /// Where the standard library's source is.
    pub(super) library: PathBuf,
    /// What decides how an object looks: the versions of the tools, by name.
    pub(super) versions: BTreeMap<String, String>,
}

/// The toolchain to build with: the one that is recorded, if it is here; else rustup's nightly;
/// else the system's.
pub(super) fn find_for(recorded: &BTreeMap<String, String>) -> Result<Toolchain> {
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for candidate in [rustup(), system()] {
        match candidate {
            Ok(toolchain) => found.push(toolchain),
            Err(error) => missing.push(format!("{error:#}")),
        }
    }
    let same = found.iter().position(|one| one.versions == *recorded);
    if found.is_empty() {
        let why = missing.join("; ");
        bail!("cannot compile for eBPF: {why}\n  → {HINT}");
    }
    Ok(found.swap_remove(same.unwrap_or(0)))
}

/// Whether there is a toolchain.
pub(crate) fn present() -> Result<()> {
    find_for(&BTreeMap::new()).map(drop)
}

/// Installs Debian's compiler and bpf-linker, unless there is a toolchain.
pub(crate) fn install() -> Result<()> {
    if present().is_ok() {
        return Ok(());
    }
    apt::install(&["rustc-web", "cargo-web", "rust-web-src"])?;
    if bpf_linker().is_err() {
        // It reads what rustc's LLVM wrote, so it has to be of the same.
        let llvm = version_lines(Path::new("/usr/bin/rustc"))?.llvm;
        let major = llvm.split('.').next().unwrap_or_default();
        apt::install(&[&format!("llvm-{major}-dev"), "gcc", "libc6-dev"])?;
        run(cargo()
            .args(["install", "bpf-linker", "--version", BPF_LINKER])
            // One that is there and does not run was linked to an LLVM that is gone.
            .args(["--locked", "--force"])
            .args(["--no-default-features", "--features"])
            .arg(format!("llvm-{major}"))
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}")))?;
    }
    present().context("the eBPF toolchain was installed, and is still not complete")
}

fn rustup() -> Result<Toolchain> {
    let which = |program| {
        output(Command::new("rustup").args(["which", "--toolchain", "nightly", program]))
            .map(PathBuf::from)
            .context("no nightly toolchain of rustup")
    };
    complete(which("cargo")?, which("rustc")?)
}

fn system() -> Result<Toolchain> {
    complete("/usr/bin/cargo".into(), "/usr/bin/rustc".into())
}

/// The toolchain of a compiler, if it has all that is needed.
fn complete(cargo: PathBuf, rustc: PathBuf) -> Result<Toolchain> {
    let name = rustc.display();
    if !rustc.is_file() || !cargo.is_file() {
        bail!("no {name} with a cargo beside it");
    }
    let lines = version_lines(&rustc)?;
    if minor(&lines.rustc).is_none_or(|minor| minor < MINIMUM) {
        bail!("{name} is {}, older than 1.{MINIMUM}", lines.rustc);
    }
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let library = Path::new(&sysroot).join("lib/rustlib/src/rust");
    if !library.join("library/core/Cargo.toml").is_file() {
        bail!("{name} comes without the source of core (rust-src)");
    }
    let linker = bpf_linker()?;
    let mut versions = BTreeMap::from([
        ("rustc".to_owned(), lines.rustc),
        ("llvm".to_owned(), lines.llvm),
        ("bpf-linker".to_owned(), linker),
    ]);
    if let Some(shared) = shared_llvm(&versions["llvm"]) {
        versions.insert("libllvm".to_owned(), shared);
    }
    Ok(Toolchain {
        cargo,
        rustc,
        library,
        versions,
    })
}

/// The version of the bpf-linker in `PATH`, where rustc looks for it.
fn bpf_linker() -> Result<String> {
    output(Command::new("bpf-linker").arg("--version")).context("no bpf-linker")
}

/// What rustc says of itself.
struct VersionLines {
    rustc: String,
    llvm: String,
}

fn version_lines(rustc: &Path) -> Result<VersionLines> {
    let text = output(Command::new(rustc).arg("-vV"))?;
    let llvm = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    Ok(VersionLines {
        rustc: text.lines().next().unwrap_or_default().to_owned(),
        llvm: llvm.context("rustc names no LLVM")?.to_owned(),
    })
}

/// The minor number in `rustc 1.95.0 (…)`.
fn minor(rustc: &str) -> Option<u32> {
    let rest = rustc.strip_prefix("rustc 1.")?;
    rest.split('.').next()?.parse().ok()
}

/// The version of Debian's shared LLVM, with which a bpf-linker that is linked to it changes.
fn shared_llvm(llvm: &str) -> Option<String> {
    let major = llvm.split('.').next()?;
    output(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Version}",
        &format!("libllvm{major}"),
    ]))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_versions() {
        assert_eq!(minor("rustc 1.63.0 (897e37553 2022-08-02)"), Some(63));
        assert_eq!(minor("rustc 1.98.0-nightly (9c31 2026-05-30)"), Some(98));
        assert_eq!(minor("gcc 12.2.0"), None);
    }
}
