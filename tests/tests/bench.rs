//! `reuseport-launch bench`: what it reports, what it refuses, and that nothing of it is left.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use kernel_tests::{
    eventually, gate,
    launcher::binary,
    process::{Finished, Process},
    servers,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Every process of a benchmark has this variable, with a value of its own.
const MARK: &str = "TEST_BENCH_MARK";

/// A benchmark to be run, with a temporary directory of its own.
struct Bench {
    mark: String,
    scratch: TempDir,
}

impl Bench {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            mark: format!("{}-{number}", process::id()),
            scratch: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A file in a directory that is empty at first.
    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// `words` are options, or a wrapper's command line that ends with the binary.
    fn start_through<S: AsRef<str>>(&self, wrapper: &[String], words: &[S]) -> Process {
        let mut line: Vec<String> = wrapper.to_vec();
        let binary = binary().to_str().expect("a path in UTF-8");
        line.extend([binary.to_owned(), "bench".to_owned()]);
        line.extend(words.iter().map(|word| word.as_ref().to_owned()));
        let (program, arguments) = line.split_first().expect("the binary at least");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(MARK, &self.mark)
            .env("TMPDIR", self.scratch.path())
            .env_remove("WEB_CONCURRENCY");
        Process::spawn(&mut command)
    }

    fn start<S: AsRef<str>>(&self, words: &[S]) -> Process {
        self.start_through(&[], words)
    }

    /// Runs it to its end, after which nothing of it may be left.
    #[track_caller]
    fn run<S: AsRef<str>>(&self, words: &[S]) -> Finished {
        let bench = self.start(words);
        let pid = bench.pid();
        let finished = bench.finish();
        self.assert_nothing_left(pid);
        finished
    }

    /// The processes of it that run.
    fn processes(&self) -> BTreeSet<u32> {
        let wanted = format!("{MARK}={}", self.mark);
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let marked = pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let mut variables = environment.split(|byte| *byte == 0);
            variables.any(|variable| variable == wanted.as_bytes())
        });
        marked.collect()
    }

    /// Checks that no process, cgroup, pinned map or temporary file is left.
    #[track_caller]
    fn assert_nothing_left(&self, pid: u32) {
        assert_eq!(self.processes(), BTreeSet::new(), "processes are left");
        assert_eq!(fleets(pid), Vec::<PathBuf>::new());
        let entries = fs::read_dir(self.scratch.path()).expect("it is there");
        let names = entries.map(|entry| entry.expect("readable").file_name());
        let names: Vec<String> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let ours = names
            .iter()
            .filter(|name| name.starts_with('.') || name.contains("reuseport"));
        assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
    }
}

/// The cgroups and pins of launchers that the benchmark with this pid has started.
fn fleets(pid: u32) -> Vec<PathBuf> {
    let prefixes = [
        format!("reuseport-launch.bench-{pid}-"),
        format!("bench-{pid}-"),
    ];
    let own = kernel_tests::cgroup::of_fleet("none");
    let places = [
        own.as_deref().and_then(Path::parent),
        Some(Path::new("/sys/fs/bpf/reuseport-launch")),
    ];
    let entries = places
        .into_iter()
        .flatten()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten();
    let paths = entries.map(|entry| entry.path());
    let named = paths.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    });
    named.collect()
}

/// Short rounds with two workers.
const SHORT: [&str; 6] = ["--seconds", "0.3", "--rounds", "1", "--workers", "2"];

fn short(words: &[&str]) -> Vec<String> {
    SHORT
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .collect()
}

fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("the report was written");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The modes of a report, by name.
fn mode<'a>(report: &'a Value, name: &str) -> &'a Value {
    let modes = report["modes"].as_array().expect("a list");
    let found = modes.iter().find(|mode| mode["mode"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#}"))
}

/// Every round of every level of a mode.
fn rounds(mode: &Value) -> Vec<&Value> {
    let levels = mode["measured"].as_array().expect("a list").iter();
    levels
        .flat_map(|level| level["rounds"].as_array().expect("a list"))
        .collect()
}

/// How often each worker was chosen, as it says itself.
fn by_worker(round: &Value) -> Vec<u64> {
    let counts = round["load"]["by_worker"].as_array().expect("a list");
    counts
        .iter()
        .map(|count| count.as_u64().expect("a count"))
        .collect()
}

fn notes(report: &Value) -> String {
    let notes = report["notes"].as_array().expect("a list").iter();
    notes
        .map(|note| format!("{}\n", note.as_str().expect("a text")))
        .collect()
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_starts() {
    let bench = Bench::new();
    for (words, told) in [
        (
            &["--modes", "fastest"][..],
            "unknown mode; allowed: single, ",
        ),
        (
            &["--modes", "reuseport-ebpf:fastest"],
            "reuseport-ebpf:least-conn",
        ),
        (&["--baseline", "fastest"], "unknown mode"),
        (
            &["--modes", "master-dispatch", "--", "true"],
            "leave the COMMAND out",
        ),
        (&["--mix", "90:rest"], "spin1000"),
        (&["--json", "/none/report.json"], "/none/report.json"),
        (&["--html", "/"], "cannot write the report /"),
    ] {
        let finished = bench.run(words);
        finished.assert_error(2, told);
        assert_eq!(finished.stdout, "", "{words:?}");
    }
    for (words, told) in [
        (&["--load", "0"][..], "from 1 to 100"),
        (&["--load", "50,101"], "from 1 to 100"),
        (&["--seconds", "0"], "from 0.1 to 3600"),
        (&["--rounds", "0"], "from 1 to 1000"),
        (&["--connections", "0"], "from 1 to 10000"),
        (&["--workers", "0"], "allowed: auto"),
        (&["--shape", "udp"], "keep-alive"),
        (&["--disturb", "reboot"], "reload, kill, stall"),
        (
            &["--spin-us", "1", "--sleep-us", "1"],
            "cannot be used with",
        ),
        (&["--spin-us", "1", "--", "true"], "cannot be used with"),
    ] {
        let finished = bench.run(words);
        assert_eq!(finished.code(), 2, "{words:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(told),
            "{words:?}: {}",
            finished.stderr
        );
        assert_eq!(finished.stdout, "", "{words:?}");
    }
}

#[test]
fn a_report_that_is_there_stays_until_the_next_one_is() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let bench = Bench::new();
    let [json, svg, html] = ["a.json", "a.svg", "a.html"].map(|name| bench.file(name));
    fs::write(&json, "of yesterday").expect("a new directory");
    let path = |file: &Path| file.to_str().expect("a path in UTF-8").to_owned();
    let (json_path, svg_path, html_path) = (path(&json), path(&svg), path(&html));
    let files = [
        "--json", &json_path, "--svg", &svg_path, "--html", &html_path,
    ];
    let refused = [&files[..], &["--modes", "fastest"]].concat();
    bench.run(&refused).assert_error(2, "unknown mode");
    let failing = [&files[..4], &["--modes", "single", "--", "/none/server"]].concat();
    assert_eq!(bench.run(&short(&failing)).code(), 1);
    assert_eq!(
        fs::read_to_string(&json).expect("still there"),
        "of yesterday"
    );
    assert!(!svg.exists());

    let words = [
        &files[..],
        &["--modes", "single,reuseport-kernel", "--load", "50"],
    ]
    .concat();
    let finished = bench.run(&short(&words));
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(read(&json)["baseline"], "single");
    let starts = |file: &Path, with: &str| {
        let text = fs::read_to_string(file).expect("it was written");
        assert!(text.trim_start().to_lowercase().starts_with(with), "{text}");
    };
    starts(&svg, "<svg");
    starts(&html, "<!doctype html");
}

#[test]
fn every_mode_is_measured_with_the_built_in_server() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let bench = Bench::new();
    let file = bench.file("report.json");
    let names = [
        "single",
        "shared-listener",
        "shared-listener-exclusive",
        "master-dispatch",
        "proxy-dispatch",
        "reuseport-kernel",
        "reuseport-ebpf:round-robin",
        "reuseport-ebpf:least-conn",
        "reuseport-ebpf:hash",
        "reuseport-ebpf:source",
        "reuseport-ebpf:cpu",
        "reuseport-ebpf:random",
    ];
    // Little enough that all that is offered is answered, on a busy machine too.
    let words = [
        "--modes",
        &names.join(","),
        "--load",
        "10",
        "--connections",
        "10",
        "--timeout",
        "20s",
        "--json",
        file.to_str().expect("a path in UTF-8"),
    ];
    let finished = bench.run(&short(&words));
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let report = read(&file);
    assert_eq!(report["baseline"], "master-dispatch");
    assert_eq!(report["host"]["own_namespace"], true);
    for name in names {
        assert!(finished.stdout.contains(name), "{}", finished.stdout);
        let mode = mode(&report, name);
        assert_eq!(mode["failed"], Value::Null, "{name}");
        let workers = if name == "single" { 1 } else { 2 };
        assert_eq!(mode["workers"], workers, "{name}");
        let rounds = rounds(mode);
        assert_eq!(rounds.len(), 2, "{name}");
        for round in rounds {
            let load = &round["load"];
            let errors = load["errors"].as_object().expect("by kind");
            assert!(errors.values().all(|count| *count == 0), "{name}: {load}");
            assert!(load["answered"].as_u64() > Some(0), "{name}: {load}");
            assert_eq!(load["sent"], load["answered"], "{name}");
            assert_eq!(
                by_worker(round).iter().sum::<u64>(),
                load["answered"],
                "{name}"
            );
            assert!(
                round["usage"]["workers_cpu"].as_f64() > Some(0.0),
                "{name}: {round}"
            );
        }
    }
    for name in ["master-dispatch", "reuseport-ebpf:round-robin"] {
        for round in rounds(mode(&report, name)) {
            let counts = by_worker(round);
            assert_eq!(counts.len(), 2, "{name}");
            assert!(counts[0].abs_diff(counts[1]) <= 1, "{name}: {counts:?}");
        }
    }
    let widest = finished
        .stdout
        .lines()
        .map(|line| line.chars().count())
        .max();
    assert!(widest <= Some(100), "{}", finished.stdout);
}

