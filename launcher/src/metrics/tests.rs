//! The page, literally and in what it promises.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::{
    metrics::page::STATES,
    observe::{GroupStatus, Snapshot, Steering, WorkerStatus},
    worker::WorkerId,
};

const DOCUMENT: &str = include_str!("../../../docs/METRICS.md");
const DASHBOARD: &str = include_str!("../../../deploy/grafana-dashboard.json");

fn id(slot: u32, generation: u64) -> WorkerId {
    WorkerId { slot, generation }
}

fn group(protocol: &str, port: u16) -> GroupStatus {
    let udp = protocol == "udp";
    GroupStatus {
        protocol: protocol.into(),
        address: "::".into(),
        port,
        members: 2,
        selected_total: Some(7),
        migrated_total: Some(0),
        held_total: Some(0),
        held_now: (!udp).then_some(3),
        hold_backlog: (!udp).then_some(4096),
        fell_through_total: Some(0),
        refused_total: Some(0),
        missed_total: Some(0),
        flows_now: udp.then_some(5),
        flows_max: udp.then_some(65_536),
        flows_evicted_total: udp.then_some(1),
    }
}

fn worker(slot: u32, generation: u64, state: &str) -> WorkerStatus {
    WorkerStatus {
        slot,
        generation,
        pid: Some(1),
        state: state.into(),
        status_text: None,
        cpus: Vec::new(),
        weight: 1,
        hint: None,
        uptime_seconds: Some(60),
        restarts: 0,
        connections_total: Some(1),
        connections_active: Some(2),
        accept_queue: Some(1),
        memory_bytes: Some(1 << 40),
        cpu_seconds: Some(0.5),
        restart_in_seconds: None,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        name: "a \"b\"\\\n".into(),
        version: "1.2.3".into(),
        pid: 1,
        command: vec!["x".into()],
        started_at: "2026-11-21T06:00:00Z".into(),
        capture: "cgroup".into(),
        steering: Steering {
            backend: "ebpf".into(),
            policy: "round-robin".into(),
            policy_udp: "hash".into(),
            migration: true,
        },
        hold: true,
        operation: None,
        groups: vec![group("tcp", 80), group("udp", 53)],
        workers: vec![
            worker(0, 1, "draining"),
            worker(0, 2, "ready"),
            worker(1, 1, "ready"),
        ],
    }
}

fn key(protocol: &str, port: u16) -> GroupKey {
    (protocol.into(), "::".into(), port)
}

fn used(connections: u64, cpu_seconds: f64) -> Used {
    Used {
        connections: Some(connections),
        cpu_seconds: Some(cpu_seconds),
    }
}

fn selected(selected: u64) -> Option<Counts> {
    Some(Counts {
        selected,
        ..Counts::default()
    })
}

/// A page on which everything is.
fn full(format: Format) -> String {
    let mut tallies = Tallies::default();
    tallies.see_groups([(key("tcp", 80), selected(7)), (key("udp", 53), selected(9))]);
    tallies.see_worker(id(0, 1), used(4, 1.5));
    tallies.restart(0, Restart::MaxAge);
    tallies.reload(Outcome::Done, Duration::from_millis(1500));
    render(&snapshot(), &tallies, &[(key("tcp", 80), 7.3e-8)], format)
}

/// The names of samples, without the prefix.
fn sample_names(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let name = line.split(['{', ' ']).next().unwrap();
            name.strip_prefix("reuseport_launch_").unwrap()
        })
        .collect()
}

/// What samples may be called.
fn known_names() -> BTreeSet<String> {
    FAMILIES
        .iter()
        .flat_map(|family| {
            match family.kind {
                Kind::Summary => vec!["_sum", "_count"],
                Kind::Counter | Kind::Gauge | Kind::Info => vec![""],
            }
            .into_iter()
            .map(|ending| format!("{}{ending}", family.name))
        })
        .collect()
}

#[track_caller]
fn has(page: &str, line: &str) {
    assert!(page.lines().any(|it| it == line), "{line}\n{page}");
}

