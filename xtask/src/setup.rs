//! Installs what the tests need.

use std::process::Command;

use anyhow::{Error, Result, anyhow};

use crate::{
    apt,
    process::{find, output, run},
};

/// All that the tests need and a fresh Debian may lack, and the package that has it. A program that
/// came from elsewhere, as node often does, is as good.
const NEEDS: &[(&str, &str)] = &[
    // The unmodified servers: each of the ways in which servers open their port.
    ("nginx", "nginx-light"),
    ("gunicorn", "gunicorn"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("busybox", "busybox-static"),
    ("dnsmasq", "dnsmasq-base"),
    ("socat", "socat"),
    // To look at what the launcher did, and to run it as somebody else.
    ("ip", "iproute2"),
    ("strace", "strace"),
    ("unshare", "util-linux"),
    ("umount", "mount"),
    ("setpriv", "util-linux"),
    // To read the page of metrics.
    ("promtool", "prometheus"),
    ("prometheus", "prometheus"),
    // To pack it, and to read its manual.
    ("dpkg-deb", "dpkg"),
    ("strip", "binutils"),
    ("groff", "groff-base"),
    // A terminal for what is drawn.
    ("tmux", "tmux"),
    // To look at the unit.
    ("systemd-analyze", "systemd"),
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
        .filter(|(program, _)| find(program).is_none())
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
