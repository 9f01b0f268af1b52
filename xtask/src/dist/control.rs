//! What a Debian package says about itself.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use object::{Object as _, ObjectSection as _};

use super::NAME;
use crate::process::{output, root};

const MAINTAINER: &str = "The reuseport-launch developers <reuseport-launch@localhost>";

const HOMEPAGE: &str = env!("CARGO_PKG_REPOSITORY");

/// Has systemd see that units came or went. In a directory that is not the system's there is no systemd.
pub(super) const RELOAD_UNITS: &str = "\
#!/bin/sh
set -e
if [ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]; then
\tsystemctl daemon-reload || true
fi
";

/// The file `control`.
///
/// # Errors
/// When the binary can't be read.
pub(super) fn control(version: &str, architecture: &str, binary: &Path) -> Result<String> {
    let bytes = fs::read(binary).context("the binary that was packed")?;
    let size = bytes.len() / 1024;
    let libc = libc_version(&bytes)?;
    Ok(format!(
        "\
Package: {NAME}
Version: {version}-1
Architecture: {architecture}
Maintainer: {MAINTAINER}
Installed-Size: {size}
Depends: libc6 (>= {libc}), libgcc-s1 (>= 4.2)
Section: net
Priority: optional
Homepage: {HOMEPAGE}
Description: one worker per CPU on one port, for any unmodified server
 Starts one copy of a server for each CPU. All copies share one port, and an
 eBPF program in the kernel decides, connection by connection, which of them
 gets it. The server needs no change.
 .
 Workers that crash are replaced, and new versions are rolled out, without a
 connection being lost that waits to be accepted. Linux 5.14 or later.
"
    ))
}

/// The newest version of glibc that a symbol of this binary asks for.
fn libc_version(binary: &[u8]) -> Result<String> {
    let file = object::File::parse(binary).context("the binary is no ELF file")?;
    let names = file
        .section_by_name(".dynstr")
        .context("the binary is linked statically")?;
    let names = String::from_utf8_lossy(names.data()?).into_owned();
    let newest = names
        .split('\0')
        .filter_map(|name| name.strip_prefix("GLIBC_"))
        .filter_map(|version| {
            let numbers = version.split('.').map(|number| number.parse::<u32>().ok());
            numbers.collect::<Option<Vec<_>>>()
        })
        .max()
        .context("the binary asks for no version of glibc")?;
    let numbers: Vec<_> = newest.iter().map(ToString::to_string).collect();
    Ok(numbers.join("."))
}

/// The packager's own changelog, of the day of the last commit, so that it is the same each time.
///
/// # Errors
/// When this is no git checkout.
pub(super) fn changelog(version: &str) -> Result<String> {
    let mut log = Command::new("git");
    log.args(["log", "-1", "--format=%cD"]).current_dir(root());
    let date = output(&mut log)?;
    Ok(format!(
        "{NAME} ({version}-1) unstable; urgency=medium\n\n  \
         * Packed by cargo xtask dist; changelog.gz says what is new.\n\n \
         -- {MAINTAINER}  {date}\n"
    ))
}

/// Who may do what with it, in Debian's format.
///
/// # Errors
/// When a licence can't be read.
pub(super) fn copyright() -> Result<String> {
    let mit = fs::read_to_string(root().join("LICENSE-MIT")).context("LICENSE-MIT")?;
    let owner = mit
        .lines()
        .find_map(|line| line.strip_prefix("Copyright (c) "))
        .unwrap_or("the authors of reuseport-launch");
    let indented: Vec<_> = mit
        .lines()
        .map(|line| match line.trim() {
            "" => " .".to_owned(),
            line => format!(" {line}"),
        })
        .collect();
    Ok(format!(
        "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {NAME}
Source: {HOMEPAGE}

Files: *
Copyright: {owner}
License: MIT or Apache-2.0

License: MIT
{}

License: Apache-2.0
 On Debian systems, the text is in /usr/share/common-licenses/Apache-2.0.
",
        indented.join("\n")
    ))
}
