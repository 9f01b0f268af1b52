//! The command line: its verbs, options and help. Parsing ends with values that are valid by
//! themselves; what they mean together is `config`'s to decide.

mod parse;
#[cfg(test)]
mod tests;
mod values;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use parse::parse;
pub use values::{PortSpec, StopSignal, duration};

use crate::{
    fleet::placement::{Pinning, Workers},
    policy::Policy,
    sys::runtime::Name,
};

/// The environment variable that sets the number of workers where `--workers` does not.
pub const WORKERS_VARIABLE: &str = "WEB_CONCURRENCY";

const USAGE: &str = "reuseport-launch [OPTIONS] -- COMMAND [ARG]...
       reuseport-launch <VERB> [OPTIONS] [NAME]";

const RUN_USAGE: &str = "reuseport-launch run [OPTIONS] -- COMMAND [ARG]...";

const EXAMPLES: &str = "\
Examples:
  One worker per CPU, all on port 8080:
      reuseport-launch --workers auto -- python3 -m http.server 8080
  Four workers, each on its own CPU; port 3000 is shared, other ports are left alone:
      reuseport-launch -w 4 --pin auto --port 3000 -- node server.js
  Drop root in the workers, stop them with QUIT, KILL after 30 s:
      reuseport-launch --user www-data --stop-signal QUIT --stop-timeout 30s -- ./myserver
  What runs, in detail and for scripts, and its end:
      reuseport-launch ls
      reuseport-launch status myserver --json
      reuseport-launch stop myserver

Each worker gets REUSEPORT_LAUNCH_SLOT, REUSEPORT_LAUNCH_GENERATION, REUSEPORT_LAUNCH_WORKERS and
NODE_APP_INSTANCE (= slot); {slot} in ARG is replaced by the slot.

Signals: TERM and INT stop gracefully, a second INT or QUIT at once.
Exit codes: 0 stopped as asked, 1 gave up or failed, 2 usage, 69 a kernel feature or privilege is
missing, 78 wrong configuration, 126 COMMAND is not executable, 127 COMMAND was not found.";

/// What the command line asks for.
#[derive(Debug)]
pub struct Invocation {
    /// `--runtime-dir`, or its environment variable.
    pub runtime_dir: Option<PathBuf>,
    /// What to do.
    pub verb: Verb,
}

/// Runs any unmodified server on every core: one worker per CPU, one shared port, connections
/// steered in the kernel by eBPF
#[derive(Debug, Parser)]
#[command(
    name = "reuseport-launch",
    version,
    override_usage = USAGE,
    after_help = EXAMPLES,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Run,
    /// Directory of the control sockets [default: /run/reuseport-launch for root,
    /// $XDG_RUNTIME_DIR/reuseport-launch or else /tmp/reuseport-launch-UID for others]
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "REUSEPORT_LAUNCH_RUNTIME_DIR",
        hide_env_values = true,
        help_heading = "Global options"
    )]
    runtime_dir: Option<PathBuf>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the workers and stay with them (the default verb)
    #[command(override_usage = RUN_USAGE)]
    Run(Run),
    /// Show the workers, the shared ports and who got how many connections
    Status {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
        /// Print one JSON object and nothing else
        #[arg(long)]
        json: bool,
    },
    /// List the launchers that run
    Ls {
        /// Print one JSON array and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Stop a launcher and its workers, and wait until they are gone
    Stop {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
}

/// The options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// How many workers: auto = the allowed CPUs, or the cgroup's CPU quota where that is less
    /// [env: WEB_CONCURRENCY]
    #[arg(
        short,
        long,
        value_name = "auto|N",
        default_value = "auto",
        help_heading = "Workers"
    )]
    pub workers: Workers,
    /// Bind workers to CPUs: auto = each slot to its own, physical cores first; a list is dealt
    /// out by slot
    #[arg(
        long,
        value_name = "none|auto|CPU-LIST",
        default_value = "none",
        help_heading = "Workers"
    )]
    pub pin: Pinning,
    /// Run the workers as this user (name or id)
    #[arg(long, value_name = "USER", help_heading = "Workers")]
    pub user: Option<String>,
    /// Run the workers with this group (name or id) [default: USER's own]
    #[arg(long, value_name = "GROUP", help_heading = "Workers")]
    pub group: Option<String>,
    /// How connections are dealt out: in turn, by the client's and server's address and port, or
    /// by the kernel's own hash without eBPF selection [default: round-robin; hash for UDP, where
    /// round-robin would tear flows apart]
    #[arg(
        long,
        value_name = "round-robin|hash|kernel",
        help_heading = "Connections"
    )]
    pub steer: Option<Policy>,
    /// Share only this port; may be repeated [default: every port the command binds by number]
    #[arg(
        long = "port",
        value_name = "PORT[/tcp|/udp]",
        help_heading = "Connections"
    )]
    pub ports: Vec<PortSpec>,
    /// Signal that asks a worker to stop (name or number)
    #[arg(
        long,
        value_name = "SIGNAL",
        default_value = "TERM",
        help_heading = "Stopping"
    )]
    pub stop_signal: StopSignal,
    /// Time a worker has to stop before it is killed: 500ms, 8s, 2m, or plain seconds
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "8s",
        value_parser = duration,
        help_heading = "Stopping"
    )]
    pub stop_timeout: Duration,
    /// Name for `status` and `stop` [default: the command's file name]
    #[arg(long, value_name = "NAME", help_heading = "Launcher")]
    pub name: Option<Name>,
    /// Format of the launcher's own messages on standard error
    #[arg(
        long,
        value_enum,
        value_name = "auto|text|json",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = "Launcher"
    )]
    pub log_format: LogFormat,
    /// Say more on standard error; -vv says everything, the eBPF programs' own lines too
    #[arg(short, long, action = ArgAction::Count, help_heading = "Launcher")]
    pub verbose: u8,
    /// The server to start, as you would start one copy of it; never empty
    #[arg(last = true, value_name = "COMMAND", hide = true)]
    pub command: Vec<OsString>,
}

/// The format of the launcher's own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Chosen by where standard error goes.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}
