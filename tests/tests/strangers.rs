//! Ports that belong to somebody else: refused, never shared. The owner is named, and gets every
//! connection meanwhile.

use std::{net::SocketAddr, process::Command};

use kernel_tests::{
    client::{self, Load, address},
    eventually, gate,
    launcher::Launch,
    process::{Finished, Line, Process},
    servers,
};

#[test]
fn a_port_of_a_server_without_reuseport() {
    let Some(_netns) = gate::enter(&["python3", "node"]) else {
        return;
    };
    refuses_to_share(servers::node(8080), servers::node(8080), "[::1]:8080");
}

#[test]
fn a_port_of_a_server_that_does_not_tell_who_it_is() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let stranger = Stranger::start(servers::python(8080), address("127.0.0.1:8080"));
    let load = Load::start(address("127.0.0.1:8080"));
    let finished = Launch::of(servers::python(8080))
        .options(["--workers", "4"])
        .run();
    let served = load.stop();

    stranger.assert_named_by(&finished, "8080");
    assert_eq!(served.failures, Vec::<String>::new());
    let asked = served.total();
    // It logs each request; the first one told that it listens.
    let logged = |lines: &[Line]| requests_in(lines) > asked;
    stranger
        .process
        .wait_until("every request in its log", |lines| {
            logged(lines).then_some(())
        });
}

fn requests_in(lines: &[Line]) -> u64 {
    lines
        .iter()
        .filter(|line| line.text.contains("\"GET /"))
        .count() as u64
}

#[test]
fn a_port_of_a_server_of_the_same_user_with_reuseport() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let stranger = servers::sockets(&["tcp,0.0.0.0,8080,reuseport"]);
    refuses_to_share(
        stranger,
        servers::sockets(&["tcp,0.0.0.0,8080"]),
        "127.0.0.1:8080",
    );
}

#[test]
fn a_port_of_which_a_stranger_has_all_addresses() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let stranger = servers::sockets(&["tcp,0.0.0.0,8080,reuseport"]);
    refuses_to_share(
        stranger,
        servers::sockets(&["tcp,127.0.0.1,8080"]),
        "127.0.0.1:8080",
    );
}

#[test]
fn a_port_of_which_a_stranger_has_one_address() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let stranger = servers::sockets(&["tcp,127.0.0.1,8080,reuseport"]);
    refuses_to_share(
        stranger,
        servers::sockets(&["tcp,0.0.0.0,8080"]),
        "127.0.0.1:8080",
    );
}

#[test]
fn a_port_of_which_a_stranger_without_reuseport_has_one_address() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    refuses_to_share(
        servers::sockets(&["tcp,127.0.0.1,8080"]),
        servers::sockets(&["tcp,0.0.0.0,8080"]),
        "127.0.0.1:8080",
    );
}

#[test]
fn a_port_of_which_a_stranger_without_reuseport_has_the_other_family() {
    let Some(_netns) = gate::enter(&["python3", "node"]) else {
        return;
    };
    let stranger = servers::sockets(&["tcp,0.0.0.0,8080"]);
    refuses_to_share(stranger, servers::node(8080), "127.0.0.1:8080");
}

#[test]
fn a_port_of_which_a_stranger_has_the_other_family() {
    let Some(_netns) = gate::enter(&["python3", "node"]) else {
        return;
    };
    // Node asks for both families.
    let stranger = servers::sockets(&["tcp,0.0.0.0,8080,reuseport"]);
    refuses_to_share(stranger, servers::node(8080), "127.0.0.1:8080");
}

#[test]
fn a_port_of_which_a_stranger_has_both_families() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let stranger = servers::sockets(&["tcp,::,8080,reuseport"]);
    refuses_to_share(
        stranger,
        servers::sockets(&["tcp,0.0.0.0,8080"]),
        "127.0.0.1:8080",
    );
}

/// Runs a launcher beside a stranger that answers with its pid: the launcher has to end with a
/// reason, and the stranger has to get everything meanwhile and afterwards.
#[track_caller]
fn refuses_to_share(stranger: Vec<String>, command: Vec<String>, to: &str) {
    let to = address(to);
    let stranger = Stranger::start(stranger, to);
    let load = Load::start(to);
    let finished = Launch::of(command).options(["--workers", "4"]).run();
    let served = load.stop();

    stranger.assert_named_by(&finished, ":8080 belongs to");
    assert_eq!(served.failures, Vec::<String>::new());
    let who: Vec<_> = served.answers.into_keys().collect();
    assert_eq!(
        who,
        [stranger.process.pid().to_string()],
        "others have answered"
    );
}

