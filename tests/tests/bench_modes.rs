//! What `bench` compares, one mode at a time: each serves real requests, spreads them as it says, and
//! leaves nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use kernel_tests::{
    PATIENCE, POLICIES, cgroup,
    client::{self, TIMEOUT},
    eventually, gate,
    launcher::binary,
    procfs::{self, Handle},
    servers,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// The modes in which a master starts built-in workers.
const OF_A_MASTER: [&str; 5] = [
    "single",
    "shared-listener",
    "shared-listener-exclusive",
    "master-dispatch",
    "proxy-dispatch",
];

/// The modes for any server.
const FOR_ANY: [&str; 4] = [
    "single",
    "proxy-dispatch",
    "reuseport-kernel",
    "reuseport-ebpf:round-robin",
];

/// A mode that runs, with its runtime directory. Dropped, it is killed.
struct Served {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    address: SocketAddr,
    _directory: TempDir,
}

fn command(mode: &str, options: &[&str], directory: &Path, server: &[String]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(["__bench-serve", mode, "--runtime-dir"])
        .arg(directory)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if !server.is_empty() {
        command.arg("--").args(server);
    }
    command
}

/// Starts a mode, and waits until it serves.
#[track_caller]
fn serve(mode: &str, options: &[&str], server: &[String]) -> Served {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut child = command(mode, options, directory.path(), server)
        .spawn()
        .expect("the binary runs");
    let input = child.stdin.take();
    let output = child.stdout.take().expect("piped");
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let mut served = Served {
        child,
        input,
        lines,
        address: client::address("127.0.0.1:1"),
        _directory: directory,
    };
    let ready = served.line(mode);
    let address = ready["address"].as_str().expect("an address");
    served.address = client::address(address);
    served
}

/// Starts a mode that is to fail, and returns what it says.
#[track_caller]
fn fails(mode: &str, options: &[&str], server: &[String]) -> String {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = command(mode, options, directory.path(), server)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{mode}: {said}");
    assert_eq!(output.stdout, b"", "{mode}");
    said
}

impl Served {
    #[track_caller]
    fn line(&self, what: &str) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{what}: {line}: {error}"))
    }

    #[track_caller]
    fn ask(&mut self, word: &str) -> Value {
        let input = self.input.as_mut().expect("it has not been stopped");
        writeln!(input, "{word}").expect("it reads");
        let answer = self.line(word);
        assert!(answer.get("error").is_none(), "{word}: {answer}");
        answer
    }

    /// The pids of the workers by slot, where they are ready.
    #[track_caller]
    fn pids(&mut self) -> Vec<Option<u32>> {
        serde_json::from_value(self.ask("pids")).expect("pids")
    }

    /// Handles of all of its processes: the workers, and what has started them.
    #[track_caller]
    fn processes(&mut self) -> Vec<Handle> {
        let mut pids: BTreeSet<u32> = self.pids().into_iter().flatten().collect();
        let mut parents = vec![self.child.id()];
        while let Some(parent) = parents.pop() {
            for child in procfs::children(parent) {
                pids.insert(child);
                parents.push(child);
            }
        }
        pids.into_iter().map(Handle::of).collect()
    }

    /// How many connections each worker got, if the mode counts them.
    #[track_caller]
    fn by_worker(&mut self) -> Option<Vec<u64>> {
        serde_json::from_value(self.ask("usage")["by_worker"].take()).expect("counts")
    }

    /// Which worker answers a request on a new connection.
    #[track_caller]
    fn worker(&self) -> u32 {
        worker(self.address)
    }

    /// How many of so many requests, one after the other, each worker answers.
    #[track_caller]
    fn spread(&self, requests: u32) -> BTreeMap<u32, u32> {
        let mut spread = BTreeMap::new();
        for _ in 0..requests {
            *spread.entry(self.worker()).or_default() += 1;
        }
        spread
    }

    /// The names of the launchers' cgroups.
    fn cgroups_left(&self) -> Vec<String> {
        let names = (0..8).map(|number| format!("bench-{}-{number}", self.child.id()));
        names
            .filter(|name| cgroup::of_fleet(name).is_some_and(|path| path.exists()))
            .collect()
    }

    fn pins_left(&self) -> Vec<String> {
        let prefix = format!("bench-{}-", self.child.id());
        let entries = fs::read_dir("/sys/fs/bpf/reuseport-launch");
        let names = entries.into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Ends its input, and checks that it ends well and leaves nothing.
    #[track_caller]
    fn stop_clean(mut self) {
        let processes = self.processes();
        drop(self.input.take());
        let status = self.child.wait().expect("ended");
        assert!(status.success(), "{status}");
        // It has waited for them.
        for process in processes {
            assert!(process.ended(), "pid {} is left", process.pid());
        }
        assert_eq!(self.cgroups_left(), Vec::<String>::new());
        assert_eq!(self.pins_left(), Vec::<String>::new());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The processes in the calling thread's network namespace, but for this one.
fn processes_here() -> Vec<String> {
    let here = fs::read_link("/proc/thread-self/ns/net").expect("/proc is mounted");
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &u32| pid != std::process::id())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it == here))
        .map(|pid| format!("{pid}: {:?}", procfs::arguments(pid)))
        .collect()
}

