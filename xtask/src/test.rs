//! Everything that has to hold before a change goes in.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    bpf,
    process::{self, cargo},
    setup,
};

/// Runs every check and every test; with a filter, only the tests that it matches.
pub(crate) fn run(root: &Path, filter: Option<&str>) -> Result<()> {
    let all_required = process::enabled(process::REQUIRE_KERNEL_TESTS);
    let start = Instant::now();
    step("setup", || prepare(all_required))?;
    let in_workspace = |arguments: &[&str]| process::run(cargo().args(arguments).current_dir(root));
    if filter.is_none() {
        step("fmt", || {
            in_workspace(&["fmt", "--all", "--check"])?;
            for apart in [
                "launcher-ebpf",
                "launcher-common/fuzz",
                "examples/least-hint",
            ] {
                let manifest = format!("{apart}/Cargo.toml");
                in_workspace(&["fmt", "--manifest-path", &manifest, "--check"])?;
            }
            Ok(())
        })?;
        step("clippy", || {
            let lint = [
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ];
            in_workspace(&lint)
        })?;
    }
    // The command line tests run the binary, which is another package's.
    step("build", || {
        in_workspace(&["build", "--package", "reuseport-launch"])
    })?;
    step("test", || {
        let mut arguments = vec!["test", "--workspace"];
        arguments.extend(filter);
        in_workspace(&arguments)
    })?;
    if filter.is_none() {
        step("eBPF objects", || objects(root, all_required))?;
    }
    println!("── all passed, {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs one step, and says which it is and how long it took.
fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("── {name}");
    let start = Instant::now();
    let result = run();
    let seconds = start.elapsed().as_secs_f64();
    match &result {
        Ok(()) => println!("── {name}: passed, {seconds:.1} s"),
        Err(_) => println!("── {name}: FAILED, {seconds:.1} s"),
    }
    result.with_context(|| format!("the step `{name}` failed"))
}

/// Installs what the tests need. Where that is not possible, the tests that lack something say so
/// themselves, so it is an error only if all of them are required.
fn prepare(all_required: bool) -> Result<()> {
    match setup::install() {
        Err(error) if !all_required => {
            eprintln!("warning: {error:#}");
            Ok(())
        }
        result => result,
    }
}

/// Rebuilds the eBPF objects. The tests have already compared their digests, so without a
/// toolchain this is an error only if everything is required.
fn objects(root: &Path, all_required: bool) -> Result<()> {
    if all_required {
        bpf::toolchain::install()?;
    } else if let Err(error) = bpf::toolchain::present() {
        eprintln!("warning: the eBPF objects are not rebuilt: {error:#}");
        return Ok(());
    }
    bpf::check::run(root)
}
