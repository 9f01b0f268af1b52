//! The forms, literally.

use super::{
    table::{Listed, list, status},
    *,
};

fn group(address: &str, port: u16) -> GroupStatus {
    GroupStatus {
        protocol: "tcp".into(),
        address: address.into(),
        port,
        members: 4,
        selected_total: Some(400),
        migrated_total: Some(2),
        held_total: None,
        held_now: None,
        hold_backlog: None,
        fell_through_total: Some(0),
        refused_total: Some(0),
        missed_total: Some(0),
        flows_now: None,
        flows_max: None,
        flows_evicted_total: None,
    }
}

fn worker(slot: u32) -> WorkerStatus {
    WorkerStatus {
        slot,
        generation: 1,
        pid: Some(4212 + slot),
        state: "ready".into(),
        status_text: None,
        cpus: vec![slot],
        weight: 1,
        hint: None,
        uptime_seconds: Some(3_725),
        restarts: 0,
        connections_total: Some(100),
        connections_active: None,
        accept_queue: Some(0),
        memory_bytes: Some(26_214_400),
        cpu_seconds: Some(1.25),
        restart_in_seconds: None,
    }
}

fn snapshot() -> Snapshot {
    let crashed = WorkerStatus {
        generation: 3,
        pid: None,
        state: "backoff".into(),
        uptime_seconds: None,
        restarts: 2,
        accept_queue: None,
        memory_bytes: None,
        cpu_seconds: None,
        restart_in_seconds: Some(0.42),
        ..worker(3)
    };
    Snapshot {
        name: "myserver".into(),
        version: "0.1.0".into(),
        pid: 4211,
        command: vec!["./myserver".into(), "--title".into(), "two words".into()],
        started_at: "2026-11-21T05:57:00Z".into(),
        capture: "cgroup".into(),
        steering: Steering {
            backend: "ebpf".into(),
            policy: "round-robin".into(),
            policy_udp: "hash".into(),
            migration: true,
        },
        hold: true,
        operation: None,
        groups: vec![group("0.0.0.0", 8080)],
        workers: vec![worker(0), worker(1), worker(2), crashed],
    }
}

#[test]
fn json_is_what_was_promised() {
    let mut snapshot = snapshot();
    snapshot.workers.truncate(1);
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(
        json,
        r#"{"name":"myserver","version":"0.1.0","pid":4211,"command":["./myserver","--title","two words"],"started_at":"2026-11-21T05:57:00Z","capture":"cgroup","steering":{"backend":"ebpf","policy":"round-robin","policy_udp":"hash","migration":true},"hold":true,"operation":null,"groups":[{"protocol":"tcp","address":"0.0.0.0","port":8080,"members":4,"selected_total":400,"migrated_total":2,"held_total":null,"held_now":null,"hold_backlog":null,"fell_through_total":0,"refused_total":0,"missed_total":0,"flows_now":null,"flows_max":null,"flows_evicted_total":null}],"workers":[{"slot":0,"generation":1,"pid":4212,"state":"ready","status_text":null,"cpus":[0],"weight":1,"hint":null,"uptime_seconds":3725,"restarts":0,"connections_total":100,"connections_active":null,"accept_queue":0,"memory_bytes":26214400,"cpu_seconds":1.25,"restart_in_seconds":null}]}"#
    );
    assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
}

#[test]
fn a_newer_launcher_may_say_more() {
    let mut json = serde_json::to_value(snapshot()).unwrap();
    json["added_later"] = 1.into();
    json["workers"][0]["added_later"] = 1.into();
    assert_eq!(
        serde_json::from_value::<Snapshot>(json).unwrap(),
        snapshot()
    );
}

#[test]
fn startup_line() {
    let mut snapshot = snapshot();
    assert_eq!(
        startup::line(&snapshot, "affinity 16, cpu.max 3.5 → 4", false),
        "4 workers (affinity 16, cpu.max 3.5 → 4) · tcp 0.0.0.0:8080 ×4 · \
         steer round-robin (eBPF) · migration on · hold on · reload: kill -HUP 4211"
    );
    snapshot.groups.push(group("::", 443));
    snapshot.steering.migration = false;
    assert_eq!(
        startup::line(&snapshot, "", false),
        "4 workers · tcp 0.0.0.0:8080 ×4, tcp [::]:443 ×4 · steer round-robin (eBPF) · \
         migration off · hold on · reload: kill -HUP 4211"
    );
}

#[test]
fn startup_line_names_the_policy_of_each_protocol() {
    let mut snapshot = snapshot();
    snapshot.groups[0].protocol = "udp".into();
    let line = startup::line(&snapshot, "", false);
    assert!(line.contains(" · steer hash (eBPF) · "), "{line}");
    snapshot.groups.push(group("::", 443));
    let line = startup::line(&snapshot, "", false);
    let both = " · steer round-robin (eBPF), UDP hash (eBPF) · ";
    assert!(line.contains(both), "{line}");
}

