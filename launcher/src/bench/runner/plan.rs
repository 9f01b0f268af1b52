//! What a benchmark is to do: the options, checked against each other and against the machine.

use std::{ffi::OsString, time::Duration};

use super::files::Target;
use crate::{
    bench::{
        model::{Level, Shape},
        modes::{Disturbance, Mode, Work},
    },
    cli::{self, Disturb},
    failure::{Exit, Failure},
    fleet::placement::{Workers, auto_count},
    policy::Policy,
    sys::cpus::Machine,
};

const CANNOT: &str = "cannot measure";

/// With how many requests at a time, where connections are not long-lived.
const CONNECTIONS: u32 = 50;

/// The validated plan.
#[derive(Debug)]
pub(super) struct Plan {
    /// In the order of the command line, the baseline among them.
    pub(super) modes: Vec<Mode>,
    /// The index of the baseline.
    pub(super) baseline: usize,
    /// How many workers.
    pub(super) workers: u32,
    /// What the built-in server does for a request.
    pub(super) work: Work,
    /// One's own server.
    pub(super) command: Option<Vec<OsString>>,
    /// How connections are used.
    pub(super) shape: Shape,
    /// How many requests are under way at a time.
    pub(super) connections: u32,
    /// The loads after the peak, ascending.
    pub(super) loads: Vec<u8>,
    /// How many rounds.
    pub(super) rounds: u32,
    /// How long a measurement counts, in seconds.
    pub(super) seconds: f64,
    /// What requests ask for.
    pub(super) path: String,
    /// When a request has failed, in seconds.
    pub(super) timeout: f64,
    /// How long all of it may take.
    pub(super) limit: Option<Duration>,
    /// How workers are disturbed.
    pub(super) disturb: Option<Disturb>,
    /// Whether the host's own network is asked for.
    pub(super) host_network: bool,
    /// Where the report goes, besides the terminal.
    pub(super) files: Files,
}

/// Where the report goes, besides the terminal.
#[derive(Debug)]
pub(super) struct Files {
    /// As JSON.
    pub(super) json: Option<Target>,
    /// As a picture.
    pub(super) svg: Option<Target>,
    /// As a page.
    pub(super) html: Option<Target>,
}

impl Plan {
    /// # Errors
    /// When a mode is unknown, the options do not go together, or a file can't be written.
    pub(super) fn new(options: cli::Bench, machine: &Machine) -> Result<Self, Failure> {
        let cli::Bench {
            modes,
            baseline,
            rounds,
            seconds,
            time,
            disturb,
            host_network,
            workers,
            spin_us,
            sleep_us,
            mix,
            path,
            shape,
            connections,
            mut load,
            timeout,
            json,
            svg,
            html,
            command,
        } = options;
        let command = (!command.is_empty()).then_some(command);
        let own = command.is_some();
        let (modes, baseline) = choose(&modes, baseline.as_deref(), own)?;
        let workers = match workers {
            Workers::Auto => {
                let quota = machine.quota.as_ref().map(|quota| quota.cpus);
                auto_count(machine.cpus.len() as u32, quota).0
            }
            Workers::Count(count) => count,
        };
        load.sort_unstable();
        load.dedup();
        if disturb.is_some() {
            load.truncate(1);
        }
        let default_connections = match shape {
            cli::Shape::LongLived => workers * 2,
            cli::Shape::Connection | cli::Shape::KeepAlive(_) => CONNECTIONS,
        };
        let work = match (spin_us, sleep_us, mix) {
            (Some(micros), _, _) => Work::Spin(Duration::from_micros(micros)),
            (_, Some(micros), _) => Work::Sleep(Duration::from_micros(micros)),
            (_, _, Some(mix)) => mix.parse().map_err(|invalid| {
                let hint = "give --mix such as 90:spin1000,10:sleep30000";
                Failure::new(format!("{CANNOT} with --mix {mix}"), invalid, hint).exit(Exit::Usage)
            })?,
            (None, None, None) => Work::None,
        };
        Ok(Self {
            modes,
            baseline,
            workers,
            work,
            command,
            shape: match shape {
                cli::Shape::Connection => Shape::Connection,
                cli::Shape::KeepAlive(requests) => Shape::KeepAlive { requests },
                cli::Shape::LongLived => Shape::LongLived,
            },
            connections: connections.unwrap_or(default_connections),
            loads: load,
            rounds,
            seconds: seconds.unwrap_or(if disturb.is_some() { 5.0 } else { 2.0 }),
            path,
            timeout: timeout.as_secs_f64(),
            limit: time,
            disturb,
            host_network,
            files: files(json, svg, html)?,
        })
    }

