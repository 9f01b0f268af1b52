//! The options of `run`.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum, ValueHint};

use super::{
    policies::PolicyParser,
    quantities::{
        TimeLimit, age, duration, duration_above_zero, duration_or_infinite, duration_or_off,
        flow_timeout, flows, log_keep, log_lines, positive, size,
    },
    values::{Check, PortSpec, Ready, StopSignal},
};
use crate::{
    fleet::placement::{Pinning, Workers},
    policy::Policy,
    scrape::Address,
    sys::runtime::Name,
};

/// What the policies do.
const STEER_HELP: &str = "\
How connections are dealt out, by POLICY:
round-robin  in turn; the default for TCP
least-conn   to the worker with the fewest open; not for UDP
hash         by both ends' addresses and ports; the default for UDP
source       by the client's address, or the first V4 and V6 bits
             of it (source:V4/V6, by default 32/64)
cpu          by the CPU that handles the packet: to the worker
             that is pinned to it, or near it
random       at random
kernel       by the kernel's own hash, without eBPF selection";

const WORKERS: &str = "Workers";
const CONNECTIONS: &str = "Connections";
const HEALTH: &str = "Readiness and health";
const RELOAD: &str = "Reload and drain";
const RECYCLING: &str = "Recycling";
const STOPPING: &str = "Stopping";
const LAUNCHER: &str = "Launcher";
const FILE: &str = "Configuration file";

