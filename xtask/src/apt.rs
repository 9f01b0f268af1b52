//! Debian's packages.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process::{find, run};

/// Whether packages can be installed, and if not, why.
pub(crate) fn usable() -> Result<()> {
    if find("apt-get").is_none() {
        bail!("this is not a Debian-like system (there is no apt-get)");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("only root can install packages");
    }
    Ok(())
}

/// Installs packages, from fresh lists: a fresh machine or container has none, and old ones name
/// files that the mirror no longer has.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    usable()?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("--quiet");
        command
    };
    run(apt_get().arg("update"))?;
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages))
}