    /// How long requests are sent before any is counted, in seconds.
    pub(super) fn warmup(&self) -> f64 {
        (self.seconds / 4.0).clamp(0.1, 1.0)
    }

    /// What is measured after the peak, and the share of the baseline's peak that each is.
    pub(super) fn levels(&self) -> impl Iterator<Item = (Level, f64)> {
        let level = |&percent: &u8| (Level::Percent(percent), f64::from(percent) / 100.0);
        self.loads.iter().map(level)
    }

    /// How workers are disturbed, as modes are told.
    pub(super) fn disturbance(&self) -> Option<Disturbance> {
        self.disturb.map(|disturb| match disturb {
            Disturb::Reload => Disturbance::Reload,
            Disturb::Kill => Disturbance::Kill,
            Disturb::Stall => Disturbance::Stall,
        })
    }

    /// What the report says that workers do.
    pub(super) fn work(&self) -> String {
        match &self.command {
            None => match &self.work {
                Work::Spin(time) => format!("spin {} µs", time.as_micros()),
                Work::Sleep(time) => format!("sleep {} µs", time.as_micros()),
                work @ (Work::None | Work::Mix(_)) => work.to_string(),
            },
            Some(command) => {
                let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
                words.join(" ")
            }
        }
    }
}

/// The modes, and which of them is the baseline.
fn choose(
    names: &[String],
    baseline: Option<&str>,
    own: bool,
) -> Result<(Vec<Mode>, usize), Failure> {
    let mut modes = Vec::new();
    for name in names {
        let mode = parse("--modes", name)?;
        if modes.contains(&mode) {
            let hint = "name each mode once: --rounds N measures all of them again and again";
            return Err(
                Failure::new(CANNOT, format_args!("--modes has {mode} twice"), hint)
                    .exit(Exit::Usage),
            );
        }
        modes.push(mode);
    }
    if modes.is_empty() {
        modes = usual(own);
    }
    let baseline = match baseline {
        Some(name) => {
            let mode = parse("--baseline", name)?;
            modes
                .iter()
                .position(|other| *other == mode)
                .unwrap_or_else(|| {
                    modes.insert(0, mode);
                    0
                })
        }
        None => {
            let usual = if own {
                Mode::Single
            } else {
                Mode::MasterDispatch
            };
            modes.iter().position(|mode| *mode == usual).unwrap_or(0)
        }
    };
    if own && let Some(mode) = modes.iter().find(|mode| mode.needs_cooperation()) {
        let able = Mode::all()
            .into_iter()
            .filter(|mode| !mode.needs_cooperation());
        let able: Vec<String> = able.map(|mode| mode.to_string()).collect();
        return Err(Failure::new(
            format!("{CANNOT} {mode} with a server of your own"),
            "in this mode the server must take a listening socket, or connections, from a master, as only \
             the built-in one does",
            format!("leave the COMMAND out, or choose among {}", able.join(", ")),
        )
        .exit(Exit::Usage));
    }
    Ok((modes, baseline))
}

fn parse(option: &str, name: &str) -> Result<Mode, Failure> {
    name.parse().map_err(|invalid| {
        let what = format!("{CANNOT} {option} {name:?}");
        let hint = "reuseport-launch bench --help tells what each mode is";
        Failure::new(what, invalid, hint).exit(Exit::Usage)
    })
}

/// What is compared where nothing else is said.
fn usual(own: bool) -> Vec<Mode> {
    let all = [
        Mode::Single,
        Mode::SharedListener,
        Mode::SharedListenerExclusive,
        Mode::MasterDispatch,
        Mode::ProxyDispatch,
        Mode::ReuseportKernel,
        Mode::ReuseportEbpf(Policy::RoundRobin),
        Mode::ReuseportEbpf(Policy::LeastConn),
    ];
    let able = all
        .into_iter()
        .filter(|mode| !(own && mode.needs_cooperation()));
    able.collect()
}

