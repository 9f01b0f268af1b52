//! The command line: its verbs, options and help. Parsing ends with values that are valid by
//! themselves; what they mean together is `config`'s to decide.

mod bench;
mod completions;
mod keys;
mod manual;
mod parse;
mod policies;
mod quantities;
mod run;
#[cfg(test)]
mod tests;
mod values;
mod verbs;

use std::path::PathBuf;

use clap::Parser;

pub use bench::{Bench, Disturb, Shape};
pub use completions::{Shell, answer, script};
pub use keys::{Key, Kind, keys, variable};
pub use manual::{Page, pages};
pub use parse::{Setting, check_setting, options, parse};
pub use quantities::{TimeLimit, duration};
pub use run::{Ipc, LogFormat, Run, Selection};
pub use values::{Check, PortSpec, Ready, SlotOrName, StopSignal, Target};
pub use verbs::Verb;

/// The environment variable that sets the number of workers where `--workers` does not.
pub const WORKERS_VARIABLE: &str = "WEB_CONCURRENCY";

const USAGE: &str = "reuseport-launch [OPTIONS] -- COMMAND [ARG]...
       reuseport-launch <VERB> [OPTIONS] [NAME]";

const EXAMPLES: &str = "\
Examples:
  One worker per CPU, all on port 8080:
      reuseport-launch --workers auto -- python3 -m http.server 8080
  Four workers, each on its own CPU; no port but 3000 is shared:
      reuseport-launch -w 4 --pin auto --port 3000 -- node server.js
  Drop root in the workers, and stop them with QUIT:
      reuseport-launch --user www-data --stop-signal QUIT -- ./myserver
  Ready when /ready answers, replaced when /health does not:
      reuseport-launch --ready http:/ready --health http:/health -- ./myserver
  Another version of the command, more workers of it, and the end:
      reuseport-launch reload myserver
      reuseport-launch scale 8 myserver
      reuseport-launch stop myserver
  What runs, and one of it in detail, for people and for scripts:
      reuseport-launch ls
      reuseport-launch status myserver
      reuseport-launch status myserver --json
  What it is worth on this host, against the alternatives:
      reuseport-launch bench -- ./myserver

  All of it in a file, which is checked first and read again by `reload`:
      reuseport-launch check --config shop.toml
      reuseport-launch run --config shop.toml

Each option of `run` can also stand in the file of --config, by its name, or in an environment \
variable: REUSEPORT_LAUNCH_ and its name in capitals, with _ for -. The command line comes before the \
environment, that before the file. `print-config` shows what is in force.

DURATION is 500ms, 8s, 2m, 1h or plain seconds, SIZE 512M, 2G or plain bytes (K = 1024). Verbs \
wait until the thing is done; to interrupt one does not call it off.

Each worker gets REUSEPORT_LAUNCH_SLOT, REUSEPORT_LAUNCH_GENERATION, REUSEPORT_LAUNCH_WORKERS and \
NODE_APP_INSTANCE (= slot); {slot} in ARG is replaced by the slot.

Signals: HUP reloads (on a terminal it stops), TTIN and TTOU add and remove a worker, USR1 opens \
the log files anew, USR2 upgrades the launcher, TERM and INT stop gracefully, a second INT or QUIT at once.

Exit codes: 0 stopped as asked, 1 gave up or failed, 2 usage, 69 a kernel feature or privilege is \
missing, 78 wrong configuration, 126 COMMAND is not executable, 127 COMMAND was not found.";

/// What the command line asks for.
#[derive(Debug)]
pub struct Invocation {
    /// `--runtime-dir`, or its environment variable.
    pub runtime_dir: Option<PathBuf>,
    /// What to do.
    pub verb: Verb,
    /// The options of `run` that stand on the command line, if the verb has them.
    pub given: Vec<Setting>,
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