#[test]
fn a_server_of_ones_own_is_measured_as_it_is() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let bench = Bench::new();
    let file = bench.file("report.json");
    let mut words = short(&[
        "--load",
        "20",
        "--timeout",
        "20s",
        "--connections",
        "10",
        "--json",
    ]);
    words.push(file.to_str().expect("a path in UTF-8").to_owned());
    words.push("--".to_owned());
    words.extend(servers::node(8080));
    let finished = bench.run(&words);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let report = read(&file);
    assert_eq!(report["baseline"], "single");
    for name in [
        "single",
        "proxy-dispatch",
        "reuseport-kernel",
        "reuseport-ebpf:round-robin",
        "reuseport-ebpf:least-conn",
    ] {
        let mode = mode(&report, name);
        assert_eq!(mode["failed"], Value::Null, "{name}");
        for round in rounds(mode) {
            assert_eq!(round["load"]["sent"], round["load"]["answered"], "{name}");
        }
    }
    assert!(
        report["work"]
            .as_str()
            .is_some_and(|work| work.contains("node.js"))
    );
}

#[test]
fn killed_workers_are_events_with_failed_requests() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let bench = Bench::new();
    let file = bench.file("report.json");
    for disturb in ["reload", "kill", "stall"] {
        let words = [
            "--modes",
            "reuseport-ebpf:round-robin",
            "--load",
            "5",
            "--disturb",
            disturb,
            "--seconds",
            "2",
            "--timeout",
            "20s",
            "--json",
            file.to_str().expect("a path in UTF-8"),
        ];
        let finished = bench.run(&[&["--rounds", "1", "--workers", "2"], &words[..]].concat());
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        let report = read(&file);
        assert_eq!(report["disturb"], disturb);
        let mode = mode(&report, "reuseport-ebpf:round-robin");
        let [peak, load] = rounds(mode)[..] else {
            panic!("two levels: {mode:#}");
        };
        assert_eq!(peak["disturbed"], 0);
        assert!(load["disturbed"].as_u64() > Some(0), "{disturb}: {load}");
        if disturb != "kill" {
            assert_eq!(load["load"]["sent"], load["load"]["answered"], "{disturb}");
        }
    }
}