#[test]
fn a_udp_port_of_a_server_of_the_same_user_with_reuseport() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let command = servers::sockets(&["udp,0.0.0.0,5353,reuseport"]);
    let stranger = Stranger {
        process: spawn(&command),
        command,
    };
    stranger
        .process
        .wait_for("its socket", |line| line == "opened");
    let launch = Launch::of(servers::sockets(&["udp,0.0.0.0,5353"]));
    let finished = launch.options(["--workers", "2"]).run();
    stranger.assert_named_by(&finished, "5353");
}

#[test]
fn a_port_of_another_launcher_of_the_same_user() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let to = address("127.0.0.1:8080");
    let first = Launch::of(servers::node(8080))
        .options(["--workers", "2"])
        .start();
    first.ready();
    let pids = [0, 1].map(|slot| first.status().pid(slot).to_string());

    let load = Load::start(to);
    let second = Launch::of(servers::node(8080))
        .options(["--workers", "2"])
        .run();
    let served = load.stop();

    second.assert_error(1, "8080");
    let named = pids
        .iter()
        .any(|pid| second.stderr.contains(&format!("pid {pid}")));
    assert!(
        named && second.stderr.contains("node.js"),
        "{}",
        second.stderr
    );
    assert_eq!(served.failures, Vec::<String>::new());
    let total = served.total();
    let mut answers: Vec<_> = served.answers.into_keys().collect();
    let mut expected = pids.to_vec();
    answers.sort_unstable();
    expected.sort_unstable();
    assert_eq!(answers, expected, "others have answered");
    let status = first.status();
    assert_eq!(status.counter(8080, "selected_total"), total);
    assert_eq!(status.counter(8080, "fell_through_total"), 0);
    assert_eq!(first.stop(), 0);
}

#[test]
fn a_stranger_that_joins_later_gets_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let command = servers::sockets(&["tcp,0.0.0.0,8080"]);
    let launcher = Launch::of(command).options(["--workers", "2"]).ready();
    let pids = [0, 1].map(|slot| launcher.status().pid(slot).to_string());

    let stranger = spawn(&servers::sockets(&["tcp,0.0.0.0,8080,reuseport"]));
    stranger.wait_for("its socket", |line| line == "opened");

    let answers = client::spread(address("127.0.0.1:8080"), 100);
    assert_eq!(answers, pids.map(|pid| (pid, 50)).into());
    launcher.status().assert_selected(8080, 100);
}

#[test]
fn a_stranger_that_joins_later_gets_its_share_from_the_kernel_and_is_told_of_once() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::sockets(&["tcp,0.0.0.0,8080"]))
        .options(["--workers", "2", "--steer", "kernel"])
        .ready();
    let command = servers::sockets(&["tcp,0.0.0.0,8080,reuseport"]);
    let is_told_of = |stranger: &Process, line: &str| {
        let named = format!("pid {} ({})", stranger.pid(), command.join(" "));
        line.contains("WARN") && line.contains("0.0.0.0:8080") && line.contains(&named)
    };
    let strangers = [0, 1].map(|_| {
        let stranger = spawn(&command);
        launcher
            .process
            .wait_for("a warning", |line| is_told_of(&stranger, line));
        stranger
    });
    // The first one was there, too, when the second one was found.
    let lines = launcher.process.lines();
    for stranger in &strangers {
        let told = lines.iter().filter(|line| is_told_of(stranger, &line.text));
        assert_eq!(told.count(), 1, "{lines:#?}");
    }
    assert_eq!(launcher.stop(), 0);
}

/// A server that was there before.
struct Stranger {
    process: Process,
    command: Vec<String>,
}

impl Stranger {
    #[track_caller]
    fn start(command: Vec<String>, to: SocketAddr) -> Self {
        let process = spawn(&command);
        eventually("the other server to listen", || client::get(to).ok());
        Self { process, command }
    }

    #[track_caller]
    fn assert_named_by(&self, finished: &Finished, port: &str) {
        finished.assert_error(1, port);
        let pid = format!("pid {} ", self.process.pid());
        assert!(
            finished.stderr.contains(&pid),
            "no pid: {}",
            finished.stderr
        );
        let command = self.command.join(" ");
        assert!(
            finished.stderr.contains(&command),
            "no command: {}",
            finished.stderr
        );
    }
}

fn spawn(command: &[String]) -> Process {
    Process::spawn(Command::new(&command[0]).args(&command[1..]))
}
