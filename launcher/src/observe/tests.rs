//! The forms, literally.

use std::time::Duration;

use super::{
    history::History,
    table::{self, Listed, list},
    *,
};

/// As `status` shows it: after two looks at it, without a change between them.
fn status(snapshot: &Snapshot, width: usize) -> String {
    table::status(snapshot, &history(snapshot, snapshot), width)
}

/// Two snapshots, half a second apart.
fn history(before: &Snapshot, after: &Snapshot) -> History {
    let mut history = History::default();
    history.add(before, Duration::ZERO);
    history.add(after, Duration::from_millis(500));
    history
}

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

SLOT  GEN  STATE          PID  CPUS  SHARE              QUEUE   CPU    MEMORY  RESTARTS  UPTIME  CONNECTIONS  WEIGHT
   0    1  ready         4212  0     25.0%  ██████████      0  0.0%  25.0 MiB         0   1h 2m          100       1
   1    1  ready         4213  1     25.0%  ██████████      0  0.0%  25.0 MiB         0   1h 2m          100       1
   2    1  ready         4214  2     25.0%  ██████████      0  0.0%  25.0 MiB         0   1h 2m          100       1
   3    3  backoff 0.4s     -  3     25.0%  ██████████      -     -         -         2       -          100       1

GROUP             MEMBERS  SELECTED  MIGRATED  FELL THROUGH
tcp 0.0.0.0:8080        4       400         2             0
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
        connections_total: Some(25),
        status_text: Some("warm\u{1b}[2J".into()),
        cpus: vec![0, 1, 2, 8],
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
reload: 0 of 2 slots done

