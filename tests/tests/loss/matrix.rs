//! Each fault, for each of the servers that nobody here wrote and that know nothing of us: node
//! without any signal handling, Python's http.server, gunicorn and nginx.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use kernel_tests::{
    gate,
    launcher::{Launch, Launcher},
    load::{OpenLoad, Report},
    procfs, say, scripts, servers,
    status::Status,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{PORT, RATE, address, crash};

/// A kind of server.
#[derive(Clone, Copy)]
struct Server {
    name: &'static str,
    program: &'static str,
    /// The command; the directory is the test's own.
    command: fn(&Path) -> Vec<String>,
}

const NODE: Server = Server {
    name: "node",
    program: "node",
    command: |_| servers::node(PORT),
};
const PYTHON: Server = Server {
    name: "python3 -m http.server",
    program: "python3",
    command: |_| servers::python(PORT),
};
const GUNICORN: Server = Server {
    name: "gunicorn",
    program: "gunicorn",
    command: |_| servers::gunicorn(PORT),
};
const NGINX: Server = Server {
    name: "nginx",
    program: "nginx",
    command: |dir| servers::nginx(dir, 4),
};
/// One that is busy: 40 % of each CPU at this rate.
const BUSY: Server = Server {
    name: "node, 4 ms a request",
    program: "node",
    command: |_| servers::busy_node(PORT),
};
/// The one whose accept queues are hardly ever empty.
const LATE: Server = Server {
    name: "a server that accepts late",
    program: "python3",
    command: |_| scripts::late(),
};

/// A fleet of one of them.
struct Fleet {
    server: Server,
    workers: u32,
    command: Vec<String>,
    launcher: Launcher,
    /// While this file exists, each worker that starts fails.
    broken: PathBuf,
    _dir: TempDir,
}

impl Fleet {
    /// Starts one in a network namespace of its own. `None`: it can't be run here.
    #[track_caller]
    fn start(server: Server, workers: u32) -> Option<Self> {
        gate::enter(&[server.program, "sh"])?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let broken = dir.path().join("broken");
        let command = scripts::breakable(&broken, (server.command)(dir.path()));
        let launcher = Launch::of(&command)
            .options(["--workers", &workers.to_string()])
            .ready();
        Some(Self {
            server,
            workers,
            command,
            launcher,
            broken,
            _dir: dir,
        })
    }

    fn load(&self) -> OpenLoad {
        OpenLoad::start(address(), RATE)
    }

    /// Ends a load, says what came of it, and checks that nothing was lost but on connections from
    /// these ports.
    #[track_caller]
    fn check(&self, fault: &str, load: OpenLoad, accepted: &BTreeSet<u16>) -> Report {
        let report = load.stop();
        let (name, count) = (self.server.name, accepted.len());
        say(&format!(
            "{name}: {fault}: {report}; accepted by the killed {count}"
        ));
        report.assert_lost_only_of(accepted);
        report
    }

    /// Ends load and fleet, of which nothing may be lost or left.
    #[track_caller]
    fn end(self, fault: &str, load: OpenLoad) {
        self.check(fault, load, &BTreeSet::new());
        self.launcher.stop_clean();
    }
}

/// Makes a test of each server of what `$cell` does to one.
macro_rules! for_each_server {
    ($cell:ident: $($name:ident $server:ident),*) => {
        mod $cell {
            $(
                #[test]
                fn $name() {
                    super::$cell(super::$server);
                }
            )*
        }
    };
    ($cell:ident) => {
        for_each_server!($cell: node NODE, python PYTHON, gunicorn GUNICORN, nginx NGINX);
    };
}

for_each_server!(acceptance_2_twenty_reloads: node NODE, busy BUSY, python PYTHON, gunicorn GUNICORN, nginx NGINX, late LATE);

#[track_caller]
fn acceptance_2_twenty_reloads(server: Server) {
    let Some(fleet) = Fleet::start(server, 2) else {
        return;
    };
    let load = fleet.load();
    for _ in 0..20 {
        fleet.launcher.reload();
    }
    let status = fleet.launcher.status();
    assert!((0..2).all(|slot| status.is_ready(slot, 21)), "{}", status.0);
    fleet.end("20 reloads of 2", load);
}

for_each_server!(twenty_crashes_of_one_of_three: node NODE, busy BUSY, python PYTHON, gunicorn GUNICORN, nginx NGINX, late LATE);

#[track_caller]
fn twenty_crashes_of_one_of_three(server: Server) {
    let Some(fleet) = Fleet::start(server, 3) else {
        return;
    };
    let load = fleet.load();
    let mut accepted = BTreeSet::new();
    for (slot, generation) in (2..)
        .flat_map(|generation| [0, 1, 2].map(|slot| (slot, generation)))
        .take(20)
    {
        load.wait_for(10);
        accepted.extend(crash(&fleet.launcher, slot));
        fleet.launcher.replaced(slot, generation);
    }
    let status = fleet.launcher.status();
    assert_eq!(
        status.counter(PORT, "fell_through_total"),
        0,
        "{}",
        status.0
    );
    if server.name == LATE.name {
        // Twenty queues, and about three connections in each.
        assert!(status.counter(PORT, "migrated_total") >= 20, "{}", status.0);
    }
    fleet.check("20 × kill -9 of one of 3", load, &accepted);
    fleet.launcher.stop_clean();
}

