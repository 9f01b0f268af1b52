//! A launcher under measurement: the executable itself, as a person would start it, with a guard.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{
    guard::GUARD_VERB,
    usage::Used,
    words::{Waited, Words},
};
use crate::{
    control::{
        client,
        protocol::{Request, Response},
    },
    failure::{Exit, Failure},
    observe::Snapshot,
    policy::Policy,
    sys::{
        hierarchy::Hierarchy,
        runtime::{Name, RuntimeDir},
    },
};

/// What environment variables begin with that are options.
const OPTIONS: &[u8] = b"REUSEPORT_LAUNCH_";

/// How long the workers may take to listen.
const STARTED: Duration = Duration::from_secs(20);

/// How often it is asked whether all of them do.
const LOOK: Duration = Duration::from_millis(50);

/// How long the launcher may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a launcher may take to replace a worker.
const REPLACED: Duration = Duration::from_secs(30);

/// How long it may still talk when it is to end.
const LAST_WORDS: Duration = Duration::from_secs(8);

const CANNOT: &str = "cannot start the server";

/// What to start.
#[derive(Clone, Debug)]
pub(super) struct Launch<'a> {
    pub(super) policy: Policy,
    pub(super) workers: u32,
    pub(super) command: Vec<OsString>,
    /// The CPUs that the launcher and its workers may use; empty: any.
    pub(super) cpus: &'a [usize],
    /// Whether it runs in a network namespace of its own.
    pub(super) own_namespace: bool,
    pub(super) runtime_dir: &'a Path,
}

/// A launcher that was started. Dropped, it is stopped with its workers, and waited for.
#[derive(Debug)]
pub(super) struct Launched {
    workers: u32,
    /// Its standard input is what tells it to go on.
    guard: Child,
    name: Name,
    runtime_dir: RuntimeDir,
    hierarchy: Hierarchy,
    words: Words,
    /// By worker, the connections that it had when they were looked at last: those of workers that have
    /// been replaced are not shown any more.
    connections: Mutex<BTreeMap<(u32, u64), u64>>,
}