/// Sends these bytes on a new connection, ends our side of it, and reads all that comes back.
#[track_caller]
fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect_timeout(&to, TIMEOUT).expect("it listens");
    connection
        .set_read_timeout(Some(TIMEOUT))
        .expect("a socket");
    connection.write_all(bytes).expect("it reads");
    read(connection)
}

#[track_caller]
fn read(mut connection: TcpStream) -> String {
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).expect("it answers");
    String::from_utf8(answer).expect("text")
}

/// Which worker answers a request on a new connection.
#[track_caller]
fn worker(to: SocketAddr) -> u32 {
    named(&exchange(
        to,
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ))
}

/// Which worker a good answer is from.
#[track_caller]
fn named(answer: &str) -> u32 {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let field = answer.split("\r\nX-Worker: ").nth(1);
    let number = field.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no worker is named: {answer}"))
}

#[test]
fn whoever_takes_turns_is_exactly_even() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    for mode in [
        "master-dispatch",
        "proxy-dispatch",
        "reuseport-ebpf:round-robin",
    ] {
        let mut served = serve(mode, &["--workers", "4"], &[]);
        let spread = served.spread(40);
        let even: BTreeMap<u32, u32> = (0..4).map(|slot| (slot, 10)).collect();
        assert_eq!(spread, even, "{mode}");
        // For reuseport-ebpf the kernel's own count: the program chose, and nothing else did.
        assert_eq!(served.by_worker(), Some(vec![10; 4]), "{mode}");
        served.stop_clean();
    }
}

#[test]
fn a_single_worker_answers_all() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let mut served = serve("single", &["--workers", "4"], &[]);
    assert_eq!(served.spread(20), BTreeMap::from([(0, 20)]));
    assert_eq!(served.by_worker(), None);
    assert_eq!(served.pids().len(), 1);
    served.stop_clean();
}

#[test]
fn workers_that_share_a_listener_all_serve() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    for mode in ["shared-listener", "shared-listener-exclusive"] {
        // While one is occupied, the other has to take what comes.
        let mut served = serve(mode, &["--work", "sleep30000"], &[]);
        let to = served.address;
        let clients: Vec<_> = (0..8).map(|_| thread::spawn(move || worker(to))).collect();
        let answers = clients
            .into_iter()
            .map(|client| client.join().expect("answered"));
        let workers: BTreeSet<u32> = answers.collect();
        assert_eq!(workers, BTreeSet::from([0, 1]), "{mode}");
        assert_eq!(served.by_worker(), None, "{mode}");
        served.stop_clean();
    }
}

#[test]
fn a_shared_listener_wakes_all_and_an_exclusive_one_does_not() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let switches = |mode| {
        let mut served = serve(mode, &["--workers", "8"], &[]);
        let mut used = || served.ask("usage")["switches"].as_u64().expect("a number");
        let before = used();
        let to = client::address(&served.address.to_string());
        (0..100).for_each(|_| _ = worker(to));
        let mut used = || served.ask("usage")["switches"].as_u64().expect("a number");
        used() - before
    };
    let (herd, exclusive) = (
        switches("shared-listener"),
        switches("shared-listener-exclusive"),
    );
    assert!(herd > 2 * exclusive, "{herd} and {exclusive}");
}