for_each_server!(acceptance_8_ten_crashes_of_the_only_worker);

#[track_caller]
fn acceptance_8_ten_crashes_of_the_only_worker(server: Server) {
    let Some(fleet) = Fleet::start(server, 1) else {
        return;
    };
    let load = fleet.load();
    let mut accepted = BTreeSet::new();
    for generation in 2..12 {
        load.wait_for(10);
        accepted.extend(crash(&fleet.launcher, 0));
        fleet.launcher.replaced(0, generation);
    }
    load.wait_for(10);
    let status = fleet.launcher.status();
    assert!(status.counter(PORT, "held_total") > 0, "{}", status.0);
    assert_eq!(status.counter(PORT, "held_now"), 0, "{}", status.0);
    fleet.check("10 × kill -9 of the only one", load, &accepted);
    fleet.launcher.stop_clean();
}

for_each_server!(scaled_up_and_down_ten_times);

#[track_caller]
fn scaled_up_and_down_ten_times(server: Server) {
    let Some(fleet) = Fleet::start(server, 1) else {
        return;
    };
    let load = fleet.load();
    for _ in 0..10 {
        for workers in [4, 1] {
            fleet.launcher.scale(workers);
            let status = fleet.launcher.status();
            assert!(status.all_ready(workers as usize), "{}", status.0);
        }
    }
    assert_eq!(fleet.launcher.status().generation(0), 1);
    fleet.end("10 × scaled from 1 to 4 to 1", load);
}

for_each_server!(acceptance_24_the_launcher_is_killed_and_the_next_one_takes_over);

#[track_caller]
fn acceptance_24_the_launcher_is_killed_and_the_next_one_takes_over(server: Server) {
    let Some(mut fleet) = Fleet::start(server, 2) else {
        return;
    };
    let load = fleet.load();
    load.wait_for(20);
    let before = fleet.launcher.status();
    fleet.launcher.process.signal(Signal::SIGKILL);
    fleet.launcher.process.wait();
    load.wait_for(20);

    let next = Launch::of(&fleet.command)
        .options(["--workers", &fleet.workers.to_string()])
        .at(&fleet.launcher.site)
        .ready();
    let said = format!(
        "took over {} workers of a launcher that was killed (pid {})",
        fleet.workers,
        fleet.launcher.process.pid()
    );
    next.process.wait_for(&said, |line| line.contains(&said));
    let first = std::mem::replace(&mut fleet.launcher, next);
    load.wait_for(20);
    assert_eq!(fleet.launcher.status().pids(), before.pids());

    let report = fleet.check("launcher killed and taken over", load, &BTreeSet::new());
    let status = fleet.launcher.status();
    assert_counted(&status, &report);
    // Its output goes on until the workers end.
    drop(first);
    fleet.launcher.stop_clean();
}

/// Checks that each request of a load was sent to a worker and counted once, and none was held.
#[track_caller]
fn assert_counted(status: &Status, report: &Report) {
    let connections: u64 = status.connections().into_values().sum();
    if report.latency(1.0) < 1_000_000 {
        status.assert_selected(PORT, report.sent());
        assert_eq!(connections, report.sent(), "{}", status.0);
    } else {
        // A SYN that meets a full queue (http.server's takes five) comes again after a second, and
        // is counted again.
        assert!(connections >= report.sent(), "{}", status.0);
    }
    assert_eq!(status.counter(PORT, "held_total"), 0, "{}", status.0);
}

for_each_server!(the_launcher_is_upgraded);

#[track_caller]
fn the_launcher_is_upgraded(server: Server) {
    let Some(fleet) = Fleet::start(server, 2) else {
        return;
    };
    let load = fleet.load();
    load.wait_for(20);
    let (before, pid) = (fleet.launcher.status(), fleet.launcher.process.pid());
    for _ in 0..3 {
        let incarnation = procfs::incarnation(pid);
        fleet.launcher.ask(&["upgrade"]);
        assert_ne!(procfs::incarnation(pid), incarnation, "it is another one");
        load.wait_for(20);
        assert_eq!(fleet.launcher.status().pids(), before.pids());
        assert_eq!(fleet.launcher.status().0["pid"], pid);
    }
    let report = fleet.check("3 upgrades of the launcher", load, &BTreeSet::new());
    assert_counted(&fleet.launcher.status(), &report);
    fleet.launcher.stop_clean();
}

for_each_server!(acceptance_10_a_broken_new_version_aborts_the_reload_and_the_old_keep_serving);

#[track_caller]
fn acceptance_10_a_broken_new_version_aborts_the_reload_and_the_old_keep_serving(server: Server) {
    let Some(fleet) = Fleet::start(server, 2) else {
        return;
    };
    let load = fleet.load();
    let before = fleet.launcher.status();
    fs::write(&fleet.broken, "").expect("the test's own directory");
    for _ in 0..3 {
        load.wait_for(20);
        let failed = fleet.launcher.verb(&["reload"]);
        failed.assert_error(1, scripts::BROKEN);
        assert!(failed.stderr.contains("exit code 3"), "{}", failed.stderr);
        let after = fleet
            .launcher
            .status_when("the new one to be gone", |status| status.all_ready(2));
        assert_eq!(after.pids(), before.pids());
    }
    fs::remove_file(&fleet.broken).expect("it was written");
    fleet.launcher.reload();
    fleet.end("3 reloads of a broken version, and one of a good one", load);
}
