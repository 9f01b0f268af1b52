//! The command line: what its verbs print, and how they end.

use std::collections::BTreeSet;

use kernel_tests::{
    gate,
    launcher::{Launch, Launcher, Site},
    process::{Finished, Stream},
    scripts,
};
use serde_json::Value;

/// The verbs that are about one launcher, with what they need besides its name.
const VERBS_OF_A_LAUNCHER: [&[&str]; 10] = [
    &["status"],
    &["reload"],
    &["scale", "2"],
    &["restart", "0"],
    &["drain", "0"],
    &["undrain", "0"],
    &["hint", "0", "1"],
    &["send", "all", "1"],
    &["upgrade"],
    &["stop"],
];

/// A fleet of two witnesses that is ready.
#[track_caller]
fn fleet() -> Launcher {
    Launch::of(scripts::witness())
        .options(["--workers", "2"])
        .ready()
}

/// What a verb prints that succeeds.
#[track_caller]
fn stdout(site: &Site, arguments: &[&str]) -> String {
    site.control(arguments).success()
}

/// Runs a verb that is to fail for this reason, and returns all that it says.
#[track_caller]
fn failure(site: &Site, arguments: &[&str], why: &str) -> String {
    let finished = site.control(arguments);
    finished.assert_error(1, why);
    assert_eq!(finished.stdout, "", "{arguments:?}");
    finished.stderr
}

