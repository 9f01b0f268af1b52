//! The launcher's sources against the rules, and the rules against sources that break them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{MODULES, violations};
use crate::process::root;

/// The crates that the launcher depends on, as its code names them.
fn dependencies(root: &Path) -> Vec<String> {
    let text = fs::read_to_string(root.join("launcher/Cargo.toml")).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    ["dependencies", "dev-dependencies"]
        .into_iter()
        .filter_map(|section| manifest.get(section)?.as_table())
        .flat_map(toml::Table::keys)
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// Every Rust file below a directory.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The module that a file below `src` is.
fn module_of(file: &Path) -> Vec<String> {
    let mut module: Vec<String> = file
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        module.pop();
    }
    module
}

#[test]
fn the_launchers_modules_keep_apart() {
    let root = root();
    let src = root.join("launcher/src");
    let dependencies = dependencies(root);
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(
        files.len() >= MODULES.len(),
        "only {} files found",
        files.len()
    );
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let below = file.strip_prefix(&src).unwrap();
        let source = fs::read_to_string(&file).unwrap();
        let found = violations(&module_of(below), &source, &dependencies);
        all.extend(
            found
                .iter()
                .map(|what| format!("src/{}: {what}", below.display())),
        );
    }
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

#[test]
fn the_table_has_no_cycles() {
    for (index, (name, allowed)) in MODULES.iter().enumerate() {
        for target in *allowed {
            assert!(
                MODULES[..index]
                    .iter()
                    .any(|(earlier, _)| earlier == target),
                "{name} names {target}, which is not further up"
            );
        }
    }
}

#[test]
fn modules_of_files() {
    let module = |file: &str| module_of(Path::new(file)).join("::");
    assert_eq!(module("lib.rs"), "");
    assert_eq!(module("cli.rs"), "cli");
    assert_eq!(module("fleet/mod.rs"), "fleet");
    assert_eq!(module("fleet/restart.rs"), "fleet::restart");
}

/// Whether a snippet in a module (`a::b`) is refused.
fn refused(module: &str, source: &str) -> bool {
    let module: Vec<String> = module.split("::").map(str::to_owned).collect();
    let dependencies = [
        "aya",
        "aya_log",
        "serde",
        "tokio",
        "tracing",
        "launcher_common",
    ];
    !violations(&module, source, &dependencies.map(str::to_owned)).is_empty()
}

#[test]
fn imports_outside_the_table_are_refused() {
    for (module, source) in [
        ("fleet", "use crate::sys;"),
        (
            "fleet",
            "use crate::{worker::WorkerId, sys::{process::Child, cgroup}};",
        ),
        ("fleet", "fn f() { crate::sys::process::kill() }"),
        ("fleet", "fn f() { log!(\"{}\", crate::sys::now()) }"),
        ("fleet", "use crate::*;"),
        ("fleet", "use super::sys;"),
        ("fleet::restart", "use super::super::sys::clock;"),
        ("fleet", "mod tests { use super::super::sys; }"),
        ("fleet", "mod tests { fn f() -> crate::sys::X {} }"),
        ("fleet", "pub use crate::policy as p;"),
        ("fleet", "macro_rules! m { () => { $crate::sys::now() } }"),
        ("run", "use crate::cli::Arguments;"),
        ("steer", "use crate::fleet::Fleet;"),
        ("policy", "use crate::nowhere::X;"),
        ("nowhere", "use crate::worker::WorkerId;"),
    ] {
        assert!(refused(module, source), "{module}: {source}");
    }
    for (module, source) in [
        ("fleet", "use crate::worker::{self, WorkerId};"),
        (
            "fleet",
            "use crate::fleet::restart; use self::placement::Cpu; use super::fleet::X;",
        ),
        ("fleet", "mod tests { use super::*; }"),
        ("fleet::restart", "use super::{Fleet, placement};"),
        (
            "fleet",
            "// crate::sys::now()\nconst S: &str = \"crate::sys\"; pub(crate) struct A;",
        ),
        ("run", "use crate::{config::Plan, fleet::Fleet, sys};"),
    ] {
        assert!(!refused(module, source), "{module}: {source}");
    }
}

#[test]
fn impurity_is_refused() {
    for (module, source) in [
        ("fleet", "use std::time::{Duration, Instant};"),
        ("fleet", "use std::{collections::BTreeMap, time};"),
        ("fleet", "use std::time::*;"),
        ("fleet", "use std::time::{self, Duration};"),
        ("fleet", "fn f() { std::fs::remove_file(\"x\"); }"),
        ("policy", "fn f() { ::std::process::exit(1) }"),
        ("policy", "use std::net::{IpAddr, TcpListener};"),
        ("policy", "use tokio;"),
        ("policy", "#[tokio::test] async fn f() {}"),
        ("policy", "fn f() { tracing::info!(\"x\") }"),
        ("policy", "use serde::Serialize;"),
        ("observe", "use aya::maps::Array;"),
    ] {
        assert!(refused(module, source), "{module}: {source}");
    }
    for (module, source) in [
        (
            "fleet",
            "use std::{collections::BTreeMap, net::IpAddr, time::Duration};",
        ),
        (
            "fleet",
            "fn f() { std::mem::swap(a, b); let tokio = 1; x.tokio::<u8>(); }",
        ),
        ("policy", "use launcher_common::Table;"),
        ("observe", "use serde::Serialize;"),
        (
            "run",
            "use std::time::Instant; use tokio::time; fn f() { tracing::info!(\"x\") }",
        ),
    ] {
        assert!(!refused(module, source), "{module}: {source}");
    }
}

#[test]
fn unsafe_and_aya_are_refused_but_where_they_belong() {
    let code = "fn f() { unsafe { g() } }";
    let aya = "use aya_log::EbpfLogger;";
    for module in ["run", "control", "fleet"] {
        assert!(refused(module, code) && refused(module, aya), "{module}");
    }
    for module in ["steer", "capture::adopt"] {
        assert!(!refused(module, code) && !refused(module, aya), "{module}");
    }
    assert!(!refused("sys", code));
    assert!(refused("sys", aya));
}