SLOT  GEN  STATE      PID  CPUS   SHARE              OPEN  QUEUE   CPU    MEMORY  RESTARTS  UPTIME  CONNECTIONS  WEIGHT  STATUS
   0    1  draining  4212  0      44.4%  ██████████     3      0  0.0%  25.0 MiB         0   1h 2m          100       1  -
   0    2  ready     5000  0-2,8  11.1%  ██▌·······     -      0  0.0%  25.0 MiB         0   1h 2m           25       1  warm[2J
   1    1  ready     4213  1      44.4%  ██████████     -      0  0.0%  25.0 MiB         0   1h 2m          100       1  -

GROUP             MEMBERS  SELECTED  MIGRATED  HELD    WAITING  FELL THROUGH
tcp 0.0.0.0:8080        4       400         2    12  5 of 4096             0
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
    let text = shown(&snapshot);
    assert!(text.contains("  0 of 65536\n"), "{text}");
    assert!(!text.contains("EVICTED"), "{text}");
    snapshot.groups[0].flows_evicted_total = Some(7);
    let text = shown(&snapshot);
    assert!(text.contains("  0 of 65536        7\n"), "{text}");
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

/// The titles of the workers' table in a terminal of this width.
fn titles(snapshot: &Snapshot, width: usize) -> String {
    let text = status(snapshot, width);
    let line = text.lines().find(|line| line.starts_with("SLOT")).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn columns_go_in_their_order_where_the_terminal_is_narrow() {
    let mut snapshot = snapshot();
    snapshot.workers[1].connections_active = Some(3);
    snapshot.workers[1].status_text = Some("warm".into());
    for (width, expected) in [
        (
            160,
            "SLOT GEN STATE PID CPUS SHARE OPEN QUEUE CPU MEMORY RESTARTS UPTIME CONNECTIONS WEIGHT STATUS",
        ),
        (
            120,
            "SLOT GEN STATE PID CPUS SHARE OPEN QUEUE CPU MEMORY RESTARTS UPTIME CONNECTIONS",
        ),
        (
            100,
            "SLOT GEN STATE PID SHARE OPEN QUEUE CPU MEMORY RESTARTS UPTIME",
        ),
        (80, "SLOT STATE PID SHARE OPEN QUEUE CPU MEMORY UPTIME"),
        (60, "SLOT STATE SHARE OPEN QUEUE CPU"),
        (20, "SLOT STATE"),
        (1, "…"),
    ] {
        let shown = match width {
            1 => status(&snapshot, 1).lines().nth(4).unwrap().to_owned(),
            _ => titles(&snapshot, width),
        };
        assert_eq!(shown, expected, "{width}");
    }
}

#[test]
fn status_table_of_80_columns() {
    let expected = "\
myserver · 3 of 4 ready · pid 4211 · since 2026-11-21T05:57:00Z · version 0.1.0
command ./myserver --title \"two words\"
capture cgroup · steer round-robin (eBPF) · migration on · hold on

SLOT  STATE          PID  SHARE              QUEUE   CPU    MEMORY  UPTIME
   0  ready         4212  25.0%  ██████████      0  0.0%  25.0 MiB   1h 2m
   1  ready         4213  25.0%  ██████████      0  0.0%  25.0 MiB   1h 2m
   2  ready         4214  25.0%  ██████████      0  0.0%  25.0 MiB   1h 2m
   3  backoff 0.4s     -  25.0%  ██████████      -     -         -       -

GROUP             MEMBERS  SELECTED  MIGRATED  FELL THROUGH
tcp 0.0.0.0:8080        4       400         2             0
";
    assert_eq!(status(&snapshot(), 80), expected);
}

#[test]
fn cpu_time_and_rates_come_from_two_snapshots() {
    let before = snapshot();
    let mut after = before.clone();
    // Half a second later.
    after.workers[0].cpu_seconds = Some(1.5);
    after.workers[0].connections_total = Some(150);
    after.workers[1].connections_total = Some(125);
    after.workers[2].generation = 2;
    let history = history(&before, &after);
    assert_eq!(history.rate(), Some(150.0));
    let text = table::status(&after, &history, usize::MAX);
    assert!(text.contains("  50.0%  25.0 MiB"), "{text}");
    let workers: Vec<&WorkerStatus> = after.workers.iter().collect();
    let expected = "\
SLOT  GEN  STATE         SHARE              CONN/S      COURSE  QUEUE    CPU
   0    1  ready         31.6%  ██████████     100           █      0  50.0%
   1    1  ready         26.3%  ████████▍·    50.0           ▅      0   0.0%
   2    2  ready         21.1%  ██████▋···       -                  0      -
   3    3  backoff 0.4s  21.1%  ██████▋···     0.0           ▁      -      -";
    assert_eq!(table::live(&workers, &history, 80).join("\n"), expected);
    assert_eq!(
        table::head(&after, &history, 80),
        "myserver · 3 of 4 ready · pid 4211 · steer round-robin (eBPF) · 150 connections…"
    );
}

#[test]
fn a_history_is_bounded_and_follows_the_fleet() {
    let mut snapshot = snapshot();
    let mut history = History::default();
    for connections in 0..1_000 {
        snapshot.workers[0].connections_total = Some(connections);
        history.add(&snapshot, Duration::from_secs(1));
    }
    let kept = history.of(&snapshot.workers[0]).unwrap().rates().len();
    assert_eq!(kept, 60);
    assert_eq!(history.highest(), 1.0);
    // A launcher that started anew counts from zero.
    snapshot.workers[0].connections_total = Some(0);
    history.add(&snapshot, Duration::from_secs(1));
    assert_eq!(history.of(&snapshot.workers[0]).unwrap().rate(), Some(0.0));
    let gone = snapshot.workers.remove(0);
    history.add(&snapshot, Duration::from_secs(1));
    assert!(history.of(&gone).is_none());
}

#[test]
fn no_line_is_ever_wider_than_asked() {
    let listed = [Listed {
        name: "myserver".into(),
        status: Some(snapshot()),
        error: None,
    }];
    let (snapshot, mut busy) = (snapshot(), snapshot());
    busy.workers[0].connections_total = Some(1_000_000);
    busy.workers[1].status_text = Some("x".repeat(256));
    busy.groups.push(group("2001:db8::1", 443));
    let history = history(&snapshot, &busy);
    let workers: Vec<&WorkerStatus> = busy.workers.iter().collect();
    for width in 0..200 {
        for text in [
            status(&snapshot, width),
            table::status(&busy, &history, width),
            table::live(&workers, &history, width).join("\n"),
            table::head(&busy, &history, width),
            list(&listed, width),
        ] {
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
    assert!(!text.contains("SHARE") && !text.contains('█'), "{text}");
}
