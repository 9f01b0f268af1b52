//! `--metrics`: a page that Prometheus' own programs read, with the right numbers on it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
};

use kernel_tests::{
    client, eventually, gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    process::Process,
    servers,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const METRICS: &str = "127.0.0.1:9100";
const OPEN_METRICS: &str = "application/openmetrics-text";

/// Two workers of node on port 8080.
fn node() -> Launch {
    Launch::of(servers::node(8080)).options(["--workers", "2", "--metrics", "9100"])
}

/// Asks a launcher over this connection: the head of its answer, and the body.
#[track_caller]
fn ask(mut connection: impl Read + Write, path: &str, accept: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .expect("it reads the request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn page() -> String {
    let connection = TcpStream::connect(METRICS).expect("it listens");
    let (head, body) = ask(connection, "/metrics", "*/*");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body
}

/// The sum of a page's samples of this name whose labels contain this.
fn sum(page: &str, name: &str, labels: &str) -> f64 {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("reuseport_launch_")?.strip_prefix(name)?;
        let (found, value) = rest.rsplit_once(' ')?;
        let is_it = found.is_empty() || found.starts_with('{');
        (is_it && found.contains(labels)).then(|| value.parse::<f64>().expect("a number"))
    });
    samples.sum()
}

/// Whether the launcher is ready, by its own word.
fn readiness() -> u16 {
    let to = client::address(METRICS);
    client::get_path(to, "/-/ready").map_or(0, |response| response.status)
}

#[track_caller]
fn promtool_accepts(page: &str) {
    let mut promtool = Command::new(gate::path_of("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool was found");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(page.as_bytes()).expect("it reads the page");
    drop(stdin);
    let output = promtool.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
}

#[test]
fn promtool_accepts_the_page_and_its_sums_are_right_under_load() {
    let Some(_netns) = gate::enter(&["node", "promtool"]) else {
        return;
    };
    let launcher = node().ready();
    assert_eq!(readiness(), 200);
    let load = OpenLoad::start(client::address("127.0.0.1:8080"), 300);
    load.wait_for(200);
    promtool_accepts(&page());
    load.wait_for(200);
    let report = load.stop();
    report.assert_nothing_lost();
    let page = page();
    promtool_accepts(&page);
    let sent = report.sent() as f64;
    let port = "protocol=\"tcp\",address=\"::\",port=\"8080\"";
    assert_eq!(sum(&page, "selected_total", port), sent, "{page}");
    assert_eq!(sum(&page, "connections_total", "slot="), sent);
    for slot in ["slot=\"0\"", "slot=\"1\""] {
        assert!((sum(&page, "connections_total", slot) - sent / 2.0).abs() <= 1.0);
        assert!(sum(&page, "cpu_seconds_total", slot) > 0.0);
        assert!(sum(&page, "memory_bytes", slot) > f64::from(1 << 20));
        assert_eq!(sum(&page, "worker_state", slot), 1.0);
    }
    for (name, value) in [
        ("worker_state{slot=\"1\",state=\"ready\"}", 1.0),
        ("ready_workers", 2.0),
        ("slots", 2.0),
        ("group_members", 2.0),
        ("accept_queue", 0.0),
        ("fell_through_total", 0.0),
        ("restarts_total", 0.0),
    ] {
        assert_eq!(sum(&page, name, ""), value, "{name}\n{page}");
    }
    launcher.stop_clean();
}

#[test]
fn counters_go_on_through_reloads_crashes_policies_upgrades_and_takeovers() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let mut launcher = node().ready();
    let site = launcher.site.clone();
    let mut sent = 0.0;
    let mut cpu = 0.0;
    let mut checked = |what: &str| {
        client::spread(client::address("127.0.0.1:8080"), 20);
        sent += 20.0;
        let page = page();
        assert_eq!(sum(&page, "selected_total", ""), sent, "{what}\n{page}");
        assert_eq!(sum(&page, "connections_total", ""), sent, "{what}\n{page}");
        let used = sum(&page, "cpu_seconds_total", "");
        assert!(used >= cpu, "{what}: {cpu} {used}");
        cpu = used;
        page
    };
    checked("at first");
    launcher.reload();
    let after = checked("after a reload");
    let reloads = "reload_duration_seconds_count";
    assert_eq!(sum(&after, reloads, "outcome=\"done\""), 1.0);
    assert!(sum(&after, "reload_duration_seconds_sum", "outcome=\"done\"") > 0.0);
    assert_eq!(sum(&after, "restarts_total", "reason=\"reload\""), 2.0);

    let pid = launcher.status().pid(0);
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("our worker");
    launcher.replaced(0, 3);
    let after = checked("after a crash");
    let crashed = sum(&after, "restarts_total", "slot=\"0\",reason=\"exited\"");
    assert_eq!(crashed, 1.0, "{after}");

    // Nothing counts under it, so nobody connects meanwhile.
    launcher.ask(&["steer", "kernel"]);
    launcher.ask(&["steer", "random"]);
    checked("after another policy");

    launcher.ask(&["upgrade"]);
    checked("after an upgrade");
    launcher.process.signal(Signal::SIGKILL);
    launcher.process.wait();
    let next = node().at(&site).ready();
    let after = checked("after a takeover");
    assert_eq!(sum(&after, "restarts_total", "reason=\"reload\""), 2.0);
    assert_eq!(sum(&after, reloads, "outcome=\"done\""), 1.0);
    drop(launcher);
    next.stop_clean();
}

/// Asks a Prometheus for the value of an expression; `None`: it has none yet.
fn query(expression: &str) -> Option<String> {
    let path = format!("/api/v1/query?query={expression}");
    let response = client::get_path(client::address("127.0.0.1:9090"), &path).ok()?;
    let answer: serde_json::Value = serde_json::from_str(&response.body).ok()?;
    let value = answer["data"]["result"][0]["value"][1].as_str()?;
    Some(value.to_owned())
}