#[test]
fn the_kernel_and_every_policy_deal_out() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    // `kernel` has a mode of its own.
    for policy in POLICIES.into_iter().filter(|policy| *policy != "kernel") {
        let mut served = serve(&format!("reuseport-ebpf:{policy}"), &[], &[]);
        let spread = served.spread(20);
        let counted = served.by_worker().expect("the kernel counts");
        for slot in 0..2_u32 {
            let answered = spread.get(&slot).copied().unwrap_or(0);
            assert_eq!(counted[slot as usize], u64::from(answered), "{policy}");
        }
        served.stop_clean();
    }
    let mut served = serve("reuseport-kernel", &[], &[]);
    assert_eq!(served.spread(20).values().sum::<u32>(), 20);
    assert_eq!(served.by_worker(), None);
    served.stop_clean();
}

#[test]
fn servers_that_know_nothing_of_it_serve_in_the_modes_for_any() {
    let Some(_netns) = gate::enter(&["node", "python3"]) else {
        return;
    };
    for mode in FOR_ANY {
        for server in [servers::node(8080), servers::python(8080)] {
            let mut served = serve(mode, &[], &server);
            let to = served.address;
            for _ in 0..20 {
                let answer = client::get(to).expect("answered");
                assert_eq!(answer.status, 200, "{mode} {server:?}");
            }
            let usage = served.ask("usage");
            assert!(
                usage["workers_cpu"].as_f64().expect("seconds") > 0.0,
                "{mode}"
            );
            assert!(
                usage["dispatcher_cpu"].as_f64().expect("seconds") > 0.0,
                "{mode}"
            );
            assert!(usage["switches"].as_u64().expect("a number") > 0, "{mode}");
            if mode != "single" && mode != "reuseport-kernel" {
                let counted = serde_json::json!([10, 10]);
                assert_eq!(usage["by_worker"], counted, "{mode} {server:?}");
            }
            served.stop_clean();
        }
    }
}

#[test]
fn servers_behind_a_proxy_are_as_different_as_their_slots() {
    let Some(_netns) = gate::enter(&["busybox"]) else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    for slot in ["0", "1", "2"] {
        let files = directory.path().join(slot);
        fs::create_dir(&files).expect("a new directory");
        fs::write(files.join("index.html"), slot).expect("a new directory");
    }
    let server = servers::busybox_in(8080, directory.path());
    let served = serve("proxy-dispatch", &["--workers", "3"], &server);
    let even = ["0", "1", "2"].map(|slot| (slot.to_owned(), 10));
    assert_eq!(client::spread(served.address, 30), BTreeMap::from(even));
    served.stop_clean();
}

/// Reads until the client ends its side, and then sends all of it back.
const ECHO: &str = "
import socket, threading
def serve(connection):
    received = b''.join(iter(lambda: connection.recv(65536), b''))
    connection.sendall(received)
    connection.close()
listener = socket.create_server(('127.0.0.1', 8080))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
";

#[test]
fn a_proxy_passes_bytes_unharmed_and_each_end_by_itself() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let served = serve("proxy-dispatch", &[], &servers::python_code(ECHO));
    let to = served.address;
    let send = move |seed: u32| {
        // Far more than sockets and pipes hold.
        let body: Vec<u8> = (0..4_000_000_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as u8)
            .collect();
        let mut connection = TcpStream::connect_timeout(&to, TIMEOUT).expect("it listens");
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket");
        connection.write_all(&body).expect("it reads");
        connection.shutdown(Shutdown::Write).expect("open");
        let mut back = Vec::new();
        connection.read_to_end(&mut back).expect("all comes back");
        assert!(back == body, "{} of {} bytes", back.len(), body.len());
    };
    let clients: Vec<_> = (0..4)
        .map(|seed| thread::spawn(move || send(seed)))
        .collect();
    for client in clients {
        client.join().expect("unharmed");
    }
    served.stop_clean();
}