#[test]
fn startup_line_on_a_terminal() {
    let mut snapshot = snapshot();
    snapshot.hold = false;
    let line = startup::line(&snapshot, "", true);
    let end = " · migration on · hold off · reload: reuseport-launch reload myserver";
    assert!(line.ends_with(end), "{line}");
}

#[test]
fn startup_line_of_a_queue_worker() {
    let mut snapshot = snapshot();
    snapshot.groups.clear();
    snapshot.workers.truncate(1);
    assert_eq!(
        startup::line(&snapshot, "", false),
        "1 worker · no listening socket · steer round-robin (eBPF) · migration on · \
         hold on · reload: kill -HUP 4211"
    );
}

#[test]
fn startup_line_names_the_lower_rungs() {
    let mut snapshot = snapshot();
    snapshot.capture = "cooperative".into();
    snapshot.steering = Steering {
        backend: "kernel".into(),
        policy: "kernel".into(),
        policy_udp: "hash".into(),
        migration: false,
    };
    assert_eq!(
        startup::line(&snapshot, "", false),
        "4 workers · tcp 0.0.0.0:8080 ×4 · capture cooperative · steer kernel (hash only) · \
         migration off · hold on · reload: kill -HUP 4211"
    );
}

#[test]
fn startup_line_counts_many_groups() {
    let mut snapshot = snapshot();
    snapshot.groups = (1..=6).map(|port| group("10.0.0.1", port)).collect();
    assert!(
        startup::line(&snapshot, "", false).contains(
            "· tcp 10.0.0.1:1 ×4, tcp 10.0.0.1:2 ×4, tcp 10.0.0.1:3 ×4, tcp 10.0.0.1:4 ×4 … and 2 more ·"
        )
    );
}

#[test]
fn status_table() {
    let expected = "\
myserver · 3 of 4 ready · pid 4211 · since 2026-11-21T05:57:00Z · version 0.1.0
command ./myserver --title \"two words\"
capture cgroup · steer round-robin (eBPF) · migration on · hold on
tcp 0.0.0.0:8080 ×4 · 400 selected · 2 migrated · 0 fell through

SLOT  STATE          PID  CONNECTIONS  SHARE  QUEUE  UPTIME  RESTARTS    MEMORY   CPU  GENERATION  WEIGHT  CPUS
   0  ready         4212          100  25.0%      0   1h 2m         0  25.0 MiB  1.2s           1       1  0
   1  ready         4213          100  25.0%      0   1h 2m         0  25.0 MiB  1.2s           1       1  1
   2  ready         4214          100  25.0%      0   1h 2m         0  25.0 MiB  1.2s           1       1  2
   3  backoff 0.4s     -          100  25.0%      -       -         2         -     -           3       1  3
";
    assert_eq!(status(&snapshot(), usize::MAX), expected);
}

#[test]
fn status_table_during_a_reload() {
    let mut snapshot = snapshot();
    snapshot.workers.truncate(2);
    let old = &mut snapshot.workers[0];
    old.state = "draining".into();
    old.connections_active = Some(3);
    let next = WorkerStatus {
        generation: 2,
        pid: Some(5000),
        connections_total: Some(0),
        status_text: Some("warm\u{1b}[2J".into()),
        ..worker(0)
    };
    snapshot.workers.insert(1, next);
    snapshot.operation = Some(Operation {
        verb: "reload".into(),
        done: 0,
        of: 2,
    });
    let group = &mut snapshot.groups[0];
    group.held_total = Some(12);
    group.held_now = Some(5);
    group.hold_backlog = Some(4096);
    let expected = "\
myserver · 2 of 2 ready · pid 4211 · since 2026-11-21T05:57:00Z · version 0.1.0
command ./myserver --title \"two words\"
capture cgroup · steer round-robin (eBPF) · migration on · hold on
tcp 0.0.0.0:8080 ×4 · 400 selected · 2 migrated · 12 held · 5 of 4096 waiting · 0 fell through
reload: 0 of 2 slots done

SLOT  STATE               PID  CONNECTIONS  SHARE  OPEN  QUEUE  UPTIME  RESTARTS    MEMORY   CPU  GENERATION  WEIGHT  CPUS  STATUS
   0  draining (3 open)  4212          100  50.0%     3      0   1h 2m         0  25.0 MiB  1.2s           1       1  0     -
   0  ready              5000            0   0.0%     -      0   1h 2m         0  25.0 MiB  1.2s           2       1  0     warm[2J
   1  ready              4213          100  50.0%     -      0   1h 2m         0  25.0 MiB  1.2s           1       1  1     -
";
    assert_eq!(status(&snapshot, usize::MAX), expected);
    let json = serde_json::to_string(&snapshot).unwrap();
    assert!(
        json.contains(r#""operation":{"verb":"reload","done":0,"of":2}"#),
        "{json}"
    );
    assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), snapshot);
}

