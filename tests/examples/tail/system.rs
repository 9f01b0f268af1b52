//! What is compared: two copies of the same server, under the launcher and under Node's cluster
//! module.

use std::{fmt, process::Command};

use kernel_tests::{
    cgroup,
    gate::path_of,
    launcher::{Launch, Launcher},
    process::{Line, Process},
    servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The port of every system.
pub(crate) const PORT: u16 = 8080;

/// How many workers every system has.
const WORKERS: usize = 2;

/// A way to run the server twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// The launcher, its options at their defaults.
    Launch,
    /// Node's cluster module with `SCHED_NONE`: the workers accept from one socket.
    SharedHandle,
    /// Node's cluster module with `SCHED_RR`: its master accepts, and hands over.
    Master,
}

impl System {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Launch, Self::SharedHandle, Self::Master];

    /// Starts it, and waits until both workers serve.
    pub(crate) fn start(self) -> Running {
        let policy = match self {
            Self::Launch => {
                let launch = Launch::of(servers::busy_node(PORT));
                let workers = WORKERS.to_string();
                return Running::Launch(launch.options(["--workers", &workers]).ready());
            }
            Self::SharedHandle => "SCHED_NONE",
            Self::Master => "SCHED_RR",
        };
        let [script, server] =
            ["cluster.js", "busy.js"].map(|file| format!("{}/{file}", servers::FILES));
        let mut command = Command::new(path_of("node"));
        let master = Process::spawn(command.args([&script, policy, &server, &PORT.to_string()]));
        master.wait_until("Node's workers", |lines| {
            (listening(lines).count() == WORKERS).then_some(())
        });
        Running::Node(master)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Launch => "reuseport-launch",
            Self::SharedHandle => "Node SCHED_NONE",
            Self::Master => "Node SCHED_RR",
        })
    }
}

/// A system that serves. Dropping it kills it.
pub(crate) enum Running {
    /// The launcher.
    Launch(Launcher),
    /// The master of Node's cluster module.
    Node(Process),
}

impl Running {
    /// Kills a worker, without a warning: the one that was started as this one of all, so that the
    /// two are killed by turns. Returns false if it is not there yet.
    pub(crate) fn kill(&self, number: usize) -> bool {
        let pids = match self {
            Self::Launch(launcher) => {
                let fleet = launcher.site.cgroup().expect("the launcher has found it");
                let (slot, generation) = (number % WORKERS, 1 + number / WORKERS);
                cgroup::processes(&fleet.join(format!("{slot}.{generation}")))
            }
            Self::Node(master) => listening(&master.lines()).nth(number).into_iter().collect(),
        };
        for &pid in &pids {
            // Nobody else ends it, and its parent knows nothing yet.
            let killed = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            killed.unwrap_or_else(|error| panic!("pid {pid}: {error}"));
        }
        !pids.is_empty()
    }

    /// Replaces both workers, one after the other, and waits for the end of that: for the
    /// `number`th time.
    pub(crate) fn restart(&self, number: usize) {
        match self {
            Self::Launch(launcher) => launcher.reload(),
            Self::Node(master) => {
                master.signal(Signal::SIGUSR2);
                master.wait_until("Node's rolling restart", |lines| {
                    let restarted = lines.iter().filter(|line| line.text == "restarted");
                    (restarted.count() > number).then_some(())
                });
            }
        }
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        match self {
            Self::Launch(launcher) => launcher.stop_clean(),
            // Its workers end when their channel to it does.
            Self::Node(master) => drop(master),
        }
    }
}

/// The pids of Node's workers, in the order in which they began to listen.
fn listening(lines: &[Line]) -> impl Iterator<Item = u32> {
    lines
        .iter()
        .filter_map(|line| line.text.strip_prefix("listening ")?.parse().ok())
}
