//! From the command line, the environment and the configuration file to a plan.

mod changes;
mod directory;
mod env_file;
mod environment;
mod example;
mod file;
mod given;
mod layers;
mod show;
#[cfg(test)]
mod tests;
mod toml_values;

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

pub use self::{
    changes::{Change, Changes},
    example::example,
    given::Given,
    layers::{App, Config, Entry, Source},
    show::{checked, json, text},
};
pub use crate::cli::{Check, Ready};
use crate::{
    capture::Ports,
    cli::{Ipc, LogFormat, PortSpec, Run},
    failure::{Exit, Failure},
    fleet::placement::{Cpu, Pinning, Workers, auto_count, spread},
    output::{self, LogFile},
    policy::{Policies, Policy},
    scrape::Address,
    sys::{cpus, identity::Identity, listeners::Protocol, program::find_program, runtime::Name},
    worker::WorkerId,
};

/// What is to be run: validated, and never changed afterwards. Plans that are made from the same
/// options in the same place are equal.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the launcher is called by the verbs.
    pub name: Name,
    /// The command and its arguments, as given; never empty.
    pub command: Vec<OsString>,
    /// The workers' working directory: absolute, with its symbolic links.
    pub directory: PathBuf,
    /// The file with more variables for the workers: absolute. It is read at each start.
    pub env_file: Option<PathBuf>,
    /// What the configuration file has workers find in their environment, over all of that.
    pub variables: Vec<(OsString, OsString)>,
    /// How many workers there are at first: `1..=WORKERS_MAX`.
    pub workers: u32,
    /// Why that many: `affinity 16, cpu.max 7.5 → 8`.
    pub workers_reason: String,
    /// How connections and datagrams are steered at first.
    pub policies: Policies,
    /// The eBPF object whose program steers in place of ours: absolute. It is read at the start of the
    /// launcher.
    pub steer_object: Option<PathBuf>,
    /// How long a UDP flow may be idle and still stay with its worker; not 0. `None`: none stays.
    pub udp_flow_timeout: Option<Duration>,
    /// How many UDP flows of a port stay with their workers: 1024 to 1048576.
    pub udp_flows: u32,
    /// Which ports are captured.
    pub ports: Ports,
    /// Whether TCP connections wait while no worker takes any.
    pub hold: bool,
    /// Which CPUs a slot may use.
    pub pinning: Pinning,
    /// The allowed CPUs in the order in which slots get them.
    pub cpus: Vec<u32>,
    /// What makes a worker ready.
    pub ready: Ready,
    /// How long that may take; not 0.
    pub ready_timeout: Duration,
    /// How ready workers are checked; `None`: not at all.
    pub health: Option<Health>,
    /// How long a worker may leave waiting connections alone; not 0. `None`: for ever.
    pub stall_timeout: Option<Duration>,
    /// How long a worker that goes may finish its connections; `None`: for ever.
    pub drain_timeout: Option<Duration>,
    /// How many workers are replaced at the same time; at least 1.
    pub max_surge: u32,
    /// When a worker has done enough.
    pub recycle: Recycle,
    /// Whether the workers are given a channel as between Node processes.
    pub ipc_node: bool,
    /// The number of the stop signal.
    pub stop_signal: i32,
    /// How long a worker has after it.
    pub stop_timeout: Duration,
    /// Who the workers run as.
    pub identity: Option<Identity>,
    /// Where metrics are served: a path is absolute. `None`: nowhere.
    pub metrics: Option<Address>,
    /// The format of our own messages.
    pub log_format: LogFormat,
    /// What becomes of the workers' output.
    pub output: output::Settings,
    /// How much more than usual is said: 0 to 2, where at 2 the eBPF programs log, too.
    pub verbose: u8,
}

/// How ready workers are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked of one.
    pub check: Check,
    /// The time between two checks; not 0.
    pub interval: Duration,
    /// How long a check may take; not 0.
    pub timeout: Duration,
    /// How many must fail in a row; at least 1.
    pub threshold: u32,
}

/// When a worker is replaced though nothing is wrong with it; `None`: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recycle {
    /// After so many connections; at least 1.
    pub max_connections: Option<u64>,
    /// Above so many bytes, its children's included.
    pub max_memory: Option<u64>,
    /// After this time; at least a second.
    pub max_age: Option<Duration>,
}

