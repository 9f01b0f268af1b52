//! The test that keeps the launcher's modules apart: who may import whom, which of them are pure,
//! and where `unsafe` and aya may be. ARCHITECTURE.md has the reasons.

mod scan;
mod tests;

use scan::Mention;

/// Each of the launcher's modules, and the others that it may name. A module names only modules
/// further up, so there are no cycles.
const MODULES: &[(&str, &[&str])] = &[
    ("worker", &[]),
    ("failure", &[]),
    ("probe", &[]),
    ("policy", &["worker"]),
    ("fleet", &["worker"]),
    ("observe", &["worker"]),
    ("metrics", &["worker", "observe"]),
    ("scrape", &["failure", "metrics"]),
    ("sys", &["worker", "failure"]),
    ("capture", &["worker", "failure", "sys"]),
    ("steer", &["worker", "failure", "policy", "sys"]),
    ("output", &["worker", "failure", "sys"]),
    ("ipc", &["worker", "failure", "sys"]),
    ("control", &["worker", "failure", "observe", "sys"]),
    ("top", &["failure", "policy", "observe", "sys", "control"]),
    // All for the types of values only: what an option is parsed into.
    ("cli", &["probe", "policy", "fleet", "sys", "scrape"]),
    ("paper", &["failure", "cli", "control"]),
    (
        "config",
        &[
            "worker", "failure", "policy", "fleet", "sys", "capture", "output", "cli", "scrape",
        ],
    ),
    (
        "run",
        &[
            "worker", "failure", "policy", "fleet", "observe", "sys", "capture", "steer", "output",
            "ipc", "probe", "control", "config", "metrics", "scrape",
        ],
    ),
    (
        "bench",
        &[
            "failure", "policy", "fleet", "observe", "sys", "steer", "control", "cli",
        ],
    ),
    ("doctor", &["worker", "failure", "sys", "capture", "steer"]),
    // A crate of its own, to which all of them are `reuseport_launch::…`.
    ("main", &[]),
];

/// Data in, data out: no system call, no clock, no chance, no task.
const PURE: &[&str] = &["policy", "fleet", "observe", "metrics"];

/// The crates that the pure modules may name.
const PURE_CRATES: &[&str] = &["launcher_common", "thiserror", "proptest"];

/// And those that `observe` and `metrics` may name besides, to describe what they show and keep.
const OBSERVE_CRATES: &[&str] = &["serde", "serde_json"];

/// What the pure modules may not name of the standard library.
const IMPURE_STD: &[&[&str]] = &[
    &["env"],
    &["fs"],
    &["os"],
    &["process"],
    &["thread"],
    &["time", "Instant"],
    &["time", "SystemTime"],
    &["net", "TcpListener"],
    &["net", "TcpStream"],
    &["net", "ToSocketAddrs"],
    &["net", "UdpSocket"],
];

/// Where `unsafe` may be.
const UNSAFE: &[&str] = &["sys", "steer", "capture"];

/// Where aya may be named.
const AYA: &[&str] = &["steer", "capture"];

/// What is wrong with a file of the module `module` (empty: the crate's root).
fn violations(module: &[String], source: &str, dependencies: &[String]) -> Vec<String> {
    let mentions = match scan::mentions(module, source) {
        Ok(mentions) => mentions,
        Err(error) => return vec![error],
    };
    let Some(name) = module.first() else {
        return Vec::new();
    };
    let Some((_, allowed)) = MODULES.iter().find(|(module, _)| module == name) else {
        return vec![format!("`{name}` is not in the table of modules")];
    };
    mentions
        .iter()
        .filter_map(|mention| {
            let problem = problem(name, allowed, mention, dependencies)?;
            Some(format!("line {}: {problem}", mention.line))
        })
        .collect()
}

fn problem(
    module: &str,
    allowed: &[&str],
    mention: &Mention,
    dependencies: &[String],
) -> Option<String> {
    let path: Vec<&str> = mention.path.iter().map(String::as_str).collect();
    let shown = path.join("::");
    match path[..] {
        ["unsafe"] => (!UNSAFE.contains(&module)).then(|| format!("`{module}` has unsafe code")),
        ["crate", target, ..] => (target != module && !allowed.contains(&target))
            .then(|| format!("`{module}` may not name {shown}")),
        ["std" | "core" | "alloc", ref item @ ..] => (PURE.contains(&module) && is_impure(item))
            .then(|| format!("`{module}` is pure and may not name {shown}")),
        [external, ..] if dependencies.iter().any(|name| name == external) => {
            if is_aya(external) && !AYA.contains(&module) {
                return Some(format!(
                    "`{module}` may not name {shown}: only {AYA:?} know aya"
                ));
            }
            let pure_too = PURE_CRATES.contains(&external)
                || (matches!(module, "observe" | "metrics") && OBSERVE_CRATES.contains(&external));
            (PURE.contains(&module) && !pure_too)
                .then(|| format!("`{module}` is pure and may not name {shown}"))
        }
        _ => None,
    }
}

/// Whether a path below `std` is, or by a shorter name gives access to, something impure: after
/// `use std::time`, `time::Instant` would go unseen.
fn is_impure(item: &[&str]) -> bool {
    let item = item.strip_suffix(&["*"]).unwrap_or(item);
    IMPURE_STD
        .iter()
        .any(|impure| item.starts_with(impure) || impure.starts_with(item))
}

fn is_aya(external: &str) -> bool {
    external == "aya" || external.starts_with("aya_")
}