#[test]
fn a_mode_that_fails_does_not_end_the_others() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let bench = Bench::new();
    let file = bench.file("report.json");
    // Of an abstract socket there is only one: a second copy of it ends at once.
    let code = "import socket\n\
        only = socket.socket(socket.AF_UNIX)\n\
        only.bind('\\0only-one')\n\
        listener = socket.create_server(('0.0.0.0', 8080), backlog=512)\n\
        answer = b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'\n\
        while True:\n\
        \x20   connection, _ = listener.accept()\n\
        \x20   connection.recv(65536)\n\
        \x20   connection.sendall(answer)\n\
        \x20   connection.close()\n";
    let mut words = short(&[
        "--modes",
        "single,reuseport-kernel",
        "--load",
        "10",
        "--json",
    ]);
    words.push(file.to_str().expect("a path in UTF-8").to_owned());
    words.push("--".to_owned());
    words.extend(servers::python_code(code));
    let finished = bench.run(&words);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let report = read(&file);
    assert_eq!(mode(&report, "single")["failed"], Value::Null);
    let failed = mode(&report, "reuseport-kernel")["failed"].as_str();
    assert!(
        failed.is_some_and(|why| why.contains("Address already in use")),
        "{failed:?}"
    );
    assert!(
        finished.stderr.contains("reuseport-kernel failed: "),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_server_that_cannot_be_measured_is_named_with_its_reason() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let bench = Bench::new();
    let modes = ["--modes", "single"];
    for (command, reason) in [
        (&["/none/server"][..], "/none/server"),
        (&["sh", "-c", "echo no database >&2; exit 3"], "no database"),
        (&["sh", "-c", "echo waiting >&2; exec sleep 1000"], "listen"),
    ] {
        let finished = bench.run(&short(&[&modes[..], &["--"], command].concat()));
        finished.assert_error(1, "all modes failed");
        let told = finished.stderr.find("single failed: ");
        let told = told.map_or("", |at| &finished.stderr[at..]);
        assert!(told.contains(reason), "{command:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "nothing was measured");
    }
}

#[test]
fn a_port_that_somebody_has_is_named() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let _taken = TcpListener::bind("0.0.0.0:8080").expect("a namespace of our own");
    let _taken_too = TcpListener::bind("[::]:8080");
    let bench = Bench::new();
    let options = [
        "--host-network",
        "--modes",
        "reuseport-ebpf:round-robin,single",
        "--",
    ];
    let mut words = short(&options);
    words.extend(servers::node(8080));
    let finished = bench.run(&words);
    finished.assert_error(1, "all modes failed");
    for mode in ["single", "reuseport-ebpf:round-robin"] {
        let told = format!("{mode} failed: ");
        let told = finished
            .stderr
            .split_once(&told)
            .map_or("", |(_, told)| told);
        let (reason, _) = told.split_once("\n  → ").unwrap_or_default();
        assert!(reason.contains("8080"), "{mode}: {}", finished.stderr);
    }
    assert_eq!(finished.stdout, "");
}

