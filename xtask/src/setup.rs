//! Installs what the tests need.

use std::{fs, process::Command};

use anyhow::{Error, Result, anyhow};

use crate::{
    apt,
    process::{find, output, run},
};

/// Something the tests need.
enum What {
    /// A program.
    Program(&'static str),
    /// A library to link statically, in one of the usual directories.
    Archive(&'static str),
}

use What::{Archive, Program};

/// All that the tests need and a fresh Debian may lack, and the package that has it. A program that
/// came from elsewhere, as node often does, is as good.
const NEEDS: &[(What, &str)] = &[
    // The unmodified servers: each of the ways in which servers open their port.
    (Program("nginx"), "nginx-light"),
    (Program("gunicorn"), "gunicorn"),
    (Program("python3"), "python3"),
    (Program("node"), "nodejs"),
    // A statically linked server is compiled on the spot.
    (Program("gcc"), "gcc"),
    (Archive("libc.a"), "libc6-dev"),
    // To look at what the launcher did, and to run it as somebody else.
    (Program("ip"), "iproute2"),
    (Program("ss"), "iproute2"),
    (Program("strace"), "strace"),
    (Program("unshare"), "util-linux"),
    (Program("setpriv"), "util-linux"),
];

/// The parts of a Rust toolchain that a minimal one lacks.
const COMPONENTS: [(&str, &str); 2] = [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")];

/// Installs what is missing.
pub(crate) fn install() -> Result<()> {
    let packages = missing_packages();
    if !packages.is_empty() {
        apt::install(&packages).map_err(|error| cannot("install", &packages, &error))?;
    }
    let components = missing_components();
    if !components.is_empty() {
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add"]).args(&components);
        run(&mut rustup).map_err(|error| cannot("install", &components, &error))?;
    }
    check()
}

/// Fails if something is missing.
pub(crate) fn check() -> Result<()> {
    let mut names = missing_packages();
    names.extend(missing_components());
    if !names.is_empty() {
        let why = anyhow!("not installed");
        return Err(cannot("test with", &names, &why));
    }
    println!("setup: nothing is missing");
    Ok(())
}

fn cannot(what: &str, names: &[&str], why: &Error) -> Error {
    anyhow!(
        "cannot {what} {}: {why:#}\n  → run `cargo xtask setup` as root on a Debian-like system, \
         or install them yourself",
        names.join(", ")
    )
}

fn missing_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = NEEDS
        .iter()
        .filter(|(what, _)| !what.is_here())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

fn missing_components() -> Vec<&'static str> {
    COMPONENTS
        .into_iter()
        // rustup puts a stand-in for each into PATH, so only running it tells.
        .filter(|(program, _)| output(Command::new(program).arg("--version")).is_err())
        .map(|(_, component)| component)
        .collect()
}

impl What {
    fn is_here(&self) -> bool {
        match self {
            Program(name) => find(name).is_some(),
            Archive(name) => has_archive(name),
        }
    }
}

/// Whether a static library is in `/usr/lib`, `/usr/lib64` or, as on Debian, one level deeper.
fn has_archive(name: &str) -> bool {
    let deeper = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    deeper
        .map(|entry| entry.path())
        .chain(["/usr/lib".into(), "/usr/lib64".into()])
        .any(|directory| directory.join(name).is_file())
}
