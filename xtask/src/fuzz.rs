//! Fuzzing, with cargo-fuzz and libFuzzer, by the stable compiler and without a sanitizer: what is
//! fuzzed has no `unsafe`, in which one could find something. Overflows are checked.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    apt,
    process::{cargo, find, output, run},
};

/// The cargo-fuzz that is installed, and run.
const CARGO_FUZZ: &str = "0.13.2";

/// The crate whose `fuzz` directory has the targets.
const CRATE: &str = "launcher-common";

/// What takes so long, in seconds, counts as a finding. A choice takes microseconds.
const TIMEOUT: u32 = 10;

/// Runs each target for so many seconds. A finding is an error, and its input is kept.
pub(crate) fn run_all(root: &Path, seconds: u32) -> Result<()> {
    let tool = install(root)?;
    let fuzz = |arguments: &[&str]| {
        let mut command = Command::new(&tool);
        // The first argument is that by which cargo would call it.
        command.arg("fuzz").args(arguments);
        command.current_dir(root.join(CRATE));
        command
    };
    let [total, timeout] = [("max_total_time", seconds), ("timeout", TIMEOUT)]
        .map(|(name, value)| format!("-{name}={value}"));
    for target in output(&mut fuzz(&["list"]))?.lines() {
        println!("── fuzz {target}, {seconds} s");
        let words = ["run", "--sanitizer", "none", target, "--", &total, &timeout];
        let quiet = ["-verbosity=0", "-print_final_stats=1"];
        run(fuzz(&words).args(quiet)).with_context(|| {
            format!(
                "{target} has a finding, or does not build\n  → its input is named above; run it \
                 again with `../target/cargo-fuzz-{CARGO_FUZZ}/bin/cargo-fuzz fuzz run --sanitizer \
                 none {target} FILE` in {CRATE}, then make it a test\n",
            )
        })?;
    }
    println!("── fuzz: nothing found");
    Ok(())
}

/// Installs what is missing: a C++ compiler, for libFuzzer, and below the target directory cargo-fuzz.
fn install(root: &Path) -> Result<PathBuf> {
    if find("c++").is_none() {
        apt::install(&["g++"]).context(
            "cannot build libFuzzer without a C++ compiler\n  → run this as root on a Debian-like \
             system, or install one yourself",
        )?;
    }
    let directory = root.join("target").join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let tool = directory.join("bin/cargo-fuzz");
    if !tool.is_file() {
        let build = directory.join("build");
        run(cargo()
            .args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"])
            .arg("--root")
            .arg(&directory)
            .env("CARGO_TARGET_DIR", &build))?;
        fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    }
    Ok(tool)
}