#[test]
fn a_proxy_passes_on_that_a_connection_was_reset() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let code = "
import socket, struct
listener = socket.create_server(('127.0.0.1', 8080))
while True:
    connection = listener.accept()[0]
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    connection.close()
";
    let served = serve("proxy-dispatch", &[], &servers::python_code(code));
    let mut connection = TcpStream::connect_timeout(&served.address, TIMEOUT).expect("it listens");
    connection
        .set_read_timeout(Some(TIMEOUT))
        .expect("a socket");
    connection.write_all(b".").expect("it reads");
    let error = connection.read(&mut [0]).expect_err("reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    // And the other way: the server answers the second client with how the first one ended.
    let code = "
import socket
listener = socket.create_server(('127.0.0.1', 8080))
ended = b''
while True:
    connection = listener.accept()[0]
    connection.sendall(b'.' + ended)
    try:
        connection.recv(1)
        ended = b'closed'
    except ConnectionResetError:
        ended = b'reset'
    connection.close()
";
    let command = servers::python_code(code);
    let served = serve("proxy-dispatch", &["--workers", "1"], &command);
    let connect = || {
        let mut connection =
            TcpStream::connect_timeout(&served.address, TIMEOUT).expect("it listens");
        connection
            .set_read_timeout(Some(TIMEOUT))
            .expect("a socket");
        connection.read_exact(&mut [0]).expect("it is accepted");
        connection
    };
    let first = connect();
    let linger = Some(std::time::Duration::ZERO);
    socket2::SockRef::from(&first)
        .set_linger(linger)
        .expect("a socket");
    drop(first);
    let mut second = connect();
    let mut ended = [0; 5];
    second.read_exact(&mut ended).expect("told");
    assert_eq!(&ended, b"reset");
}

#[test]
fn the_built_in_worker_speaks_http() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let served = serve("single", &[], &[]);
    let to = served.address;
    // Two at once, then one in pieces, all on one connection.
    let mut connection = TcpStream::connect_timeout(&to, TIMEOUT).expect("it listens");
    connection
        .set_read_timeout(Some(TIMEOUT))
        .expect("a socket");
    connection.set_nodelay(true).expect("a socket");
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    connection
        .write_all(get.repeat(2).as_bytes())
        .expect("it reads");
    for byte in "HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n".bytes() {
        connection.write_all(&[byte]).expect("it reads");
    }
    let answers = read(connection);
    assert_eq!(
        answers.matches("HTTP/1.1 200 OK\r\n").count(),
        3,
        "{answers}"
    );
    assert_eq!(answers.matches("hello").count(), 2, "{answers}");
    assert!(answers.ends_with("Connection: close\r\n\r\n"), "{answers}");

    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), "400"),
        ("DELETE / HTTP/1.1\r\n\r\n".to_owned(), "405"),
        (
            format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000)),
            "431",
        ),
    ] {
        let answer = exchange(to, request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    // And it still serves.
    assert_eq!(served.worker(), 0);
    served.stop_clean();
}

#[test]
fn a_worker_that_is_killed_or_reloaded_is_replaced() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let built_in = OF_A_MASTER.iter().chain(&FOR_ANY[2..]);
    let built_in = built_in.map(|&mode| (mode, Vec::new()));
    let own = ["single", "proxy-dispatch"].map(|mode| (mode, servers::node(8080)));
    for (mode, server) in built_in.chain(own) {
        let mut served = serve(mode, &[], &server);
        for disturbance in ["kill", "reload"] {
            let before = served.pids();
            let slot = served.ask(disturbance).as_u64().expect("a slot") as usize;
            let what = format!("{mode}: the worker after the {disturbance}");
            let after = eventually(&what, || {
                let pids = served.pids();
                let replaced = pids[slot].is_some() && pids[slot] != before[slot];
                replaced.then_some(pids)
            });
            for (other, pid) in before.iter().enumerate().filter(|(it, _)| *it != slot) {
                assert_eq!(after[other], *pid, "{mode}: only one is disturbed");
            }
            eventually("an answer", || {
                let answer = client::get(served.address).ok()?;
                (answer.status == 200).then_some(())
            });
        }
        served.stop_clean();
    }
}

#[test]
fn a_reload_by_a_master_fails_no_request() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    for mode in ["shared-listener", "master-dispatch", "proxy-dispatch"] {
        let mut served = serve(mode, &["--work", "sleep1000"], &[]);
        let load: Vec<_> = (0..4)
            .map(|_| client::Load::start(served.address))
            .collect();
        for _ in 0..4 {
            served.ask("reload");
        }
        for load in load {
            let results = load.stop();
            assert!(
                results.failures.is_empty(),
                "{mode}: {:?}",
                results.failures
            );
            assert!(results.total() > 0, "{mode}");
        }
        served.stop_clean();
    }
}