#[test]
fn both_formats_have_every_metric_and_no_other() {
    let known = known_names();
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    for format in [Format::Text, Format::OpenMetrics] {
        let page = full(format);
        assert_eq!(sample_names(&page), known);
        for start in ["# HELP ", "# TYPE "] {
            let lines: Vec<_> = page.lines().filter(|it| it.starts_with(start)).collect();
            let names: BTreeSet<_> = lines.iter().map(|it| it.split(' ').nth(2)).collect();
            assert_eq!((names.len(), lines.len()), (FAMILIES.len(), FAMILIES.len()));
        }
    }
}

#[test]
fn the_formats_differ_in_what_they_call_families() {
    let text = full(Format::Text);
    let open = full(Format::OpenMetrics);
    for page in [&text, &open] {
        has(
            page,
            r#"reuseport_launch_selected_total{protocol="tcp",address="::",port="80"} 7"#,
        );
        has(page, r#"reuseport_launch_build_info{version="1.2.3"} 1"#);
        has(
            page,
            r#"reuseport_launch_worker_state{slot="0",state="ready"} 1"#,
        );
        has(
            page,
            r#"reuseport_launch_worker_state{slot="0",state="draining"} 1"#,
        );
        has(
            page,
            r#"reuseport_launch_worker_state{slot="1",state="draining"} 0"#,
        );
        has(page, r#"reuseport_launch_worker_generation{slot="0"} 2"#);
        has(page, r#"reuseport_launch_connections_active{slot="0"} 4"#);
        has(
            page,
            r#"reuseport_launch_memory_bytes{slot="0"} 2199023255552"#,
        );
        has(
            page,
            r#"reuseport_launch_restarts_total{slot="0",reason="max-age"} 1"#,
        );
        has(
            page,
            r#"reuseport_launch_restarts_total{slot="1",reason="exited"} 0"#,
        );
        has(
            page,
            r#"reuseport_launch_reload_duration_seconds_sum{outcome="done"} 1.5"#,
        );
        has(
            page,
            r#"reuseport_launch_reload_duration_seconds_count{outcome="refused"} 0"#,
        );
        let seconds = "reuseport_launch_steering_decision_seconds";
        let labels = r#"protocol="tcp",address="::",port="80""#;
        has(page, &format!("{seconds}{{{labels}}} 0.000000073"));
        assert!(page.contains(r#"name="a \"b\"\\\n""#), "{page}");
    }
    has(&text, "# TYPE reuseport_launch_selected_total counter");
    has(&text, "# TYPE reuseport_launch_build_info gauge");
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"));
    has(&open, "# TYPE reuseport_launch_selected counter");
    has(&open, "# TYPE reuseport_launch_build info");
    has(&open, "# UNIT reuseport_launch_cpu_seconds seconds");
    assert!(open.ends_with("\n# EOF\n"));
}

#[test]
fn what_is_not_known_is_not_on_the_page() {
    let mut snapshot = snapshot();
    snapshot.groups.clear();
    snapshot.workers.clear();
    let page = render(&snapshot, &Tallies::default(), &[], Format::Text);
    let names: Vec<_> = sample_names(&page).into_iter().collect();
    assert_eq!(
        names,
        [
            "build_info",
            "ready_workers",
            "reload_duration_seconds_count",
            "reload_duration_seconds_sum",
            "slots",
            "steering_info",
        ]
    );
}

#[test]
fn the_client_chooses_the_format() {
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,\
                      text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for accept in [
        prometheus,
        "Application/OpenMetrics-Text",
        "text/plain;q=0.5, application/openmetrics-text",
    ] {
        assert_eq!(negotiate(accept), Format::OpenMetrics, "{accept}");
    }
    for accept in [
        "",
        "*/*",
        "text/html, */*;q=0.8",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=x",
        "application/openmetrics-text;q=0.5,text/plain",
        ";;,,q=",
    ] {
        assert_eq!(negotiate(accept), Format::Text, "{accept}");
    }
}

#[test]
fn counters_outlive_what_they_are_read_from() {
    let key = || key("tcp", 80);
    let total = |tallies: &Tallies| {
        let totals: Vec<_> = tallies
            .groups()
            .map(|(_, counts)| counts.selected)
            .collect();
        totals
    };
    let mut tallies = Tallies::default();
    tallies.see_groups([(key(), None)]);
    assert_eq!(total(&tallies), Vec::<u64>::new());
    for (seen, expected) in [
        (selected(5), 5),
        (selected(8), 8),
        // Nothing counts while the kernel deals out.
        (None, 8),
        (None, 8),
        (selected(1), 9),
        (selected(2), 10),
        // The same group, made anew.
        (selected(0), 10),
        (selected(20), 30),
    ] {
        tallies.see_groups([(key(), seen)]);
        assert_eq!(total(&tallies), [expected]);
    }
    tallies.see_groups([]);
    tallies.see_groups([(key(), selected(30))]);
    assert_eq!(total(&tallies), [60]);
}

#[test]
fn slots_add_up_their_workers_over_launchers() {
    let totals = |tallies: &Tallies| {
        let used = tallies.used().map(|(_, used)| used);
        used.map(|it| (it.connections, it.cpu_seconds))
            .collect::<Vec<_>>()
    };
    let mut tallies = Tallies::default();
    tallies.see_worker(id(0, 1), Used::default());
    assert_eq!(totals(&tallies), [(None, None)]);
    tallies.see_worker(id(0, 1), used(10, 1.0));
    tallies.see_worker(id(0, 2), used(5, 0.25));
    // Its cgroup can't be read any more.
    tallies.see_worker(id(0, 1), Used::default());
    assert_eq!(totals(&tallies), [(Some(15), Some(1.25))]);
    tallies.end_worker(id(0, 1));
    tallies.end_worker(id(0, 1));
    tallies.see_worker(id(0, 2), used(6, 0.5));
    assert_eq!(totals(&tallies), [(Some(16), Some(1.5))]);
    tallies.restart(0, Restart::Exited);

    let written = serde_json::to_string(&tallies).unwrap();
    let read: Tallies = serde_json::from_str(&written).unwrap();
    assert_eq!(read, tallies);
    let mut read = read.resume(|worker| worker != id(0, 2));
    assert_eq!(totals(&read), [(Some(16), Some(1.5))]);
    read.see_worker(id(0, 3), used(1, 0.5));
    assert_eq!(totals(&read), [(Some(17), Some(2.0))]);
    assert_eq!(read.restarts(0, Restart::Exited), 1);
}

#[test]
fn the_document_has_every_metric_and_no_other() {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), cells.next()?.to_owned()))
    });
    let documented: Vec<_> = rows.collect();
    let families = FAMILIES.iter();
    let families: Vec<_> = families
        .map(|family| (family.name.to_owned(), family.kind.name().to_owned()))
        .collect();
    assert_eq!(documented, families);
    for state in STATES {
        assert!(DOCUMENT.contains(&format!("`{state}`")), "{state}");
    }
    for reason in Restart::ALL.iter().map(|(_, word)| word) {
        assert!(DOCUMENT.contains(&format!("`{reason}`")), "{reason}");
    }
}

/// All strings under this key, at any depth.
fn values<'v>(value: &'v serde_json::Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                if name == key {
                    found.extend(value.as_str());
                }
                values(value, key, found);
            }
        }
        serde_json::Value::Array(list) => {
            for value in list {
                values(value, key, found);
            }
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    values(&dashboard, "expr", &mut queries);
    assert!(queries.len() >= 10, "{}", queries.len());
    values(&dashboard, "query", &mut queries);
    let known = known_names();
    for query in queries {
        let names = query.split("reuseport_launch_").skip(1).map(|rest| {
            let end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
            rest.split(end).next().unwrap_or_default()
        });
        let names: Vec<_> = names.collect();
        assert!(!names.is_empty() || query == "prometheus", "{query}");
        for name in names {
            assert!(known.contains(name), "{name} in {query}");
        }
    }
}