#[test]
fn the_help_names_every_verb_and_option() {
    let site = Site::new();
    let help = stdout(&site, &["--help"]);
    let verbs = [
        "run",
        "check",
        "status",
        "doctor",
        "top",
        "logs",
        "ls",
        "reload",
        "scale",
        "restart",
        "drain",
        "undrain",
        "hint",
        "send",
        "upgrade",
        "bench",
        "stop",
        "man",
        "completions",
    ];
    for verb in verbs {
        let listed = format!("\n  {verb} ");
        assert!(help.contains(&listed), "{verb} in {help}");
        let help = stdout(&site, &[verb, "--help"]);
        assert!(help.contains(&format!("reuseport-launch {verb}")), "{help}");
    }
    for word in [
        "--workers",
        "--pin",
        "--user",
        "--group",
        "--chdir",
        "--env-file",
        "--ipc",
        "--steer",
        "--steer-object",
        "--port",
        "--no-hold",
        "--ready",
        "--ready-timeout",
        "--health",
        "--health-interval",
        "--health-timeout",
        "--health-threshold",
        "--stall-timeout",
        "--drain-timeout",
        "--max-surge",
        "--max-connections",
        "--max-memory",
        "--max-age",
        "--stop-signal",
        "--stop-timeout",
        "--name",
        "--log-format",
        "--log-lines",
        "--log-file",
        "--log-max-size",
        "--log-keep",
        "--config",
        "--env",
        "--app",
        "WEB_CONCURRENCY",
        "REUSEPORT_LAUNCH_SLOT",
        "{slot}",
        "Signals: HUP reloads",
        "Exit codes",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
    assert!(stdout(&site, &["--version"]).starts_with("reuseport-launch "));
}

#[test]
fn where_nothing_runs_the_verbs_say_so() {
    let site = Site::new();
    assert_eq!(stdout(&site, &["ls"]), "no launcher runs\n");
    assert_eq!(stdout(&site, &["ls", "--json"]), "[]\n");
    for verb in VERBS_OF_A_LAUNCHER {
        failure(&site, verb, "no launcher runs");
        failure(
            &site,
            &[verb, &["web"]].concat(),
            "no launcher named web runs",
        );
    }
}

#[test]
fn what_an_operation_cannot_be_is_a_usage_error() {
    let site = Site::new();
    for (arguments, allowed) in [
        (&["scale", "0"][..], "allowed: 1 to 256"),
        (&["scale", "auto"], "allowed: 1 to 256"),
        (&["scale", "257"], "allowed: 1 to 256"),
        (&["drain", "one"], "allowed: the number of a slot, 0 to 255"),
        (&["send", "all", "hello"], "allowed: a JSON value"),
        (
            &["reload", "--drain-timeout", "soon"],
            "allowed: a whole number",
        ),
    ] {
        let finished = site.control(arguments);
        assert_eq!(finished.code(), 2, "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(allowed), "{}", finished.stderr);
    }
}

#[test]
fn more_workers_than_a_fleet_can_have_are_refused_with_the_limit() {
    let refused = |finished: Finished| {
        assert_eq!(finished.code(), 2, "{}", finished.stderr);
        let why = "more than a fleet can have; allowed: auto, or 1 to 256";
        assert!(finished.stderr.contains(why), "{}", finished.stderr);
    };
    for number in ["257", "5000", "99999999999"] {
        refused(Launch::of(["true"]).options(["--workers", number]).run());
        refused(Launch::of(["true"]).env("WEB_CONCURRENCY", number).run());
    }
}

#[test]
fn what_no_worker_could_start_with_is_known_before_any_is_started() {
    for (options, code, what) in [
        (
            ["--chdir", "/no/such/directory"],
            2,
            "cannot start workers in /no/such/directory",
        ),
        (
            ["--env-file", "/no/such/file"],
            78,
            "cannot use the environment file /no/such/file",
        ),
        (["--env-file", "/"], 78, "it is not a regular file"),
    ] {
        Launch::of(["true"])
            .options(options)
            .run()
            .assert_error(code, what);
    }
}

#[test]
fn the_startup_line_says_what_runs_and_how_to_reload_it() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = fleet();
    let pid = launcher.process.pid();
    let line = launcher.ready();
    let said = [
        "2 workers (as asked)",
        "tcp 0.0.0.0:8080 ×2",
        "steer round-robin (eBPF)",
    ]
    .join(" · ");
    assert!(line.contains(&said), "{line}");
    assert!(line.contains(" · migration o"), "{line}");
    assert!(line.contains(" · hold o"), "{line}");
    assert!(
        line.ends_with(&format!(" · reload: kill -HUP {pid}")),
        "{line}"
    );
    let lines = launcher.process.lines();
    let startup = lines.iter().filter(|line| line.text.contains(" · steer "));
    assert_eq!(startup.count(), 1, "one line");
    assert!(lines.iter().all(|line| line.stream == Stream::Err));
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn several_launchers_are_listed_and_must_be_named() {
    let Some(_netns) = gate::enter(&["python3", "sh", "sleep"]) else {
        return;
    };
    let web = fleet();
    let site = &web.site;
    let idle = Launch::of(scripts::idler())
        .options(["--workers", "1"])
        .env("REUSEPORT_LAUNCH_RUNTIME_DIR", site.runtime_dir())
        .start();
    idle.process.wait_for("a worker", |line| line == "started");
    let names = [site.name(), idle.site.name()];

    let table = stdout(site, &["ls"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert_eq!(rows[0], ["NAME", "PID", "READY", "PORTS", "COMMAND"]);
    for (launcher, ready) in [(&web, "2"), (&idle, "0")] {
        let pid = launcher.process.pid().to_string();
        let row = rows.iter().find(|row| row[0] == launcher.site.name());
        let row = row.unwrap_or_else(|| panic!("{table}"));
        assert_eq!(row[1..3], [&pid, ready], "{table}");
    }
    assert!(table.contains("tcp 0.0.0.0:8080 ×2"), "{table}");

    let list: Value = serde_json::from_str(&stdout(site, &["ls", "--json"])).expect("JSON");
    let list = list.as_array().expect("a list");
    let listed: BTreeSet<&str> = list.iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(listed, BTreeSet::from(names));
    assert!(list.iter().all(|it| it["status"]["workers"].is_array()));

    for verb in VERBS_OF_A_LAUNCHER {
        let said = failure(site, verb, "several run: ");
        let unknown = [verb, &["unknown"]].concat();
        let unknown = failure(site, &unknown, "no launcher named unknown runs");
        for name in names {
            assert!(said.contains(name), "{said}");
            assert!(unknown.contains(name), "{unknown}");
        }
    }
    for name in names {
        stdout(site, &["stop", name]);
    }
    assert_eq!(stdout(site, &["ls"]), "no launcher runs\n");
}

#[test]
fn stop_returns_when_all_is_gone() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = fleet();
    let site = launcher.site.clone();
    assert_eq!(stdout(&site, &["stop", site.name()]), "");
    let cgroup = site.cgroup().expect("the launcher has found it");
    assert!(!cgroup.exists());
    for file in ["sock", "state"] {
        let path = site.runtime_dir().join(format!("{}.{file}", site.name()));
        assert!(!path.exists(), "{}", path.display());
    }
    let finished = launcher.process.finish();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("because of a stop request"),
        "{}",
        finished.stderr
    );
}

#[test]
fn messages_can_be_had_in_json() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "2", "--log-format", "json"])
        .ready();
    for line in launcher.process.lines() {
        let message: Value = serde_json::from_str(&line.text).expect("nothing but JSON");
        assert_eq!(message["level"], "INFO", "{message}");
        assert!(message["timestamp"].is_string(), "{message}");
        assert!(message["fields"]["message"].is_string(), "{message}");
    }
    assert_eq!(launcher.stop(), 0);
}