#[test]
fn prometheus_itself_reads_the_page() {
    let Some(_netns) = gate::enter(&["node", "prometheus"]) else {
        return;
    };
    let launcher = node().ready();
    client::spread(client::address("127.0.0.1:8080"), 30);
    let connection = TcpStream::connect(METRICS).expect("it listens");
    let (head, body) = ask(connection, "/metrics", OPEN_METRICS);
    assert!(head.contains("application/openmetrics-text; version=1.0.0"));
    assert!(body.ends_with("\n# EOF\n"), "{body}");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\nscrape_configs:\n  - job_name: a\n    static_configs:\n      - targets: ['{METRICS}']\n"
    );
    fs::write(&config, text).expect("the test's own directory");
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let prometheus = Process::spawn(Command::new(gate::path_of("prometheus")).args([
        flag("config.file", &config),
        flag("storage.tsdb.path", &dir.path().join("data")),
        "--web.listen-address=127.0.0.1:9090".to_owned(),
    ]));
    let selected = eventually("Prometheus to have the page", || {
        query("reuseport_launch_selected_total")
    });
    assert_eq!(selected, "30");
    assert_eq!(query("up").as_deref(), Some("1"));
    assert_eq!(
        query("reuseport_launch_ready_workers").as_deref(),
        Some("2")
    );
    drop(prometheus);
    launcher.stop_clean();
}

#[test]
fn readiness_follows_the_workers() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let go = dir.path().join("go");
    // It listens when the file is there.
    let script = format!(
        "import os, socket, time, http.server as h\n\
         while not os.path.exists({:?}): time.sleep(0.01)\n\
         h.HTTPServer(('127.0.0.1', 8080), h.SimpleHTTPRequestHandler).serve_forever()",
        go.display().to_string()
    );
    let launcher = Launch::of([gate::path_of("python3"), "-c".to_owned(), script])
        .options(["--metrics", METRICS, "--workers", "1"])
        .start();
    eventually("an answer", || (readiness() == 503).then_some(()));
    let to = client::address(METRICS);
    let get = |path: &str| client::get_path(to, path).expect("an answer");
    assert_eq!(get("/-/healthy").status, 200);
    assert_eq!(get("/-/ready").body, "0 of 1 workers ready\n");
    assert_eq!(get("/").status, 404);
    fs::write(&go, "").expect("the test's own directory");
    eventually("a ready worker", || (readiness() == 200).then_some(()));
    launcher.stop_clean();
    assert_eq!(readiness(), 0);
}

/// A launcher that can't have its metrics, and the worker that it must not start.
#[track_caller]
fn refused(metrics: &str, why: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let started = dir.path().join("started");
    let command = [gate::path_of("touch"), started.display().to_string()];
    let finished = Launch::of(command).options(["--metrics", metrics]).run();
    finished.assert_error(1, &format!("cannot serve metrics on {metrics}: {why}"));
    assert!(!started.exists(), "a worker was started");
}

#[test]
fn what_is_wrong_with_the_address_is_known_before_a_worker_starts() {
    let Some(_netns) = gate::enter(&["touch"]) else {
        return;
    };
    let _holder = TcpListener::bind(METRICS).expect("a free port");
    refused(METRICS, "somebody else listens there");
    refused("192.0.2.1:9100", "the address is none of this machine's");
    refused("unix:/none/m.sock", "its directory does not exist");
    let wrong = Launch::of(["true"]).options(["--metrics", "here"]).run();
    assert_eq!(wrong.code(), 2);
    assert!(wrong.stderr.contains("allowed: a port"), "{}", wrong.stderr);
}

#[test]
fn slow_clients_delay_nobody_and_a_socket_file_is_served_too() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("m.sock");
    let metrics = format!("unix:{}", path.display());
    let options = ["--workers", "1", "--metrics", &metrics];
    let launch = || Launch::of(servers::node(8080)).options(options);
    let mut launcher: Launcher = launch().ready();
    let site = launcher.site.clone();
    let connect = || UnixStream::connect(&path).expect("it listens");
    let (head, body) = ask(connect(), "/metrics", "*/*");
    assert!(head.contains("200 OK") && body.contains("reuseport_launch_slots 1\n"));

    // They say nothing, half of a request, or do not read the answer.
    let mut slow: Vec<UnixStream> = (0..30).map(|_| connect()).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        let text = ["", "GET /met", "GET /metrics HTTP/1.1\r\n\r\n"][number % 3];
        client.write_all(text.as_bytes()).expect("it listens");
    }
    client::spread(client::address("127.0.0.1:8080"), 5);
    let (_, body) = ask(connect(), "/metrics", "*/*");
    assert_eq!(sum(&body, "selected_total", ""), 5.0, "{body}");
    launcher.status().assert_selected(8080, 5);
    let mut long = connect();
    let head = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(9_000));
    long.write_all(head.as_bytes()).expect("it listens");
    let mut answer = String::new();
    long.read_to_string(&mut answer).expect("UTF-8");
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    // The file of one that was killed is replaced; that of one that runs is not.
    let other = Launch::of(servers::node(8081)).options(["--metrics", &metrics]);
    let why = format!("cannot serve metrics on {metrics}: somebody else listens there");
    other.run().assert_error(1, &why);
    launcher.process.signal(Signal::SIGKILL);
    launcher.process.wait();
    assert!(path.exists());
    let next = launch().at(&site).ready();
    let (head, _) = ask(connect(), "/-/ready", "*/*");
    assert!(head.contains("200 OK"), "{head}");
    drop(launcher);
    next.stop_clean();
    assert!(!path.exists());
}
