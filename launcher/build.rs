//! Tells the crate where the eBPF objects are: the committed ones, unless a check of freshly built
//! ones says otherwise.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=REUSEPORT_LAUNCH_BPF_DIR");
    println!("cargo::rerun-if-changed=bpf");
    let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bpf");
    let dir = env::var_os("REUSEPORT_LAUNCH_BPF_DIR").map_or_else(committed, PathBuf::from);
    println!("cargo::rustc-env=BPF_DIR={}", dir.display());
}
