//! `tests/peers/run`, which measures other systems beside this one: that it works, on a few of them. What
//! it measures in so short a time means nothing, so only what is counted is looked at.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use kernel_tests::{cgroup, gate, launcher::binary};
use serde_json::Value;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/run");
const SYSTEMS: [&str; 4] = ["ours", "cluster-rr", "nginx", "gunicorn"];

/// The cgroups that the script with this pid has made.
fn cgroups(pid: u32) -> Vec<String> {
    let fleet = cgroup::of_fleet("none").expect("a cgroup v2 hierarchy");
    let entries = fs::read_dir(fleet.parent().expect("it is below the mount")).expect("readable");
    let names = entries.map(|entry| entry.expect("readable").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let prefix = format!("peers-{pid}-");
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Runs the script. It succeeds and leaves nothing; returns its standard output.
#[track_caller]
fn run(words: &[&str]) -> String {
    let child = Command::new(SCRIPT)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is executable");
    let pid = child.id();
    let output = child.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(cgroups(pid), Vec::<String>::new());
    String::from_utf8(output.stdout).expect("text")
}

fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("it was written");
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
fn a_quick_run_measures_each_system_and_leaves_nothing() {
    let Some(_netns) = gate::enter(&["node", "nginx", "gunicorn", "python3", "unshare"]) else {
        return;
    };
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let file = scratch.path().join("peers.json");
    let json = file.to_str().expect("a path in UTF-8");
    let binary = binary().to_str().expect("a path in UTF-8");
    let only = SYSTEMS.join(",");
    let parts = "rates,spread,faults";
    let mut words = vec!["--quick", "--parts", parts, "--only", &only];
    words.extend(["--binary", binary, "--json", json]);
    let table = run(&words);
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
    }

    let found = read(&file);
    for system in SYSTEMS {
        let rates = &found["rates"][0][system];
        assert!(rates["rate"].as_f64() > Some(0.0), "{system}: {rates}");
        assert!(rates["cpu_10k"].as_f64() > Some(0.0), "{system}: {rates}");
        assert!(rates["switches"].as_f64() > Some(0.0), "{system}: {rates}");
    }
    let ours = &found["rates"][0]["ours"];
    assert_eq!(
        (&ours["failed"], &ours["open_failed"]),
        (&0.into(), &0.into())
    );
    assert_eq!(found["spread"]["ours"], Value::from(vec![50; 8]));

    let cells = found["faults"].as_array().expect("a list");
    let of: Vec<_> = cells.iter().map(|cell| cell["system"].as_str()).collect();
    assert_eq!(of, SYSTEMS.map(Some));
    assert_eq!(cells[0]["reload"]["errors"], serde_json::json!({}));
    for cell in cells {
        assert!(cell["reload"]["events"].as_u64() > Some(0), "{cell}");
        assert!(cell["kill"]["events"].as_u64() > Some(0), "{cell}");
    }

    let markdown = run(&["--markdown", json]);
    assert!(
        markdown.contains("| reuseport-launch, round-robin | 1.000 |"),
        "{markdown}"
    );
}
