//! The load generator of `bench`, by its hidden verb: what it says of real servers, and what the
//! kernel has counted meanwhile.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use kernel_tests::{
    client, gate,
    launcher::{Launch, Launcher, binary},
    procfs::Handle,
    servers,
};
use serde_json::{Value, json};

const PORT: u16 = 8080;
/// Fewer than fit into the queue of the Python server, which is 5 long. A SYN that is sent again would
/// be counted again.
const CLIENTS: u32 = 4;
const ERRORS: [&str; 6] = ["refused", "reset", "closed", "timeout", "bad", "other"];

/// A generator. Dropped, it is killed.
struct Generator(Child);

impl Generator {
    fn start(line: &str) -> Self {
        let mut child = Command::new(binary())
            .arg("__bench-load")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut stdin = child.stdin.take().expect("piped");
        writeln!(stdin, "{line}").expect("it reads");
        child.stdin = Some(stdin);
        Self(child)
    }

    /// Waits for its end with its standard input open: its exit code, and what it wrote.
    fn finish(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        let stdout = self.0.stdout.as_mut().expect("piped");
        stdout.read_to_string(&mut out).expect("text");
        let stderr = self.0.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut err).expect("text");
        // Not with `Child::wait`, which closes its standard input first.
        Handle::of(self.0.id()).wait();
        let status = self.0.try_wait().expect("our child");
        let code = status.expect("it has ended").code();
        (code, out, err)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn closed(connections: u32) -> Value {
    json!({"kind": "closed", "connections": connections})
}

fn open(rate: f64, connections: u32) -> Value {
    json!({"kind": "open", "rate": rate, "connections": connections})
}

fn spec(to: &str, shape: &str, pace: Value) -> Value {
    json!({
        "address": to, "path": "/", "shape": {"kind": shape, "requests": 10}, "pace": pace,
        "warmup": 0.0, "seconds": 0.5, "timeout": 20.0, "cpus": [], "seed": 1,
    })
}

/// Sends a load. Each of its requests was answered or lost.
#[track_caller]
fn load(spec: &Value) -> Value {
    let (code, out, err) = Generator::start(&spec.to_string()).finish();
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let result: Value = serde_json::from_str(&out).expect("it writes JSON");
    let errors = ERRORS.map(|kind| result["errors"][kind].as_u64().expect(kind));
    let ended = number(&result, "answered") + errors.iter().sum::<u64>();
    assert_eq!(number(&result, "sent"), ended, "{result}");
    assert!(ended > 0, "{result}");
    result
}

fn number(result: &Value, name: &str) -> u64 {
    result[name].as_u64().expect(name)
}

#[track_caller]
fn assert_no_errors(result: &Value) {
    assert_eq!(result["sent"], result["answered"], "{result}");
}

fn launch(command: Vec<String>) -> Launcher {
    let launcher = Launch::of(command).options(["--workers", "2"]).start();
    launcher.ready();
    launcher
}

/// Loads a server in each way. No request is lost, and the connections are those that the kernel has
/// seen.
#[track_caller]
fn in_each_way(command: Vec<String>, to: &str, keeps: bool) {
    let launcher = launch(command);
    for shape in ["connection", "keep-alive", "long-lived"] {
        for pace in [closed(CLIENTS), open(200.0, CLIENTS)] {
            let before = launcher.status().counter(PORT, "selected_total");
            let result = load(&spec(to, shape, pace));
            assert_no_errors(&result);
            let seen = launcher.status().counter(PORT, "selected_total") - before;
            assert_eq!(number(&result, "connections"), seen, "{shape}: {result}");
            let sent = number(&result, "sent");
            match (shape, keeps) {
                ("keep-alive", true) => assert!((sent / 10..=sent / 10 + 8).contains(&seen)),
                ("long-lived", true) => assert_eq!(seen, u64::from(CLIENTS)),
                _ => assert_eq!(seen, sent),
            }
        }
    }
    launcher.stop_clean();
}

#[test]
fn node() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    in_each_way(servers::node(PORT), "127.0.0.1:8080", true);
}

#[test]
fn node_in_chunks_over_ipv6() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let code = "require('node:http').createServer((request, response) => {
        response.write('one, ');
        setImmediate(() => response.end('two'));
    }).listen(8080);";
    let command = [&gate::path_of("node"), "-e", code].map(str::to_owned);
    in_each_way(command.into(), "[::1]:8080", true);
}

#[test]
fn python() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    // It answers as HTTP/1.0, and closes.
    in_each_way(servers::python(PORT), "127.0.0.1:8080", false);
}

#[test]
fn nginx() {
    let Some(_netns) = gate::enter(&["nginx"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    in_each_way(servers::nginx(dir.path(), 2), "127.0.0.1:8080", true);
}

#[test]
fn clients_have_ports_enough() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let ports = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(ports, "40000 40299").expect("the namespace is ours");
    let launcher = launch(servers::node(PORT));
    for to in ["127.0.0.1:8080", "[::1]:8080"] {
        // About 1000 connections, each of which waits out a minute at the server's side.
        let mut spec = spec(to, "connection", open(1000.0, 20));
        spec["seconds"] = 1.0.into();
        let result = load(&spec);
        assert_no_errors(&result);
        assert!(number(&result, "connections") > 800, "{result}");
    }
    launcher.stop_clean();
}

#[test]
fn who_is_not_there_refuses() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let result = load(&spec("127.0.0.1:8080", "connection", open(200.0, 10)));
    assert_eq!(result["errors"]["refused"], result["sent"], "{result}");
    assert_eq!(number(&result, "connections"), 0);
}

#[test]
fn a_page_that_is_missing_is_no_good_answer() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = launch(servers::python(PORT));
    let mut spec = spec("127.0.0.1:8080", "connection", closed(2));
    spec["path"] = "/missing".into();
    let result = load(&spec);
    assert_eq!(result["errors"]["bad"], result["sent"], "{result}");
    launcher.stop_clean();
}

#[test]
fn it_does_not_outlive_its_parent() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = launch(servers::node(PORT));
    let to: SocketAddr = client::address("127.0.0.1:8080");
    let mut spec = spec(&to.to_string(), "connection", closed(2));
    spec["seconds"] = 3600.0.into();
    let mut generator = Generator::start(&spec.to_string());
    launcher.status_when("the load has begun", |status| {
        status.counter(PORT, "selected_total") > 10
    });
    // This end of the pipe is closed by the kernel when the parent is killed.
    drop(generator.0.stdin.take());
    Handle::of(generator.0.id()).wait();
    launcher.stop_clean();
}

#[test]
fn what_it_is_told_is_checked() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let with = |name: &str, value: Value| {
        let mut spec = spec("127.0.0.1:8080", "connection", closed(1));
        spec[name] = value;
        spec.to_string()
    };
    for line in [
        String::new(),
        "nonsense".to_owned(),
        with("path", "/ HTTP/1.1\r\nX: 1\r\n".into()),
        with("address", "nowhere".into()),
        with("pace", closed(0)),
        with("pace", open(0.0, 1)),
        with("seconds", (-1.0).into()),
        with("timeout", 1e300.into()),
        with("cpus", json!([100_000])),
        // No machine has that many.
        with("cpus", json!([1023])),
    ] {
        let (code, out, err) = Generator::start(&line).finish();
        assert_eq!((code, out.as_str()), (Some(1), ""), "{line}");
        assert!(
            err.starts_with("error: ") && err.contains("\n  → "),
            "{line}: {err}"
        );
    }
}
