//! `status`, for programs and for people.

use std::collections::BTreeSet;

use kernel_tests::{
    client, gate,
    launcher::{Launch, Launcher},
    scripts::{self, WITNESS_PORT},
};
use serde_json::Value;

/// A fleet of two witnesses that has served 10 requests.
#[track_caller]
fn fleet() -> Launcher {
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .ready();
    client::spread(client::address("127.0.0.1:8080"), 10);
    launcher
}

/// The names of an object's members.
#[track_caller]
fn keys(object: &Value) -> BTreeSet<&str> {
    let object = object.as_object();
    let object = object.unwrap_or_else(|| panic!("no object: {object:?}"));
    object.keys().map(String::as_str).collect()
}

#[test]
fn status_in_json_has_the_promised_shape() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = fleet();
    let text = launcher
        .site
        .control(&["status", launcher.site.name(), "--json"])
        .success();
    assert_eq!(text.lines().count(), 1, "{text}");
    let status: Value = serde_json::from_str(&text).expect("JSON and nothing else");
    let promised = [
        "name",
        "version",
        "pid",
        "command",
        "started_at",
        "capture",
        "steering",
        "hold",
        "operation",
        "groups",
        "workers",
    ];
    assert_eq!(keys(&status), BTreeSet::from(promised));
    assert_eq!(status["name"], launcher.site.name());
    assert_eq!(status["pid"], launcher.process.pid());
    assert_eq!(status["capture"], "cgroup");
    assert!(status["hold"].is_boolean());
    assert!(status["operation"].is_null());
    assert_eq!(status["command"].as_array().map(Vec::len), Some(4));
    let started = status["started_at"].as_str().unwrap_or_default();
    assert!(
        started.len() == "2026-11-21T06:00:00Z".len() && started.ends_with('Z'),
        "{started}"
    );
    let steering = &status["steering"];
    assert_eq!(
        keys(steering),
        BTreeSet::from(["backend", "policy", "policy_udp", "migration"])
    );
    assert_eq!(steering["backend"], "ebpf");
    assert_eq!(steering["policy"], "round-robin");
    assert_eq!(steering["policy_udp"], "hash");

    let groups = status["groups"].as_array().expect("a list");
    assert_eq!(groups.len(), 1);
    let group = &groups[0];
    for (key, value) in [
        ("protocol", Value::from("tcp")),
        ("address", "0.0.0.0".into()),
        ("port", WITNESS_PORT.into()),
        ("members", 2.into()),
        ("selected_total", 10.into()),
        ("migrated_total", 0.into()),
        ("fell_through_total", 0.into()),
    ] {
        assert_eq!(group[key], value, "{key}");
    }
    for key in ["held_total", "held_now", "hold_backlog"] {
        assert!(keys(group).contains(key), "{key}");
    }

    let workers = status["workers"].as_array().expect("a list");
    assert_eq!(workers.len(), 2);
    for (slot, worker) in workers.iter().enumerate() {
        for (key, value) in [
            ("slot", Value::from(slot)),
            ("generation", 1.into()),
            ("state", "ready".into()),
            ("status_text", Value::Null),
            ("cpus", Vec::<u32>::new().into()),
            ("weight", 1.into()),
            ("restarts", 0.into()),
            ("connections_total", 5.into()),
            ("accept_queue", 0.into()),
        ] {
            assert_eq!(worker[key], value, "{key}");
        }
        assert!(worker["uptime_seconds"].is_u64());
        assert!(
            worker["memory_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 1 << 20)
        );
        assert!(
            worker["cpu_seconds"]
                .as_f64()
                .is_some_and(|seconds| seconds > 0.0)
        );
        assert!(keys(worker).contains("connections_active"));
        assert!(keys(worker).contains("pid"));
    }
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn status_for_people_is_a_table() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = fleet();
    // The only one that runs need not be named.
    let text = launcher.site.control(&["status"]).success();
    let first = text.lines().next().unwrap_or_default();
    let (name, pid) = (launcher.site.name(), launcher.process.pid());
    let said = format!("{name} · 2 of 2 ready · pid {pid} · ");
    assert!(first.starts_with(&said), "{text}");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let from = |title| {
        rows.iter()
            .skip_while(move |row| row.first() != Some(&title))
    };

    let status = launcher.status();
    let mut workers = from("SLOT");
    let title = workers.next().cloned().unwrap_or_default();
    assert_eq!(
        title[..5],
        ["SLOT", "GEN", "STATE", "PID", "SHARE"],
        "{text}"
    );
    assert!(
        title.contains(&"CPU") && title.contains(&"MEMORY"),
        "{text}"
    );
    for slot in 0..2 {
        let pid = status.pid(slot).to_string();
        let row = workers.next().cloned().unwrap_or_default();
        let expected = [&slot.to_string(), "1", "ready", &pid, "50.0%", "██████████"];
        assert_eq!(row[..6], expected, "{text}");
        assert!(row.iter().skip(6).any(|cell| cell.ends_with('%')), "{text}");
    }
    assert_eq!(workers.next().map(Vec::len), Some(0), "{text}");

    let mut groups = from("GROUP");
    let title = groups.next().cloned().unwrap_or_default().join(" ");
    let expected = "GROUP MEMBERS SELECTED MIGRATED HELD FELL THROUGH";
    assert_eq!(title, expected, "{text}");
    let group = groups.next().cloned().unwrap_or_default().join(" ");
    // While the first worker was not ready yet nobody has connected.
    assert_eq!(group, "tcp 0.0.0.0:8080 2 10 0 0 0", "{text}");
    assert_eq!(groups.next(), None, "{text}");
    assert_eq!(launcher.stop(), 0);
}