/// The options of `run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// How many workers: auto = the allowed CPUs, or the cgroup's CPU quota where that is less
    /// [env: WEB_CONCURRENCY, too]
    #[arg(
        short,
        long,
        value_name = "auto|N",
        default_value = "auto",
        help_heading = WORKERS
    )]
    pub workers: Workers,
    /// Bind workers to CPUs: auto = each slot to its own, physical cores first; a list is dealt
    /// out by slot
    #[arg(
        long,
        value_name = "none|auto|CPU-LIST",
        default_value = "none",
        help_heading = WORKERS
    )]
    pub pin: Pinning,
    /// Run the workers as this user (name or id)
    #[arg(long, value_name = "USER", help_heading = WORKERS)]
    pub user: Option<String>,
    /// Run the workers with this group (name or id) [default: USER's own]
    #[arg(long, value_name = "GROUP", help_heading = WORKERS)]
    pub group: Option<String>,
    /// Start the workers in this directory; a symbolic link is followed anew at each start
    /// [default: the current one]
    #[arg(long, value_name = "DIR", help_heading = WORKERS)]
    pub chdir: Option<PathBuf>,
    /// Add the NAME=VALUE lines of this file to the workers' environment; it is read at each start
    #[arg(long, value_name = "FILE", help_heading = WORKERS)]
    pub env_file: Option<PathBuf>,
    /// Give each worker a channel for messages: node = Node's process.send and
    /// process.on('message'), see the verb `send`; "shutdown" comes before the stop signal
    #[arg(long, value_enum, value_name = "node", hide_possible_values = true, help_heading = WORKERS)]
    pub ipc: Option<Ipc>,
    /// How connections and datagrams are dealt out.
    #[arg(
        long,
        value_name = "POLICY",
        value_parser = PolicyParser::OF_ALL,
        hide_possible_values = true,
        help = STEER_HELP,
        help_heading = CONNECTIONS
    )]
    pub steer: Option<Policy>,
    /// The policy for UDP, instead of that of --steer; only hash and source keep a flow with its
    /// worker [default: hash]
    #[arg(
        long,
        value_name = "POLICY",
        value_parser = PolicyParser::OF_DATAGRAMS,
        hide_possible_values = true,
        help_heading = CONNECTIONS
    )]
    pub steer_udp: Option<Policy>,
    /// Have the sk_reuseport program of this eBPF object deal them out; docs/STEER-OBJECT.md says what
    /// it must have
    #[arg(long, value_name = "FILE", conflicts_with = "steer", help_heading = CONNECTIONS)]
    pub steer_object: Option<PathBuf>,
    /// Time a UDP flow may be silent and still stay with its worker, under hash and source. A worker
    /// that is replaced goes when none of its flows is left, or at --drain-timeout: for clients that
    /// ask once (DNS), turn this off, or deal out by round-robin
    #[arg(
        long,
        value_name = "DURATION|off",
        default_value = "20s",
        value_parser = flow_timeout,
        help_heading = CONNECTIONS
    )]
    pub udp_flow_timeout: TimeLimit,
    /// How many UDP flows of a port stay with their workers, at 120 bytes of memory each (8 MiB for
    /// the default); those that were silent for longest make room for others
    #[arg(
        long,
        value_name = "N",
        default_value = "65536",
        value_parser = flows,
        help_heading = CONNECTIONS
    )]
    pub udp_flows: u32,
    /// Share only this port; may be repeated [default: every port the command binds by number]
    #[arg(
        long = "port",
        value_name = "PORT[/tcp|/udp]",
        help_heading = CONNECTIONS
    )]
    pub ports: Vec<PortSpec>,
    /// Refuse TCP connections while no worker takes any, instead of letting them wait
    #[arg(
        long,
        value_name = "true|false",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true,
        hide_possible_values = true,
        help_heading = CONNECTIONS
    )]
    pub no_hold: bool,
    /// What makes a worker ready: it listens, sends READY=1 (sd_notify), accepts a connection,
    /// answers GET PATH with 2xx or 3xx, or calls process.send('ready')
    #[arg(
        long,
        value_name = "listen|notify|tcp|http:PATH|node",
        default_value = "listen",
        help_heading = HEALTH
    )]
    pub ready: Ready,
    /// Time a worker has to become ready; a reload is called off when one is late
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        value_parser = duration_above_zero,
        help_heading = HEALTH
    )]
    pub ready_timeout: Duration,
    /// Replace a worker that no longer accepts connections, or answers GET PATH with anything but
    /// 2xx or 3xx
    #[arg(long, value_name = "tcp|http:PATH", help_heading = HEALTH)]
    pub health: Option<Check>,
    /// Time between two checks of a worker
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration_above_zero,
        help_heading = HEALTH
    )]
    pub health_interval: Duration,
    /// Time a check may take
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration_above_zero,
        help_heading = HEALTH
    )]
    pub health_timeout: Duration,
    /// How many checks in a row must fail
    #[arg(
        long,
        value_name = "N",
        default_value = "3",
        value_parser = positive::<u32>,
        help_heading = HEALTH
    )]
    pub health_threshold: u32,
    /// Give no connections to a worker that has not accepted a waiting one for so long, until it
    /// does
    #[arg(
        long,
        value_name = "DURATION|off",
        default_value = "2s",
        value_parser = duration_or_off,
        help_heading = HEALTH
    )]
    pub stall_timeout: TimeLimit,
    /// Time a worker that is replaced has to finish its connections before it is stopped
    #[arg(
        long,
        value_name = "DURATION|infinite",
        default_value = "30s",
        value_parser = duration_or_infinite,
        help_heading = RELOAD
    )]
    pub drain_timeout: TimeLimit,
    /// How many workers are replaced at the same time
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = positive::<u32>,
        help_heading = RELOAD
    )]
    pub max_surge: u32,
    /// Replace a worker after so many connections, give or take 10 %
    #[arg(long, value_name = "N", value_parser = positive::<u64>, help_heading = RECYCLING)]
    pub max_connections: Option<u64>,
    /// Replace a worker that uses more memory, with its children, than this
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = RECYCLING)]
    pub max_memory: Option<u64>,
    /// Replace a worker after this time, give or take 10 %
    #[arg(long, value_name = "DURATION", value_parser = age, help_heading = RECYCLING)]
    pub max_age: Option<Duration>,
    /// Signal that asks a worker to stop (name or number)
    #[arg(
        long,
        value_name = "SIGNAL",
        default_value = "TERM",
        help_heading = STOPPING
    )]
    pub stop_signal: StopSignal,
    /// Time a worker has to stop before it is killed
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "8s",
        value_parser = duration,
        help_heading = STOPPING
    )]
    pub stop_timeout: Duration,
    /// Name for the verbs [default: the command's file name, or that of the file of --config without
    /// its ending if the command stands there]
    #[arg(long, value_name = "NAME", help_heading = LAUNCHER)]
    pub name: Option<Name>,
    /// Serve metrics for Prometheus at /metrics, and /-/ready and /-/healthy, over HTTP; a port alone
    /// is on 127.0.0.1
    #[arg(long, value_name = "[IP:]PORT|unix:PATH", help_heading = LAUNCHER)]
    pub metrics: Option<Address>,
    /// Format of the launcher's own messages on standard error; json: of the workers' lines, too
    #[arg(
        long,
        value_enum,
        value_name = "auto|text|json",
        default_value = "auto",
        hide_possible_values = true,
        help_heading = LAUNCHER
    )]
    pub log_format: LogFormat,
    /// Lines of each worker's output that the verb `logs` can show, at most 256 KiB of them
    #[arg(
        long,
        value_name = "N",
        default_value = "1000",
        value_parser = log_lines,
        help_heading = LAUNCHER
    )]
    pub log_lines: usize,
    /// Write the workers' output to this file, too; {slot} is replaced by the slot. USR1 opens it anew
    #[arg(
        long,
        value_name = "PATH",
        value_hint = ValueHint::AnyPath,
        help_heading = LAUNCHER
    )]
    pub log_file: Option<String>,
    /// Size at which the file becomes PATH.1 and another one is begun
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "10M",
        value_parser = size,
        requires = "log_file",
        help_heading = LAUNCHER
    )]
    pub log_max_size: u64,
    /// Earlier files kept: PATH.1 is the latest
    #[arg(
        long,
        value_name = "N",
        default_value = "5",
        value_parser = log_keep,
        requires = "log_file",
        help_heading = LAUNCHER
    )]
    pub log_keep: u32,
    /// Say more on standard error; -vv says everything, the eBPF programs' own lines too
    #[arg(short, long, action = ArgAction::Count, help_heading = LAUNCHER)]
    pub verbose: u8,
    /// The file to take options from.
    #[command(flatten)]
    pub selection: Selection,
    /// The server to start, as you would start one copy of it; empty where the file says which
    #[arg(last = true, value_name = "COMMAND", hide = true)]
    pub command: Vec<OsString>,
}

/// Which file options are taken from, and what of it. These have no keys in the file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Take options from this TOML file too: each has a key of its own name. `print-config --example`
    /// prints one with all of them; `check` says what is wrong with yours
    #[arg(long, value_name = "FILE", help_heading = FILE)]
    pub config: Option<PathBuf>,
    /// Add the variables of the file's table [env.NAME] to the workers' environment
    #[arg(long, value_name = "NAME", help_heading = FILE)]
    pub env: Option<String>,
    /// Of the file's apps ([app.NAME]) run only this one
    #[arg(long, value_name = "NAME", help_heading = FILE)]
    pub app: Option<String>,
}

/// The kind of a worker's channel for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ipc {
    /// As between a Node process and its children.
    Node,
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