fn files(
    json: Option<std::path::PathBuf>,
    svg: Option<std::path::PathBuf>,
    html: Option<std::path::PathBuf>,
) -> Result<Files, Failure> {
    let check = |path: Option<std::path::PathBuf>| path.as_deref().map(Target::check).transpose();
    let files = Files {
        json: check(json)?,
        svg: check(svg)?,
        html: check(html)?,
    };
    let named: Vec<&Target> = [&files.json, &files.svg, &files.html]
        .into_iter()
        .flatten()
        .collect();
    for (number, target) in named.iter().enumerate() {
        if named
            .iter()
            .skip(number + 1)
            .any(|other| target.is_same(other))
        {
            return Err(Failure::new(
                "cannot write the reports",
                "two of --json, --svg and --html name the same file",
                "give each a file of its own",
            )
            .exit(Exit::Usage));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::cli::Verb;

    fn options(line: &str) -> cli::Bench {
        let words = ["reuseport-launch", "bench"]
            .into_iter()
            .chain(line.split_whitespace());
        match cli::parse(words.map(OsString::from)).unwrap().verb {
            Verb::Bench(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    fn plan(line: &str) -> Result<Plan, Failure> {
        let machine = Machine {
            cpus: vec![(0, 0, 0), (1, 0, 1), (2, 0, 2)],
            quota: None,
        };
        Plan::new(options(line), &machine)
    }

    fn names(plan: &Plan) -> Vec<String> {
        plan.modes.iter().map(Mode::to_string).collect()
    }

    #[test]
    fn without_options_the_usual_modes_are_compared_with_master_dispatch() {
        let plan = plan("").unwrap();
        assert_eq!(plan.modes.len(), 8);
        assert_eq!(plan.modes[plan.baseline], Mode::MasterDispatch);
        assert_eq!((plan.workers, plan.connections, plan.rounds), (3, 50, 5));
        assert_eq!((plan.seconds, plan.warmup(), plan.timeout), (2.0, 0.5, 2.0));
        assert_eq!(plan.loads, [50, 70, 90]);
        assert_eq!(plan.work(), "none");
    }

    #[test]
    fn the_work_of_the_built_in_server_is_told_with_its_unit() {
        for (line, work) in [
            ("--spin-us 5000", "spin 5000 µs"),
            ("--sleep-us 70", "sleep 70 µs"),
            (
                "--mix 90:spin1000,10:sleep30000",
                "90:spin1000,10:sleep30000",
            ),
        ] {
            assert_eq!(plan(line).unwrap().work(), work);
        }
    }

    #[test]
    fn a_server_of_ones_own_is_compared_with_one_copy_of_it() {
        let plan = plan("--workers 2 --shape long-lived -- node server.js").unwrap();
        assert_eq!(
            names(&plan),
            [
                "single",
                "proxy-dispatch",
                "reuseport-kernel",
                "reuseport-ebpf:round-robin",
                "reuseport-ebpf:least-conn"
            ]
        );
        assert_eq!(plan.modes[plan.baseline], Mode::Single);
        assert_eq!(
            (plan.connections, plan.work()),
            (4, "node server.js".into())
        );
        assert_eq!(plan.command.unwrap()[0], OsStr::new("node"));
    }

    #[test]
    fn the_baseline_is_one_of_the_modes() {
        for (line, modes, baseline) in [
            ("--modes single,reuseport-kernel", 2, "single"),
            ("--modes single,master-dispatch", 2, "master-dispatch"),
            (
                "--modes single --baseline reuseport-kernel",
                2,
                "reuseport-kernel",
            ),
            (
                "--modes single,reuseport-kernel --baseline reuseport-kernel",
                2,
                "reuseport-kernel",
            ),
        ] {
            let plan = plan(line).unwrap();
            let found = plan.modes[plan.baseline].to_string();
            assert_eq!(
                (plan.modes.len(), found.as_str()),
                (modes, baseline),
                "{line}"
            );
        }
    }

    #[test]
    fn disturbances_have_one_load_and_more_time() {
        let plan = plan("--disturb kill --load 70,50,70").unwrap();
        assert_eq!((plan.loads.as_slice(), plan.seconds), (&[50][..], 5.0));
        assert!(plan.levels().eq([(Level::Percent(50), 0.5)]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_three_parts() {
        for (line, word) in [
            ("--modes fastest", "reuseport-ebpf:least-conn"),
            ("--modes single,", "\"\""),
            ("--modes single,single", "twice"),
            ("--baseline kernel", "unknown mode"),
            ("--modes master-dispatch -- ./server", "choose among single"),
            ("--baseline shared-listener -- ./server", "your own"),
            ("--mix 90:nothing", "spin1000"),
            ("--json /none/here", "/none/here"),
            ("--json x --html ./x", "same file"),
        ] {
            let failure = plan(line).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{line}");
            let text = failure.to_string();
            assert!(
                text.contains(word) && text.contains("\n  → "),
                "{line}: {text}"
            );
        }
    }
}