impl Launched {
    /// Starts a launcher. It is not up yet.
    pub(super) fn start(launch: &Launch<'_>) -> Result<Self> {
        let exe = env::current_exe().context("cannot find the launcher to measure")?;
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name: Name = format!("bench-{}-{number}", process::id())
            .parse()
            .map_err(|error: String| anyhow!(error))?;
        let Launch {
            policy,
            workers,
            command,
            cpus,
            own_namespace,
            runtime_dir,
        } = launch;
        let hierarchy = Hierarchy::find()?;
        let mut guard = Command::new(&exe);
        guard.arg(GUARD_VERB);
        // Options of launchers in our environment are for another one.
        let names = env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.as_encoded_bytes().starts_with(OPTIONS)) {
            guard.env_remove(name);
        }
        if !cpus.is_empty() {
            let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
            guard.args(["--cpus", &cpus.join(",")]);
        }
        if *own_namespace {
            guard.arg("--own-namespace");
        }
        guard.args(["--", "--runtime-dir"]).arg(runtime_dir);
        guard.args(["--name", name.as_str(), "--steer", &policy.to_string()]);
        guard.args(["--workers", &workers.to_string()]);
        // No longer than a benchmark has.
        guard.args(["--stop-timeout", "2s", "--drain-timeout", "5s"]);
        if *policy == Policy::Cpu {
            // It needs workers that have a CPU each.
            guard.args(["--pin", "auto"]);
        }
        let mut guard = guard
            .arg("--")
            .args(command)
            // Ctrl-C is for us; we then end it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the launcher to measure")?;
        let Some(stderr) = guard.stderr.take() else {
            bail!("the launcher to measure has no standard error");
        };
        Ok(Self {
            workers: *workers,
            guard,
            name,
            runtime_dir: RuntimeDir::locate(Some(runtime_dir))?,
            hierarchy,
            words: Words::of(stderr),
            connections: Mutex::default(),
        })
    }

    /// Waits until all its workers are ready. Stops it if they are not in time, or when `off` says so.
    pub(super) fn wait(mut self, off: &dyn Fn() -> bool) -> Result<Self> {
        let deadline = Instant::now() + STARTED;
        let mut waited = self.words.wait_until_up(STARTED, off);
        // Its startup line comes after a while even if not all are ready.
        while waited == Waited::Come && self.snapshot()?.ready() < self.workers as usize {
            waited = match self.words.ended_within(LOOK) {
                true => Waited::Ended,
                false if off() => Waited::CalledOff,
                false if Instant::now() >= deadline => Waited::TooLong,
                false => Waited::Come,
            };
        }
        let failure = match waited {
            Waited::Come => return Ok(self),
            Waited::CalledOff => called_off(),
            Waited::TooLong => {
                let why = format!(
                    "not all copies of it listen on a port after {} s",
                    STARTED.as_secs()
                );
                self.failure(&why)
            }
            Waited::Ended => {
                self.end();
                // A launcher that ends by itself says why.
                match self.words.failure() {
                    Some(Failure {
                        what, why, hint, ..
                    }) => Failure::new(CANNOT, format_args!("{what}: {why}"), hint),
                    None => self.failure("the launcher has ended"),
                }
            }
        };
        Err(failure.into())
    }

    fn failure(&self, why: &str) -> Failure {
        let last = match self.words.last() {
            last if last.is_empty() => "; it said nothing".to_owned(),
            last => format!("; the last lines that were said:{last}"),
        };
        let hint = "start the command by itself, and see that it serves a TCP port";
        Failure::new(CANNOT, format!("{why}{last}"), hint)
    }

    /// Where its workers listen for connections: the first port of those that they share.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        let groups = self.snapshot()?.groups;
        // Another may be where a launcher of this name listened before.
        let mut shared = groups
            .iter()
            .filter(|group| group.members > 0 && group.protocol == "tcp");
        let Some(group) = shared.next() else {
            return Err(Failure::new(
                "cannot reach the server",
                "it listens on no TCP port that its copies could share",
                "have it listen on a port of its command line or configuration, not on any free one",
            )
            .exit(Exit::Failed)
            .into());
        };
        let ip = match group.address.parse()? {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Ok((ip, group.port).into())
    }

    /// What the launcher shows of itself.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        match self.ask(&Request::Status {}, PATIENCE)? {
            Response::Status(snapshot) => Ok(*snapshot),
            Response::Failed(error) => Err(Failure::from(error).into()),
            Response::Done | Response::Changed(_) => {
                bail!("a launcher answered without its status")
            }
        }
    }

    /// Replaces the worker of a slot, and returns when the old one is gone.
    pub(super) fn restart(&self, slot: u32) -> Result<()> {
        match self.ask(&Request::Restart { slot }, REPLACED)? {
            Response::Done | Response::Changed(_) => Ok(()),
            Response::Failed(error) => Err(Failure::from(error).into()),
            Response::Status(_) => bail!("a launcher answered with its status"),
        }
    }

    fn ask(&self, request: &Request, patience: Duration) -> Result<Response> {
        let answer = client::call(&self.runtime_dir, &self.name, request, Some(patience));
        Ok(answer?)
    }

    /// By slot, the connections that its workers were given, those that have been replaced included, as
    /// far as they were looked at. `None`: nobody counts them.
    pub(super) fn connections(&self, snapshot: &Snapshot) -> Option<Vec<u64>> {
        let connections = self.connections.lock();
        let mut connections = connections.unwrap_or_else(PoisonError::into_inner);
        for worker in &snapshot.workers {
            let total = worker.connections_total?;
            connections.insert((worker.slot, worker.generation), total);
        }
        let mut by_slot = vec![0; self.workers as usize];
        for (&(slot, _), total) in &*connections {
            if let Some(sum) = by_slot.get_mut(slot as usize) {
                *sum += total;
            }
        }
        Some(by_slot)
    }

    /// CPU seconds of all its workers since it started, with their children, those that have gone, too.
    pub(super) fn workers_cpu(&self) -> Result<f64> {
        let file = self.cgroup().join("cpu.stat");
        let stat =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let micros = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok());
        Ok(micros.context("the kernel does not tell the CPU time of a cgroup")? as f64 / 1e6)
    }

    /// The processes of a worker.
    pub(super) fn processes(&self, slot: u32, generation: u64) -> Vec<u32> {
        let mut pids = Vec::new();
        collect(
            &self.cgroup().join(format!("{slot}.{generation}")),
            &mut pids,
        );
        pids
    }

    /// How often the workers have been put to sleep or aside since they started.
    pub(super) fn context_switches(&self) -> Result<u64> {
        let workers = self.snapshot()?.workers.into_iter();
        let pids = workers.filter_map(|worker| worker.pid);
        Ok(pids.map(|pid| Used::by(pid).switches).sum())
    }

    /// The cgroup in which those of its workers are.
    fn cgroup(&self) -> PathBuf {
        self.hierarchy.fleet_directory(self.name.as_str())
    }

    /// Stops it and its workers, at once.
    fn end(&mut self) {
        // The guard sees the end of its standard input. It waits for the launcher, but not for ever.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        // Nobody answers, unless somebody has killed the guard.
        let _ = self.ask(&Request::Stop {}, LAST_WORDS);
        // Nothing is there, unless the launcher had to be killed.
        let _ = File::options()
            .write(true)
            .open(self.cgroup().join("cgroup.kill"))
            .and_then(|mut file| file.write_all(b"1"));
        self.words.ended_within(LAST_WORDS);
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is said when somebody does not want to wait any more.
pub(super) fn called_off() -> Failure {
    Failure::new(
        "not measured to the end",
        "interrupted by a signal",
        "everything that was started has been stopped",
    )
}

/// The processes of a cgroup, and those below it.
fn collect(directory: &Path, pids: &mut Vec<u32>) {
    let list = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    pids.extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}
