//! From the command line and the environment to a plan.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
    time::Duration,
};

use crate::{
    capture::Ports,
    cli::{LogFormat, Run},
    failure::{Exit, Failure},
    fleet::placement::{Cpu, Pinning, Workers, auto_count, spread},
    policy::Policy,
    sys::{cpus, identity::Identity, program::find_program, runtime::Name},
    worker::WorkerId,
};

/// What is to be run: validated, and never changed afterwards.
#[derive(Debug)]
pub struct Plan {
    /// What the launcher is called in status and stop.
    pub name: Name,
    /// The command and its arguments, as given; never empty.
    pub command: Vec<OsString>,
    /// How many workers.
    pub workers: u32,
    /// Why that many: `affinity 16, cpu.max 7.5 → 8`.
    pub workers_reason: String,
    /// How connections are steered; `None` is the default of each protocol.
    pub policy: Option<Policy>,
    /// Which ports are captured.
    pub ports: Ports,
    /// Which CPUs a slot may use.
    pub pinning: Pinning,
    /// The allowed CPUs in the order in which slots get them.
    pub cpus: Vec<u32>,
    /// The number of the stop signal.
    pub stop_signal: i32,
    /// How long a worker has after it.
    pub stop_timeout: Duration,
    /// Who the workers run as.
    pub identity: Option<Identity>,
    /// The format of our own messages.
    pub log_format: LogFormat,
    /// Whether the eBPF programs log.
    pub ebpf_log: bool,
}

impl Plan {
    /// Checks that what the options ask for together can be done here.
    ///
    /// # Errors
    /// What can't, with the exit code for it.
    pub fn new(options: Run) -> Result<Self, Failure> {
        let Run {
            workers,
            pin,
            user,
            group,
            steer,
            ports,
            stop_signal,
            stop_timeout,
            name,
            log_format,
            verbose,
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
        // Later starts look again (a deploy may replace the file); a typo should be known now.
        find_program(program, std::env::var_os("PATH").as_deref())?;
        let name = match name {
            Some(name) => name,
            None => Name::of_command(program),
        };
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
        check_pinning(&pin, &order)?;
        let (workers, workers_reason) = match workers {
            Workers::Auto => auto_count(
                order.len() as u32,
                machine.quota.as_ref().map(|quota| quota.cpus),
            ),
            Workers::Count(count) => (count, "as asked".to_owned()),
        };
        Ok(Self {
            name,
            workers,
            workers_reason,
            policy: steer,
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
            pinning: pin,
            cpus: order,
            stop_signal: stop_signal.number(),
            stop_timeout,
            identity: Identity::resolve(user.as_deref(), group.as_deref())?,
            log_format,
            ebpf_log: verbose >= 2,
            command,
        })
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

    /// A worker's environment, made from ours.
    #[must_use]
    pub fn environment(
        &self,
        worker: WorkerId,
        ours: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let mut environment: Vec<_> = ours.filter(|(name, _)| !is_ours(name)).collect();
        let mut set = |name: &str, value: OsString| {
            environment.retain(|(present, _)| present != name);
            environment.push((name.into(), value));
        };
        set("REUSEPORT_LAUNCH_SLOT", worker.slot.to_string().into());
        set(
            "REUSEPORT_LAUNCH_GENERATION",
            worker.generation.to_string().into(),
        );
        set("REUSEPORT_LAUNCH_WORKERS", self.workers.to_string().into());
        set("NODE_APP_INSTANCE", worker.slot.to_string().into());
        if let Some(identity) = &self.identity {
            for (name, value) in &identity.environment {
                environment.retain(|(present, _)| present != name);
                environment.push((name.clone(), value.clone()));
            }
        }
        let godebug = environment.iter().position(|(name, _)| name == "GODEBUG");
        let godebug = godebug.map(|index| environment.swap_remove(index).1);
        environment.push(("GODEBUG".into(), without_mptcp(godebug)));
        environment
    }
}

/// What is addressed to the launcher and would mislead a worker: the service manager's sockets and
/// watchdog, and the number of workers that we have already acted on (gunicorn would multiply it).
fn is_ours(name: &OsStr) -> bool {
    const OURS: [&str; 7] = [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "WEB_CONCURRENCY",
    ];
    OURS.iter().any(|ours| name == *ours)
}

/// Go 1.24 and later open MPTCP listeners by default, which the kernel can't steer.
fn without_mptcp(godebug: Option<OsString>) -> OsString {
    const SETTING: &str = "multipathtcp=0";
    match godebug {
        Some(value) if value.is_empty() => SETTING.into(),
        Some(value)
            if value
                .to_string_lossy()
                .split(',')
                .any(|set| set.starts_with("multipathtcp=")) =>
        {
            value
        }
        Some(mut value) => {
            value.push(",");
            value.push(SETTING);
            value
        }
        None => SETTING.into(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_put_into_arguments() {
        assert_eq!(
            replace("--log=/var/{slot}/{slot}.log".as_ref(), "{slot}", "12"),
            "--log=/var/12/12.log"
        );
        assert_eq!(replace("{slo}".as_ref(), "{slot}", "1"), "{slo}");
    }

    #[test]
    fn go_is_told_not_to_use_mptcp_unless_it_was_told_otherwise() {
        assert_eq!(without_mptcp(None), "multipathtcp=0");
        assert_eq!(without_mptcp(Some("".into())), "multipathtcp=0");
        assert_eq!(
            without_mptcp(Some("gctrace=1".into())),
            "gctrace=1,multipathtcp=0"
        );
        assert_eq!(
            without_mptcp(Some("multipathtcp=1".into())),
            "multipathtcp=1"
        );
    }
}
