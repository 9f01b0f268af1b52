//! The command line, as an operator writes it.

use std::{ffi::OsString, time::Duration};

use clap::CommandFactory as _;

use super::*;
use crate::{
    fleet::placement::{Pinning, Workers},
    policy::{Policy, Prefixes},
};

fn parsed(line: &str) -> Result<Invocation, clap::Error> {
    let args = std::iter::once("reuseport-launch").chain(line.split_whitespace());
    parse(args.map(OsString::from))
}

fn run(line: &str) -> Run {
    match parsed(line).unwrap().verb {
        Verb::Run(run) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

/// The message of a usage error, which must exit with 2.
fn refused(line: &str) -> String {
    let error = parsed(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}: {error}");
    error.to_string()
}

#[test]
fn definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn run_is_the_default_verb() {
    for line in [
        "-w 3 -- python3 -m http.server",
        "run -w 3 -- python3 -m http.server",
    ] {
        let run = run(line);
        assert_eq!(run.workers, Workers::Count(3));
        assert_eq!(run.command, ["python3", "-m", "http.server"]);
    }
}

#[test]
fn defaults() {
    let run = run("-- ./server status");
    assert_eq!(run.workers, Workers::Auto);
    assert_eq!(run.pin, Pinning::None);
    assert_eq!((run.steer, run.steer_udp), (None, None));
    // Longer than clients are silent that mean to stay: in QUIC half of the usual idle time-out of 30 s,
    // in STUN 5 s. Shorter than the drain's time-out, so that a drain ends by itself.
    let flows = TimeLimit(Some(Duration::from_secs(20)));
    assert_eq!((run.udp_flow_timeout, run.udp_flows), (flows, 65_536));
    assert_eq!(run.ports, []);
    assert_eq!(run.stop_signal.number(), 15);
    assert_eq!(run.stop_timeout, Duration::from_secs(8));
    assert_eq!(run.ready, Ready::Listen);
    assert_eq!(run.ready_timeout, Duration::from_secs(30));
    assert_eq!(run.health, None);
    assert_eq!(run.stall_timeout, TimeLimit(Some(Duration::from_secs(2))));
    assert_eq!(run.drain_timeout, TimeLimit(Some(Duration::from_secs(30))));
    assert_eq!((run.max_surge, run.no_hold, run.ipc), (1, false, None));
    assert_eq!(
        (run.max_connections, run.max_memory, run.max_age),
        (None, None, None)
    );
    assert_eq!((run.chdir, run.env_file), (None, None));
    assert_eq!(run.log_format, LogFormat::Auto);
    assert_eq!((run.log_lines, run.log_file), (1_000, None));
    assert_eq!(
        (run.name, run.user, run.group, run.verbose),
        (None, None, None, 0)
    );
    assert_eq!(run.command, ["./server", "status"]);
}

#[test]
fn every_option() {
    let run = run(
        "--workers 2 --steer hash --steer-udp source:24/56 --pin auto --port 80 --port 53/udp --name web \
         --stop-signal sigquit --stop-timeout 500ms --user www --group 33 --log-format json -vv \
         --chdir /srv --env-file web.env --ipc node --no-hold --ready http:/ready \
         --ready-timeout 1m --health tcp --health-interval 1s --health-timeout 500ms \
         --health-threshold 2 --stall-timeout off --drain-timeout infinite --max-surge 2 \
         --max-connections 100000 --max-memory 512M --max-age 7d --log-lines 0 \
         --log-file logs/{slot}.log --log-max-size 2M --log-keep 1 -- x",
    );
    assert_eq!(run.log_lines, 0);
    assert_eq!(run.log_file.as_deref(), Some("logs/{slot}.log"));
    assert_eq!((run.log_max_size, run.log_keep), (2 << 20, 1));
    assert_eq!(run.chdir, Some("/srv".into()));
    assert_eq!(run.env_file, Some("web.env".into()));
    assert_eq!((run.ipc, run.no_hold), (Some(Ipc::Node), true));
    assert_eq!(run.ready, Ready::Http("/ready".into()));
    assert_eq!(run.ready_timeout, Duration::from_secs(60));
    assert_eq!(run.health, Some(Check::Tcp));
    assert_eq!(run.health_interval, Duration::from_secs(1));
    assert_eq!(run.health_timeout, Duration::from_millis(500));
    assert_eq!(run.health_threshold, 2);
    assert_eq!(run.stall_timeout, TimeLimit(None));
    assert_eq!(run.drain_timeout, TimeLimit(None));
    assert_eq!(run.max_surge, 2);
    assert_eq!(run.max_connections, Some(100_000));
    assert_eq!(run.max_memory, Some(512 << 20));
    assert_eq!(run.max_age, Some(Duration::from_hours(7 * 24)));
    assert_eq!(run.steer, Some(Policy::Hash));
    let prefixes = Prefixes { v4: 24, v6: 56 };
    assert_eq!(run.steer_udp, Some(Policy::Source(prefixes)));
    assert_eq!(run.pin, Pinning::Auto);
    let ports: Vec<String> = run.ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["80/tcp", "53/udp"]);
    assert_eq!(run.name.unwrap().as_str(), "web");
    assert_eq!(run.stop_signal.number(), 3);
    assert_eq!(run.stop_timeout, Duration::from_millis(500));
    assert_eq!(
        (run.user.as_deref(), run.group.as_deref()),
        (Some("www"), Some("33"))
    );
    assert_eq!((run.log_format, run.verbose), (LogFormat::Json, 2));
}

#[test]
fn a_command_stands_behind_two_dashes() {
    refused("./server");
    assert!(run("-w 2").command.is_empty(), "the file may have one");
}

#[test]
fn what_was_given_is_known_by_its_words() {
    let given = |line: &str| {
        let given = parsed(line).unwrap().given.into_iter();
        let words = given.map(|Setting { key, values }| {
            let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
            format!("{key}={}", values.join(","))
        });
        words.collect::<Vec<_>>()
    };
    let line = "-w 4 --port 80 --port 53/udp --no-hold -vv --max-memory 1G -- x";
    let words = [
        "workers=4",
        "port=80,53/udp",
        "no-hold=true",
        "max-memory=1G",
        "verbose=2",
    ];
    for verb in ["", "run ", "check ", "print-config --json "] {
        assert_eq!(given(&format!("{verb}{line}")), words, "{verb}");
    }
    assert_eq!(
        given("--no-hold=false --config f.toml -- x"),
        ["no-hold=false"]
    );
    assert!(given("status").is_empty());
    let settings = parsed(line).unwrap().given;
    let again = options(&settings, &["x".into()]).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", run(line)));
}

#[test]
fn wrong_values_say_what_is_allowed() {
    for (line, option, allowed) in [
        ("--workers 0 -- x", "--workers", "auto"),
        ("run --workers 0 -- x", "--workers", "auto"),
        (
            "--workers 257 -- x",
            "--workers",
            "more than a fleet can have; allowed: auto, or 1 to 256",
        ),
        ("-w 99999999999 -- x", "--workers", "or 1 to 256"),
        ("--steer nope -- x", "--steer", "round-robin"),
        (
            "--steer least-con -- x",
            "--steer",
            "similar value exists: 'least-conn'",
        ),
        ("--steer source:33/64 -- x", "--steer", "at most 32 and 128"),
        ("--steer source:24 -- x", "--steer", "V4/V6"),
        (
            "--steer-udp least-conn -- x",
            "--steer-udp",
            "no connections that could be counted",
        ),
        (
            "--steer-udp rondom -- x",
            "--steer-udp",
            "similar value exists: 'random'",
        ),
        ("--pin x -- x", "--pin", "none"),
        ("--port 0 -- x", "--port", "port 0 lets the kernel pick"),
        ("--name a/b -- x", "--name", "A-Z"),
        ("--stop-signal NOPE -- x", "--stop-signal", "TERM"),
        ("--stop-timeout soon -- x", "--stop-timeout", "500ms"),
        ("--log-format xml -- x", "--log-format", "json"),
        ("--ready soon -- x", "--ready", "http:PATH"),
        (
            "--ready http:ready -- x",
            "--ready",
            "does not start with /",
        ),
        ("--ready-timeout 0 -- x", "--ready-timeout", "from 1ms"),
        ("--health listen -- x", "--health", "http:PATH"),
        (
            "--health http:health -- x",
            "--health",
            "does not start with /",
        ),
        (
            "--health tcp --health-interval 0 -- x",
            "--health-interval",
            "from 1ms",
        ),
        (
            "--health tcp --health-threshold 0 -- x",
            "--health-threshold",
            "from 1",
        ),
        ("--stall-timeout never -- x", "--stall-timeout", "or off"),
        ("--drain-timeout off -- x", "--drain-timeout", "or infinite"),
        ("--max-surge 0 -- x", "--max-surge", "from 1"),
        ("--max-connections 0 -- x", "--max-connections", "from 1"),
        ("--max-memory 1K -- x", "--max-memory", "512M"),
        ("--max-age 0 -- x", "--max-age", "365d"),
        ("--ipc cluster -- x", "--ipc", "node"),
        ("--log-lines 100001 -- x", "--log-lines", "0 to 100000"),
        (
            "--log-file x --log-max-size 1K -- x",
            "--log-max-size",
            "from 1M",
        ),
        ("--log-file x --log-keep 101 -- x", "--log-keep", "0 to 100"),
        ("--log-keep 1 -- x", "--log-file", "required"),
        ("status a/b", "[NAME]", "A-Z"),
        ("top --interval 99ms", "--interval", "100ms to 24h"),
        ("logs 256", "SLOT", "0 to 255"),
        ("logs a/b", "SLOT", "A-Z"),
        ("scale 0", "N", "1 to 256"),
        ("scale 257", "N", "1 to 256"),
        ("restart one", "SLOT", "0 to 255"),
        ("drain -1", "-1", "unexpected argument"),
        ("undrain 256", "SLOT", "0 to 255"),
        ("hint 256 1", "SLOT", "0 to 255"),
        ("hint 0 much", "VALUE", "0 to 18446744073709551615"),
        ("send some 1", "all|SLOT", "or all"),
        ("send all hello", "JSON", "a JSON value"),
        (
            "reload --drain-timeout off",
            "--drain-timeout",
            "or infinite",
        ),
    ] {
        let message = refused(line);
        assert!(
            message.contains(option) && message.contains(allowed),
            "{line}: {message}"
        );
    }
}

#[test]
fn options_of_run_do_not_stand_before_another_verb() {
    for line in ["-w 2 status", "-v ls", "--port 80 run -- x"] {
        refused(line);
    }
    let message = refused("-w 2 status");
    assert!(
        message.contains("--workers") && message.contains("`status`"),
        "{message}"
    );
}

#[test]
fn the_runtime_directory_goes_anywhere() {
    for line in [
        "--runtime-dir /d ls",
        "ls --runtime-dir /d",
        "--runtime-dir /d -- x",
        "run --runtime-dir=/d -- x",
    ] {
        let invocation = parsed(line).unwrap();
        assert_eq!(invocation.runtime_dir, Some("/d".into()), "{line}");
    }
}

#[test]
fn verbs() {
    let verb = |line| parsed(line).unwrap().verb;
    assert!(matches!(
        verb("status"),
        Verb::Status {
            name: None,
            json: false
        }
    ));
    assert!(
        matches!(verb("status web --json"), Verb::Status { name: Some(name), json: true } if name.as_str() == "web")
    );
    assert!(matches!(verb("ls --json"), Verb::Ls { json: true }));
    assert!(matches!(
        verb("top"),
        Verb::Top { name: None, interval } if interval == Duration::from_secs(1)
    ));
    let of = |line| match verb(line) {
        Verb::Logs { of, name, .. } => (of, name.map(|name| name.to_string())),
        other => panic!("{other:?}"),
    };
    let slot = |slot| Some(SlotOrName::Slot(Target(slot)));
    assert_eq!(of("logs -f"), (None, None));
    assert_eq!(of("logs 3"), (slot(Some(3)), None));
    assert_eq!(of("logs all 8080"), (slot(None), Some("8080".into())));
    let web = Some(SlotOrName::Name("web".parse().unwrap()));
    assert_eq!(of("logs web"), (web, None));
    assert!(matches!(verb("stop web"), Verb::Stop { name: Some(_) }));
    assert!(matches!(
        verb("reload web --drain-timeout 5s"),
        Verb::Reload { name: Some(_), drain_timeout: Some(TimeLimit(Some(time))) } if time.as_secs() == 5
    ));
    assert!(matches!(
        verb("scale 4"),
        Verb::Scale {
            workers: 4,
            name: None
        }
    ));
    assert!(matches!(
        verb("restart 0 web"),
        Verb::Restart {
            slot: 0,
            name: Some(_)
        }
    ));
    assert!(matches!(
        verb("drain 3"),
        Verb::Drain {
            slot: 3,
            name: None
        }
    ));
    assert!(matches!(
        verb("undrain 3"),
        Verb::Undrain {
            slot: 3,
            name: None
        }
    ));
    assert!(matches!(
        verb("hint 3 18446744073709551615 web"),
        Verb::Hint {
            slot: 3,
            value: u64::MAX,
            name: Some(_)
        }
    ));
    assert!(matches!(verb("upgrade"), Verb::Upgrade { name: None }));
    assert!(matches!(
        verb("send 1 -1 web"),
        Verb::Send { to: Target(Some(1)), message, name: Some(_) } if message == -1
    ));
    assert!(matches!(
        verb("send all {\"do\":[\"this\"]}"),
        Verb::Send { to: Target(None), message, name: None } if message["do"][0] == "this"
    ));
}

#[test]
fn help_shows_options_by_group_and_examples() {
    let error = parsed("--help").unwrap_err();
    assert_eq!(error.exit_code(), 0);
    let help = error.to_string();
    for part in [
        "Verbs:",
        "Workers:",
        "Connections:",
        "Readiness and health:",
        "Reload and drain:",
        "Recycling:",
        "Stopping:",
        "Launcher:",
        "Examples:",
        "WEB_CONCURRENCY",
    ] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
}

#[test]
fn a_benchmark() {
    let bench = |line: &str| match parsed(line).unwrap().verb {
        Verb::Bench(bench) => *bench,
        other => panic!("{line}: {other:?}"),
    };
    let plain = bench("bench");
    assert_eq!((plain.modes.len(), plain.command.len()), (0, 0));
    assert_eq!((plain.workers, plain.rounds), (Workers::Auto, 5));
    assert_eq!((plain.shape, plain.connections), (Shape::Connection, None));
    assert_eq!(
        (plain.load.as_slice(), plain.seconds),
        (&[50, 70, 90][..], None)
    );
    assert_eq!((plain.timeout, plain.time), (Duration::from_secs(2), None));
    assert_eq!((plain.path.as_str(), plain.disturb), ("/", None));
    let full = bench(
        "bench --modes single,reuseport-ebpf:source:24/56 --baseline single -w 2 --load 70 --rounds 3 \
         --shape keep-alive:10 --connections 8 --seconds 0.5 --time 10m --disturb stall --timeout 1s \
         --path /x --json a --svg b --html c --host-network -- node server.js --port 1",
    );
    assert_eq!(full.modes, ["single", "reuseport-ebpf:source:24/56"]);
    assert_eq!(
        (full.baseline.as_deref(), full.workers),
        (Some("single"), Workers::Count(2))
    );
    assert_eq!(
        (full.shape, full.connections),
        (Shape::KeepAlive(10), Some(8))
    );
    assert_eq!(
        (full.seconds, full.time),
        (Some(0.5), Some(Duration::from_secs(600)))
    );
    assert_eq!(
        (full.disturb, full.host_network),
        (Some(Disturb::Stall), true)
    );
    assert_eq!(full.command, ["node", "server.js", "--port", "1"]);
    assert_eq!(bench("bench --spin-us 5000").spin_us, Some(5000));
    for line in [
        "bench ./server",
        "bench --spin-us 1 --mix 1:none",
        "bench --sleep-us 1 -- ./server",
        "bench --path index.html",
        "-w 2 bench",
    ] {
        refused(line);
    }
}