#[test]
fn flows_of_datagrams_are_shown() {
    let mut snapshot = snapshot();
    let group = &mut snapshot.groups[0];
    group.protocol = "udp".into();
    group.flows_now = Some(0);
    group.flows_max = Some(65_536);
    group.flows_evicted_total = Some(0);
    let shown = |snapshot: &Snapshot| status(snapshot, usize::MAX);
    let line = "0 fell through · 0 of 65536 flows\n";
    assert!(shown(&snapshot).contains(line), "{}", shown(&snapshot));
    snapshot.groups[0].flows_evicted_total = Some(7);
    let line = "0 of 65536 flows · 7 evicted\n";
    assert!(shown(&snapshot).contains(line), "{}", shown(&snapshot));
}

#[test]
fn operations() {
    let operation = |verb: &str, done, of| {
        let verb = verb.into();
        Operation { verb, done, of }.to_string()
    };
    assert_eq!(operation("scale", 1, 4), "scale: 1 of 4 slots done");
    assert_eq!(operation("restart", 0, 1), "restart: 0 of 1 slot done");
}

#[test]
fn what_a_worker_says_of_itself_is_cut() {
    let mut snapshot = snapshot();
    snapshot.workers[0].status_text = Some("x".repeat(256));
    let text = status(&snapshot, usize::MAX);
    assert!(text.contains(&format!(" {}…\n", "x".repeat(39))), "{text}");
}

#[test]
fn status_table_on_a_narrow_terminal() {
    let expected = "\
myserver · 3 of 4 ready · pid 4211 · si…
command ./myserver --title \"two words\"
capture cgroup · steer round-robin (eBP…
tcp 0.0.0.0:8080 ×4 · 400 selected · 2 …

SLOT  STATE          PID  CONNECTIONS
   0  ready         4212          100
   1  ready         4213          100
   2  ready         4214          100
   3  backoff 0.4s     -          100
";
    assert_eq!(status(&snapshot(), 40), expected);
}

#[test]
fn no_line_is_ever_wider_than_asked() {
    let listed = [Listed {
        name: "myserver".into(),
        status: Some(snapshot()),
        error: None,
    }];
    for width in 0..130 {
        for text in [status(&snapshot(), width), list(&listed, width)] {
            assert!(
                text.lines().all(|line| line.chars().count() <= width),
                "{width}:\n{text}"
            );
        }
    }
}

#[test]
fn list_of_launchers() {
    let mut queue = snapshot();
    queue.name = "queue".into();
    queue.groups.clear();
    let listed = [
        Listed {
            name: "myserver".into(),
            status: Some(snapshot()),
            error: None,
        },
        Listed {
            name: "queue".into(),
            status: Some(queue),
            error: None,
        },
        Listed {
            name: "stuck".into(),
            status: None,
            error: Some("it does not answer".into()),
        },
    ];
    let expected = "\
NAME       PID               READY  PORTS                COMMAND
myserver  4211              3 of 4  tcp 0.0.0.0:8080 ×4  ./myserver --title \"two words\"
queue     4211              3 of 4  -                    ./myserver --title \"two words\"
stuck        -  it does not answer  -                    -
";
    assert_eq!(list(&listed, usize::MAX), expected);
    assert_eq!(list(&[], 80), "no launcher runs\n");
}

#[test]
fn a_command_cannot_write_to_the_terminal() {
    let mut snapshot = snapshot();
    snapshot.command = vec!["a\nb".into(), "\u{1b}[2J".into(), String::new()];
    let text = status(&snapshot, usize::MAX);
    assert!(
        text.contains("command \"a\\nb\" \"\\u{1b}[2J\" \"\"\n"),
        "{text}"
    );
}

#[test]
fn large_and_small_numbers() {
    let mut snapshot = snapshot();
    for (worker, (memory, uptime)) in snapshot.workers.iter_mut().zip([
        (999, 59),
        (1_000, 125),
        (1_072_693_248, 180_000),
        (6_120_328_397, 86_400),
    ]) {
        worker.memory_bytes = Some(memory);
        worker.uptime_seconds = Some(uptime);
        worker.connections_total = Some(0);
    }
    let text = status(&snapshot, usize::MAX);
    for part in [
        "999 B", "1.0 KiB", "1.0 GiB", "5.7 GiB", " 59s ", " 2m 5s ", " 2d 2h ", " 1d 0h ",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("SHARE"), "{text}");
}
