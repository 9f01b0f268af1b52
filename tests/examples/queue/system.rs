//! What is compared: the launcher under each policy, and workers that share one queue.

use std::{
    env, fmt,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use kernel_tests::{
    launcher::{Launch, Launcher, binary},
    process::Process,
};

use crate::worker::{self, INHERITED, Occupation, SLOT};

/// What everything is compared with: the policy of the kernel's own hash.
pub(crate) const KERNEL: &str = "kernel";

/// How the ideal is called.
pub(crate) const SHARED_QUEUE: &str = "shared queue";

/// A way to run the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// The launcher, with this policy.
    Policy(String),
    /// Processes that accept from one socket that they have inherited: whoever is free takes the next
    /// request, which no choice at the arrival can surpass.
    SharedQueue,
}

impl System {
    /// Starts it on this port, and waits until all its workers serve.
    pub(crate) fn start(&self, port: u16, workers: u16, occupation: Occupation) -> Running {
        let exe = env::current_exe().expect("/proc is mounted");
        let exe = exe.to_str().expect("cargo's directories have UTF-8 names");
        let serve = match self {
            Self::Policy(policy) => {
                let port = port.to_string();
                let command = [exe, worker::VERB, occupation.name(), &port];
                let workers = workers.to_string();
                let options = ["--workers", &workers, "--steer", policy];
                Serving::Launch(Launch::of(command).options(options).ready())
            }
            Self::SharedQueue => {
                let listener = worker::listen_on(port).expect("a free port");
                let start = |slot: u16| {
                    let inherited = listener.try_clone().expect("a few files");
                    Command::new(exe)
                        .args([worker::VERB, occupation.name(), INHERITED])
                        .env(SLOT, slot.to_string())
                        .stdin(Stdio::from(std::os::fd::OwnedFd::from(inherited)))
                        .spawn()
                        .expect("this program can be run")
                };
                Serving::Shared(Shared((0..workers).map(start).collect()))
            }
        };
        Running {
            serving: serve,
            address: (Ipv4Addr::LOCALHOST, port).into(),
        }
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Policy(policy) => policy,
            Self::SharedQueue => SHARED_QUEUE,
        })
    }
}

/// The policies that the launcher knows, by its own word.
///
/// # Panics
/// When it does not say.
pub(crate) fn policies() -> Vec<String> {
    let mut command = Command::new(binary());
    command.args(["--steer", "?", "--", "true"]);
    let refused = Process::spawn(&mut command).finish();
    let names = refused.stderr.lines().find_map(|line| {
        line.trim()
            .strip_prefix("[possible values: ")?
            .strip_suffix(']')
    });
    let names = names.unwrap_or_else(|| panic!("no list of policies: {}", refused.stderr));
    names.split(", ").map(str::to_owned).collect()
}

/// A system that serves. Dropping it kills it.
pub(crate) struct Running {
    serving: Serving,
    /// Where.
    pub(crate) address: SocketAddr,
}

enum Serving {
    Launch(Launcher),
    Shared(Shared),
}

impl Running {
    /// For how many connections the launcher's program has chosen, and how many fell through to the
    /// kernel's hash; `None` where no program chooses.
    pub(crate) fn chosen(&self) -> Option<(u64, u64)> {
        let Serving::Launch(launcher) = &self.serving else {
            return None;
        };
        let status = launcher.status();
        let group = status.group(self.address.port());
        let count = |name: &str| group[name].as_u64();
        count("selected_total").zip(count("fell_through_total"))
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        match self.serving {
            Serving::Launch(launcher) => launcher.stop_clean(),
            Serving::Shared(shared) => drop(shared),
        }
    }
}

struct Shared(Vec<Child>);

impl Drop for Shared {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            // Both fail only where it has ended.
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}