/// The log file that `path` names from the directory `current`.
fn log_file_at(current: &Path, path: &str, max_size: u64, keep: u32) -> Result<LogFile, Failure> {
    let absolute = current.join(path);
    let Some(absolute) = absolute.to_str() else {
        return Err(Failure::new(
            format!("cannot write the log file {path}"),
            "the path to it is not UTF-8",
            "name it by an absolute path: --log-file PATH",
        )
        .exit(Exit::Config));
    };
    Ok(LogFile {
        path: absolute.to_owned(),
        max_size,
        keep,
    })
}

impl Plan {
    /// Checks that what the options ask for together can be done here, with more `variables` for the
    /// workers.
    ///
    /// # Errors
    /// What can't, with the exit code for it.
    pub fn new(options: Run, variables: Vec<(OsString, OsString)>) -> Result<Self, Failure> {
        let Run {
            workers,
            pin,
            user,
            group,
            chdir,
            env_file,
            ipc,
            steer,
            steer_udp,
            steer_object,
            udp_flow_timeout,
            udp_flows,
            ports,
            no_hold,
            ready,
            ready_timeout,
            health,
            health_interval,
            health_timeout,
            health_threshold,
            stall_timeout,
            drain_timeout,
            max_surge,
            max_connections,
            max_memory,
            max_age,
            stop_signal,
            stop_timeout,
            name,
            metrics,
            log_format,
            log_lines,
            log_file,
            log_max_size,
            log_keep,
            verbose,
            selection: _,
            command,
        } = options;
        let Some(program) = command.first() else {
            return Err(Failure::new(
                "nothing to run",
                "no command was given",
                "reuseport-launch --workers auto -- ./myserver",
            )
            .exit(Exit::Usage));
        };
        let current = directory::current()?;
        let directory = directory::of_workers(&current, chdir.as_deref())?;
        let env_file = env_file.map(|file| current.join(file));
        let name = match name {
            Some(name) => name,
            None => Name::of_command(program),
        };
        let policies = Policies {
            all: steer,
            datagrams: steer_udp,
        };
        check_probes(policies, steer_object.is_some(), &ready, health.as_ref())?;
        check_ports(policies, &ports)?;
        let (cpus, workers, workers_reason) = place(workers, &pin)?;
        let plan = Self {
            name,
            directory,
            env_file,
            variables,
            workers,
            workers_reason,
            policies,
            steer_object: steer_object.map(|file| current.join(file)),
            udp_flow_timeout: udp_flow_timeout.0,
            udp_flows,
            ports: if ports.is_empty() {
                Ports::All
            } else {
                Ports::Only(
                    ports
                        .iter()
                        .map(|spec| (spec.protocol, spec.port))
                        .collect(),
                )
            },
            hold: !no_hold,
            pinning: pin,
            cpus,
            ipc_node: ipc == Some(Ipc::Node) || ready == Ready::Node,
            ready,
            ready_timeout,
            health: health.map(|check| Health {
                check,
                interval: health_interval,
                timeout: health_timeout,
                threshold: health_threshold,
            }),
            stall_timeout: stall_timeout.0,
            drain_timeout: drain_timeout.0,
            max_surge,
            recycle: Recycle {
                max_connections,
                max_memory,
                max_age,
            },
            stop_signal: stop_signal.number(),
            stop_timeout,
            identity: Identity::resolve(user.as_deref(), group.as_deref())?,
            metrics: metrics.map(|address| address.from_directory(&current)),
            log_format,
            output: output::Settings {
                json: log_format == LogFormat::Json,
                lines: log_lines,
                file: log_file
                    .map(|path| log_file_at(&current, &path, log_max_size, log_keep))
                    .transpose()?,
            },
            verbose,
            command,
        };
        plan.check_start()?;
        Ok(plan)
    }

    /// Whether a worker could be started. Each start looks again, because a deploy may replace the
    /// program and the environment file; a typo should be known at once.
    fn check_start(&self) -> Result<(), Failure> {
        let worker = WorkerId {
            slot: 0,
            generation: 1,
        };
        let environment = self.environment(worker, self.workers, std::env::vars_os())?;
        self.program(worker, &environment).map(|_| ())
    }