#[test]
fn a_stalled_worker_is_stopped_and_goes_on() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    for mode in ["master-dispatch", "reuseport-ebpf:round-robin"] {
        let mut served = serve(mode, &[], &[]);
        let pids = served.pids();
        let slot = served.ask("stall").as_u64().expect("a slot") as usize;
        let pid = pids[slot].expect("it is ready");
        let state = || procfs::status(pid, "State");
        eventually("the stop", || state().starts_with('T').then_some(()));
        eventually("its end", || (!state().starts_with('T')).then_some(()));
        assert_eq!(served.pids(), pids, "{mode}");
        served.stop_clean();
    }
}

#[test]
fn nothing_is_left_when_who_has_started_it_is_killed() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let built_in = OF_A_MASTER.iter().chain(&FOR_ANY[2..]);
    let built_in = built_in.map(|&mode| (mode, Vec::new()));
    let own = FOR_ANY.iter().map(|&mode| (mode, servers::node(8080)));
    for (mode, server) in built_in.chain(own) {
        let mut served = serve(mode, &[], &server);
        let processes = served.processes();
        served.child.kill().expect("it runs");
        for process in processes {
            process.wait();
        }
        eventually("the cgroups to go", || {
            served.cgroups_left().is_empty().then_some(())
        });
        eventually("the pins to go", || {
            served.pins_left().is_empty().then_some(())
        });
    }
}

#[test]
fn workers_end_with_a_master_that_is_killed() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let mut served = serve("master-dispatch", &[], &[]);
    let workers: Vec<Handle> = served
        .pids()
        .into_iter()
        .flatten()
        .map(Handle::of)
        .collect();
    assert_eq!(workers.len(), 2);
    let master = procfs::children(served.child.id());
    assert_eq!(master.len(), 1);
    Handle::of(master[0]).signal(Signal::KILL);
    for worker in workers {
        worker.wait();
    }
}

#[test]
fn a_launcher_whose_guard_was_killed_is_stopped_all_the_same() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let mut served = serve("reuseport-kernel", &[], &[]);
    let processes = served.processes();
    let guard = procfs::children(served.child.id());
    assert_eq!(guard.len(), 1);
    Handle::of(guard[0]).kill();
    assert_eq!(served.spread(10).values().sum::<u32>(), 10);
    drop(served.input.take());
    assert!(served.child.wait().expect("ended").success());
    for process in processes {
        process.wait();
    }
    assert_eq!(served.cgroups_left(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_run_is_said_in_three_parts_and_leaves_nothing() {
    let Some(_netns) = gate::enter(&["node", "sh"]) else {
        return;
    };
    let said = fails("prefork", &[], &[]);
    for mode in OF_A_MASTER.iter().chain(&FOR_ANY) {
        assert!(said.contains(mode), "{said}");
    }
    let said = fails("single", &["--work", "dance"], &[]);
    assert!(said.contains("spinN"), "{said}");

    let three_parts = |mode: &str, options: &[&str], server: &[String], why: &str| {
        let said = fails(mode, options, server);
        assert!(said.starts_with("error: "), "{mode}: {said}");
        assert!(said.contains(why), "{mode}: {said}");
        assert!(said.contains("\n  → "), "{mode}: {said}");
    };
    let node = servers::node(8080);
    three_parts("master-dispatch", &[], &node, "take part in it");
    let taken = TcpListener::bind("127.0.0.1:8080").expect("nobody is here");
    let us = format!("pid {}", std::process::id());
    for mode in OF_A_MASTER.iter().chain(&FOR_ANY[2..]) {
        three_parts(mode, &["--port", "8080"], &[], &us);
    }
    three_parts("reuseport-ebpf:hash", &[], &node, &us);
    drop(taken);
    for mode in FOR_ANY {
        let missing = ["/nonexistent/server".to_owned()];
        three_parts(mode, &[], &missing, "there is no such file");
    }
    let shell = |script: &str| vec![gate::path_of("sh"), "-c".to_owned(), script.to_owned()];
    three_parts("single", &[], &shell("echo no luck >&2; exit 3"), "no luck");
    three_parts(
        "single",
        &[],
        &shell("echo idle >&2; exec sleep 1000"),
        "idle",
    );
    for mode in ["single", "reuseport-kernel"] {
        three_parts(mode, &["--cpus", "1000"], &[], "CPUs 1000");
    }
    assert_eq!(processes_here(), Vec::<String>::new());
}
