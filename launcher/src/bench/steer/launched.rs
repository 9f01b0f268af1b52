//! A launcher under measurement: the executable itself, as a person would start it.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{self, Child, ChildStderr, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::WORKER_VERB;
use crate::{
    control::{
        client,
        protocol::{Request, Response},
    },
    failure::Failure,
    observe::Snapshot,
    policy::Policy,
    sys::runtime::{Name, RuntimeDir},
};

/// How long the workers may take to listen, and the launcher to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What only the startup line has of all that a launcher says.
const STARTUP_LINE: &str = " · steer ";

/// A running launcher of built-in workers. Dropped, it is stopped and waited for.
#[derive(Debug)]
pub(super) struct Launched {
    child: Child,
    name: Name,
    runtime_dir: RuntimeDir,
    address: SocketAddr,
}

impl Launched {
    /// Starts a launcher, and waits until all its workers are ready.
    pub(super) fn start(policy: Policy, workers: u32, runtime_dir: &Path) -> Result<Self> {
        let exe = env::current_exe().context("cannot find the launcher to measure")?;
        let port = free_port().context("cannot find a free port")?;
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name: Name = format!("bench-{}-{number}", process::id())
            .parse()
            .map_err(|error: String| anyhow!(error))?;
        let mut child = Command::new(&exe)
            .arg("--runtime-dir")
            .arg(runtime_dir)
            .args(["--name", name.as_str(), "--stop-timeout", "2s"])
            .args([
                "--steer",
                &policy.to_string(),
                "--workers",
                &workers.to_string(),
            ])
            .arg("--")
            .arg(&exe)
            .args([WORKER_VERB, &port.to_string()])
            .env_remove("REUSEPORT_LAUNCH_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the launcher to measure")?;
        let stderr = child.stderr.take();
        let launched = Self {
            child,
            name,
            runtime_dir: RuntimeDir::locate(Some(runtime_dir))?,
            address: (Ipv4Addr::LOCALHOST, port).into(),
        };
        let (up, is_up) = mpsc::channel();
        let reader = thread::spawn(move || read(stderr, &up));
        if is_up.recv_timeout(PATIENCE).is_err() {
            drop(launched);
            let said = reader.join().unwrap_or_default();
            bail!("the launcher with --steer {policy} did not start; it said:\n{said}");
        }
        let ready = launched.snapshot()?.ready();
        if ready != workers as usize {
            bail!("only {ready} of {workers} workers became ready");
        }
        Ok(launched)
    }

    /// Where the workers listen.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the workers have been put to sleep or aside since they started.
    pub(super) fn context_switches(&self) -> Result<u64> {
        let pids = self
            .snapshot()?
            .workers
            .into_iter()
            .filter_map(|worker| worker.pid);
        let mut switches = 0;
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("a worker (pid {pid}) has gone"))?;
            // Two lines: the voluntary ones, and the others.
            let counts = status
                .lines()
                .filter_map(|line| line.split_once("_ctxt_switches:"));
            switches += counts
                .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
                .sum::<u64>();
        }
        Ok(switches)
    }

    /// What the launcher shows of itself.
    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        match client::call(
            &self.runtime_dir,
            &self.name,
            &Request::Status {},
            Some(PATIENCE),
        )? {
            Response::Status(snapshot) => Ok(*snapshot),
            Response::Failed(error) => Err(Failure::from(error).into()),
            Response::Done | Response::Changed(_) => {
                bail!("a launcher answered without its status")
            }
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // One that failed to start has ended already. Any other stops its workers, and kills those
        // that don't stop, so the wait is bounded.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Reads all that a launcher says, so that it never waits for us, and returns it.
fn read(stderr: Option<ChildStderr>, up: &Sender<()>) -> String {
    let mut said = String::new();
    let lines = stderr
        .into_iter()
        .flat_map(|stderr| BufReader::new(stderr).lines());
    for line in lines.map_while(Result::ok) {
        if line.contains(STARTUP_LINE) {
            // Nobody listens after the first.
            let _ = up.send(());
        }
        said += &line;
        said.push('\n');
    }
    said
}

/// A port that nobody has. In a namespace of our own nobody can take it before the workers do.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
