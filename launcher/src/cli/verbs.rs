//! The verbs.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;

use super::{
    bench::Bench,
    completions::Shell,
    policies::PolicyParser,
    quantities::{TimeLimit, duration_or_infinite, interval, log_lines},
    run::Run,
    values::{SlotOrName, Target, hint, json, slot, weight, worker_count},
};
use crate::{policy::Policy, sys::runtime::Name};

const RUN_USAGE: &str = "reuseport-launch run [OPTIONS] -- COMMAND [ARG]...";

const BENCH_USAGE: &str = "reuseport-launch bench [OPTIONS] [-- COMMAND [ARG]...]";

const BENCH_HELP: &str = "\
Modes:
  single                     one worker alone
  shared-listener            all workers wait at one listening socket, and all
                             wake for each connection *
  shared-listener-exclusive  the same, but only one wakes (EPOLLEXCLUSIVE) *
  master-dispatch            a master accepts, and hands connections to workers
                             in turn, as Node's cluster module does *
  proxy-dispatch             a master accepts, and passes bytes to a worker and
                             back, as a load balancer does
  reuseport-kernel           the kernel's own hash (SO_REUSEPORT)
  reuseport-ebpf:POLICY      reuseport-launch with this --steer: round-robin,
                             least-conn, hash, source, cpu, random
  * with the built-in server only

Examples:
  What steering buys on this host, with a built-in server that does nothing:
      reuseport-launch bench
  For your own server:
      reuseport-launch bench -- node server.js
  Two workers that compute for 5 ms, two modes, one load, and a page to show:
      reuseport-launch bench -w 2 --spin-us 5000 --load 70 --html bench.html \\
          --modes reuseport-kernel,reuseport-ebpf:round-robin
  Which requests fail while workers are killed:
      reuseport-launch bench --disturb kill

In each round each mode is measured once, in changing order: first as fast as it goes, 50 \
requests at a time, then with as many requests a second as --load says of the baseline's median. What is \
not beyond the noise is called no difference.

As root all of it is in a network namespace of its own, where no other traffic is. Where there are at least twice as many CPUs as workers, the load generator has CPUs of its own, \
elsewhere it takes part of the workers'. It runs in a process of its own, and says when it was the \
bottleneck.

Exit codes: 0 measured, 1 the baseline or all modes failed, 2 usage, 130 interrupted.";

const CHECK_USAGE: &str = "reuseport-launch check --config FILE [OPTIONS] [-- COMMAND [ARG]...]";

const PRINT_USAGE: &str = "reuseport-launch print-config [--json] [OPTIONS] [-- COMMAND [ARG]...]
       reuseport-launch print-config --example";

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start the workers and stay with them (the default verb)
    #[command(override_usage = RUN_USAGE)]
    Run(Box<Run>),
    /// Say whether `run` could start with these options and this file, and change nothing
    #[command(override_usage = CHECK_USAGE)]
    Check(Box<Run>),
    /// Show the options that `run` would have, and where each of them comes from
    #[command(override_usage = PRINT_USAGE)]
    PrintConfig {
        /// The options of `run`.
        #[command(flatten)]
        run: Box<Run>,
        /// Print one JSON object and nothing else
        #[arg(long, conflicts_with = "example")]
        json: bool,
        /// Print a file with all options, commented out, and what they mean
        #[arg(long)]
        example: bool,
    },
    /// Show the workers, the shared ports and who got how many connections
    Status {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
        /// Print one JSON object and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Show the same as it changes, on the terminal; keys drain, restart and more
    Top {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
        /// Time between two looks
        #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
        interval: Duration,
    },
    /// Show what the workers have written
    Logs {
        /// Those of one slot [default: of all]
        #[arg(value_name = "SLOT")]
        of: Option<SlotOrName>,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
        /// Go on with what they write
        #[arg(short, long)]
        follow: bool,
        /// How many lines of the past, at most
        #[arg(short = 'n', long, value_name = "N", default_value = "1000", value_parser = log_lines)]
        lines: usize,
        /// Print a JSON object for each line
        #[arg(long)]
        json: bool,
    },
    /// Say whether launchers can run on this machine, how well, and what would help
    Doctor {
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
    /// Replace every worker, the new one first, without losing a connection
    Reload {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
        /// Time the old workers have to finish their connections [default: the launcher's own
        /// --drain-timeout]
        #[arg(long, value_name = "DURATION|infinite", value_parser = duration_or_infinite)]
        drain_timeout: Option<TimeLimit>,
    },
    /// Change the number of workers
    Scale {
        /// How many there are to be
        #[arg(value_name = "N", value_parser = worker_count)]
        workers: u32,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Replace one worker, as `reload` does with all
    Restart {
        /// The worker's slot
        #[arg(value_parser = slot)]
        slot: u32,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Give a worker no more connections, and wait until it has none left
    Drain {
        /// The worker's slot
        #[arg(value_parser = slot)]
        slot: u32,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Give a drained worker connections again
    Undrain {
        /// The worker's slot
        #[arg(value_parser = slot)]
        slot: u32,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Tell the steering object (--steer-object) something about a worker, such as its load
    Hint {
        /// The worker's slot
        #[arg(value_parser = slot)]
        slot: u32,
        /// A whole number; 0 until it is told
        #[arg(value_parser = hint)]
        value: u64,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Change a worker's share of the new connections
    Weight {
        /// The worker's slot
        #[arg(value_parser = slot)]
        slot: u32,
        /// Its share, relative to the others': 0 to 256, 1 at first; 0: no new ones. (Under `cpu` all
        /// others are as good as 1.)
        #[arg(value_name = "W", value_parser = weight)]
        weight: u16,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Change how connections are dealt out, without losing one
    Steer {
        /// As for `run --steer`
        #[arg(value_parser = PolicyParser::OF_ALL)]
        policy: Policy,
        /// Change how UDP is dealt out only, as `run --steer-udp`
        #[arg(long)]
        udp: bool,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Send a message to workers that have a channel (--ipc node)
    Send {
        /// Every worker, or the one of a slot
        #[arg(value_name = "all|SLOT")]
        to: Target,
        /// The message, any JSON value
        #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
        message: serde_json::Value,
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Go on as the launcher's present binary; pid and workers stay
    Upgrade {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Compare kernel steering with the alternatives on this host, for your own server or a
    /// built-in one
    #[command(override_usage = BENCH_USAGE, after_help = BENCH_HELP)]
    Bench(Box<Bench>),
    /// Stop a launcher and its workers, and wait until they are gone
    Stop {
        /// Which launcher [default: the only one that runs]
        name: Option<Name>,
    },
    /// Print a page of the manual, for `man -l -`
    Man {
        /// That of this verb [default: that of the command]
        #[arg(value_name = "VERB")]
        verb: Option<String>,
        /// Write all pages into this directory instead
        #[arg(long, value_name = "DIR", conflicts_with = "verb")]
        to: Option<PathBuf>,
    },
    /// Print the script that has a shell complete verbs, options and the names of launchers
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
}