#[test]
fn with_too_few_cpus_the_report_says_what_that_means() {
    let Some(_netns) = gate::enter(&["taskset"]) else {
        return;
    };
    let bench = Bench::new();
    let file = bench.file("report.json");
    let cpus = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let allowed = cpus
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed
        .and_then(|list| list.trim().split([',', '-']).next())
        .expect("a CPU");
    let taskset = [
        gate::path_of("taskset"),
        "--cpu-list".to_owned(),
        first.to_owned(),
    ];
    let words = [
        "--modes",
        "single,reuseport-kernel",
        "--load",
        "10",
        "--host-network",
        "--json",
    ];
    let mut words = short(&words);
    words.push(file.to_str().expect("a path in UTF-8").to_owned());
    let running = bench.start_through(&taskset, &words);
    let pid = running.pid();
    let finished = running.finish();
    bench.assert_nothing_left(pid);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let report = read(&file);
    assert_eq!(report["host"]["affinity"], 1);
    assert_eq!(report["host"]["own_namespace"], false);
    let notes = notes(&report);
    assert!(notes.contains("1 CPU is shared by 2 workers"), "{notes}");
    assert!(notes.contains("--host-network"), "{notes}");
}

#[test]
fn rounds_that_there_is_no_time_for_are_left_out() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let bench = Bench::new();
    let file = bench.file("report.json");
    let words = [
        "--time",
        "1ms",
        "--rounds",
        "50",
        "--modes",
        "single",
        "--load",
        "10",
        "--seconds",
        "0.2",
        "--json",
        file.to_str().expect("a path in UTF-8"),
    ];
    let finished = bench.run(&words);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let report = read(&file);
    assert_eq!(
        rounds(mode(&report, "single")).len(),
        2,
        "a round of each level"
    );
    assert!(notes(&report).contains("1 of 50 rounds"), "{report:#}");
}

#[test]
fn an_interrupted_benchmark_reports_what_it_has_and_leaves_nothing() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let bench = Bench::new();
        let file = bench.file("report.json");
        let words = [
            "--rounds",
            "900",
            "--seconds",
            "0.3",
            "--workers",
            "2",
            "--modes",
            "single,master-dispatch,reuseport-ebpf:round-robin",
            "--json",
            file.to_str().expect("a path in UTF-8"),
        ];
        let running = bench.start(&words);
        running.wait_for("a round", |line| line.starts_with("round 1 of 900"));
        let pid = running.pid();
        running.signal(signal);
        let finished = running.finish();
        bench.assert_nothing_left(pid);
        finished.assert_error(130, "interrupted by a signal");
        assert!(
            finished.stdout.contains("master-dispatch"),
            "{}",
            finished.stdout
        );
        assert!(
            finished.stdout.contains("interrupted"),
            "{}",
            finished.stdout
        );
        assert!(!file.exists(), "only part of it was measured");
    }
}

#[test]
fn a_benchmark_that_waits_for_a_server_can_be_interrupted_too() {
    let Some(_netns) = gate::enter(&["sleep"]) else {
        return;
    };
    let bench = Bench::new();
    let running = bench.start(&["--modes", "single", "--", "sleep", "1000"]);
    // The benchmark, the launcher with its guard, and the server.
    eventually("the server", || {
        (bench.processes().len() >= 4).then_some(())
    });
    let pid = running.pid();
    running.signal(Signal::SIGINT);
    let finished = running.finish();
    bench.assert_nothing_left(pid);
    finished.assert_error(130, "interrupted by a signal");
    assert_eq!(finished.stdout, "", "nothing was measured");
}

#[test]
fn what_a_killed_benchmark_has_started_ends() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    for mode in [
        "single",
        "master-dispatch",
        "proxy-dispatch",
        "reuseport-ebpf:round-robin",
    ] {
        let bench = Bench::new();
        let running = bench.start(&["--seconds", "60", "--modes", mode, "--workers", "2"]);
        let pid = running.pid();
        // The benchmark, the server, and the generator.
        eventually("the measurement", || {
            (bench.processes().len() >= 3).then_some(())
        });
        running.signal(Signal::SIGKILL);
        drop(running);
        eventually(&format!("the end of {mode}"), || {
            bench.processes().is_empty().then_some(())
        });
        eventually(&format!("the end of the fleets of {mode}"), || {
            fleets(pid).is_empty().then_some(())
        });
    }
}
