//! A wrapper around rustc that makes the objects independent of where the workspace lies.
//!
//! Cargo derives `-C metadata` from the absolute path of a crate outside the workspace's root, as
//! `launcher-common` is for `launcher-ebpf`, and of the standard library's source. rustc mangles
//! it into symbol names, and no remapping of paths takes it out again.

use std::{env, ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

/// Set for cargo, and so for each run of the wrapper.
const REQUEST: &str = "REUSEPORT_LAUNCH_RUSTC_WRAPPER";

/// Makes a cargo command use this program as the wrapper.
pub(super) fn install(cargo: &mut Command) -> Result<()> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    cargo.env("RUSTC_WRAPPER", program).env(REQUEST, "1");
    Ok(())
}

/// Whether this process was started by cargo as a wrapper.
pub(crate) fn requested() -> bool {
    env::var_os(REQUEST).is_some()
}

/// Runs the rustc that the arguments name. Returns only if that fails.
pub(crate) fn run() -> Result<()> {
    let mut arguments = env::args_os().skip(1);
    let rustc = arguments.next().context("the wrapper was given no rustc")?;
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let error = Command::new(&rustc)
        .args(arguments.map(|argument| replaced(argument, &package, &version)))
        .exec();
    Err(error).with_context(|| format!("cannot run {}", rustc.display()))
}

/// The argument with metadata that tell crates apart by package and version alone.
fn replaced(argument: OsString, package: &str, version: &str) -> OsString {
    if argument.as_encoded_bytes().starts_with(b"metadata=") {
        format!("metadata={package}-{version}").into()
    } else {
        argument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_metadata_is_replaced() {
        let of = |argument: &str| replaced(argument.into(), "common", "0.1.0");
        assert_eq!(of("metadata=8f3c"), "metadata=common-0.1.0");
        assert_eq!(of("extra-filename=-8f3c"), "extra-filename=-8f3c");
        assert_eq!(of("--emit=metadata"), "--emit=metadata");
    }
}