    /// A worker's arguments: the command with every `{slot}` replaced by its slot.
    #[must_use]
    pub fn arguments(&self, worker: WorkerId) -> Vec<OsString> {
        let slot = worker.slot.to_string();
        self.command
            .iter()
            .map(|argument| replace(argument, "{slot}", &slot))
            .collect()
    }

    /// The program of a worker's command, as it is found at this moment: a path that may be
    /// relative to [`directory`](Self::directory).
    ///
    /// # Errors
    /// When there is none, or it can't be executed.
    pub fn program(
        &self,
        worker: WorkerId,
        environment: &[(OsString, OsString)],
    ) -> Result<PathBuf, Failure> {
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map(|(_, value)| value.as_os_str());
        let arguments = self.arguments(worker);
        let name = arguments.first().map_or(OsStr::new(""), |name| name);
        find_program(name, &self.directory, path)
    }
}

/// The allowed CPUs in the order in which slots get them, the number of workers, and its reason.
fn place(workers: Workers, pinning: &Pinning) -> Result<(Vec<u32>, u32, String), Failure> {
    let machine = cpus::machine(Path::new("/"));
    let order = spread(
        &machine
            .cpus
            .iter()
            .map(|&(id, package, core)| Cpu {
                id,
                core: (package, core),
            })
            .collect::<Vec<_>>(),
    );
    check_pinning(pinning, &order)?;
    let (count, reason) = match workers {
        Workers::Auto => auto_count(
            order.len() as u32,
            machine.quota.as_ref().map(|quota| quota.cpus),
        ),
        Workers::Count(count) => (count, "as asked".to_owned()),
    };
    Ok((order, count, reason))
}

fn replace(text: &OsStr, from: &str, to: &str) -> OsString {
    let mut rest = text.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some(at) = rest
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

/// A question to one worker goes through the port that all share, so the program must steer it.
fn check_probes(
    policies: Policies,
    object: bool,
    ready: &Ready,
    health: Option<&Check>,
) -> Result<(), Failure> {
    let asks = health.is_some() || matches!(ready, Ready::Tcp | Ready::Http(_));
    let (with, why) = if object {
        (
            "--steer-object",
            "the object does not know which worker a question is for",
        )
    } else if policies.connections() == Policy::Kernel {
        (
            "--steer kernel",
            "no eBPF program is there to steer the question to the worker that is meant",
        )
    } else {
        return Ok(());
    };
    if !asks {
        return Ok(());
    }
    Err(Failure::new(
        format!("cannot ask single workers over tcp or http with {with}"),
        why,
        "choose another policy, or --ready listen, notify or node, and no --health",
    )
    .exit(Exit::Usage))
}

/// Where there are only datagrams, nothing can be dealt out by connections.
fn check_ports(policies: Policies, ports: &[PortSpec]) -> Result<(), Failure> {
    let only_datagrams = ports.iter().all(|spec| spec.protocol == Protocol::Udp);
    let counts = policies.all == Some(Policy::LeastConn) && policies.datagrams.is_none();
    if ports.is_empty() || !only_datagrams || !counts {
        return Ok(());
    }
    Err(Failure::new(
        "cannot steer UDP ports by --steer least-conn",
        "datagrams have no connections that could be counted",
        "choose another policy, such as hash, or leave the option out",
    )
    .exit(Exit::Usage))
}

fn check_pinning(pinning: &Pinning, allowed: &[u32]) -> Result<(), Failure> {
    let Pinning::List(wanted) = pinning else {
        return Ok(());
    };
    match wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(()),
        Some(cpu) => {
            let mut allowed = allowed.to_vec();
            allowed.sort_unstable();
            Err(Failure::new(
                format!("cannot pin a worker to CPU {cpu}"),
                "this process may not use it",
                format!(
                    "name CPUs of {}, or widen the launcher's affinity (taskset, cpuset)",
                    crate::fleet::placement::format_cpu_list(&allowed)
                ),
            )
            .exit(Exit::Usage))
        }
    }
}
