//! The options of `bench`.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    quantities::{decimal, duration_above_zero, positive},
    values::request_path,
};
use crate::fleet::placement::Workers;

const SERVER: &str = "Server";
const LOAD: &str = "Load";
const MEASURING: &str = "Measuring";
const REPORT: &str = "Report";

/// The options of `bench`.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// Which modes to compare, see below [default: of reuseport-ebpf round-robin and least-conn, and all
    /// others that the server can be measured in]
    #[arg(
        long,
        value_name = "MODE,...",
        value_delimiter = ',',
        help_heading = MEASURING
    )]
    pub modes: Vec<String>,
    /// The mode that the others are compared with [default: master-dispatch, or single with a COMMAND;
    /// where that is not among --modes, the first of them]
    #[arg(long, value_name = "MODE", help_heading = MEASURING)]
    pub baseline: Option<String>,
    /// How often everything is measured, in turn with the other modes
    #[arg(
        long,
        value_name = "N",
        default_value = "5",
        value_parser = rounds,
        help_heading = MEASURING
    )]
    pub rounds: u32,
    /// How long one measurement counts, after a warm-up of a quarter of it [default: 2, with --disturb
    /// 5]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = MEASURING)]
    pub seconds: Option<f64>,
    /// Measure fewer rounds where all would take longer, but at least one
    #[arg(
        long,
        value_name = "DURATION",
        value_parser = duration_above_zero,
        help_heading = MEASURING
    )]
    pub time: Option<Duration>,
    /// Reload, kill (SIGKILL), or stall (SIGSTOP, for a second) one worker after the other under the
    /// lowest --load, and count the requests that fail
    #[arg(
        long,
        value_enum,
        value_name = "reload|kill|stall",
        hide_possible_values = true,
        help_heading = MEASURING
    )]
    pub disturb: Option<Disturb>,
    /// Measure on this host's own network, not in a network namespace: for a COMMAND that needs more of
    /// it than its own port
    #[arg(long, help_heading = MEASURING)]
    pub host_network: bool,
    /// How many workers: auto = the allowed CPUs, or the cgroup's CPU quota where that is less
    #[arg(
        short,
        long,
        value_name = "auto|N",
        default_value = "auto",
        help_heading = SERVER
    )]
    pub workers: Workers,
    /// Have the built-in server compute for so many µs for each request
    #[arg(
        long,
        value_name = "N",
        value_parser = microseconds,
        conflicts_with_all = ["sleep_us", "mix", "command"],
        help_heading = SERVER
    )]
    pub spin_us: Option<u64>,
    /// Have it wait for so many µs, and do nothing else meanwhile
    #[arg(
        long,
        value_name = "N",
        value_parser = microseconds,
        conflicts_with_all = ["mix", "command"],
        help_heading = SERVER
    )]
    pub sleep_us: Option<u64>,
    /// Have it do one or the other, so often in a hundred, such as 90:spin1000,10:sleep30000
    #[arg(long, value_name = "SPEC", conflicts_with = "command", help_heading = SERVER)]
    pub mix: Option<String>,
    /// What is asked for: GET PATH
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/",
        value_parser = path,
        help_heading = SERVER
    )]
    pub path: String,
    /// How clients use connections: a new one for each request, one for N requests (100), or the same
    /// ones all the time
    #[arg(
        long,
        value_name = "connection|keep-alive[:N]|long-lived",
        default_value = "connection",
        help_heading = LOAD
    )]
    pub shape: Shape,
    /// How many requests are under way at a time, at most [default: 50; long-lived: 2 for each worker]
    #[arg(long, value_name = "N", value_parser = connections, help_heading = LOAD)]
    pub connections: Option<u32>,
    /// Loads under which latency is measured, in per cent of the baseline's peak: requests are sent at
    /// times set beforehand, and their latency counts from then on
    #[arg(
        long,
        value_name = "PERCENT,...",
        default_value = "50,70,90",
        value_delimiter = ',',
        value_parser = load,
        help_heading = LOAD
    )]
    pub load: Vec<u8>,
    /// A request without an answer after this time has failed
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration_above_zero,
        help_heading = LOAD
    )]
    pub timeout: Duration,
    /// Write all figures, of each round, as JSON; docs/BENCH-JSON.md describes it
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub json: Option<PathBuf>,
    /// Draw throughput and latency
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub svg: Option<PathBuf>,
    /// Write a page with all of it, complete in one file
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub html: Option<PathBuf>,
    /// Your own server, as you would start one copy of it [default: a small built-in one]
    #[arg(last = true, value_name = "COMMAND", hide = true)]
    pub command: Vec<OsString>,
}

/// How workers are disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disturb {
    /// Replaced in good order.
    Reload,
    /// Killed, and started anew.
    Kill,
    /// Stopped for a second.
    Stall,
}

/// How clients use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A new one for each request.
    Connection,
    /// One for so many requests.
    KeepAlive(u32),
    /// The same ones all the time.
    LongLived,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "connection" => Ok(Self::Connection),
            "keep-alive" => Ok(Self::KeepAlive(100)),
            "long-lived" => Ok(Self::LongLived),
            _ => match text.strip_prefix("keep-alive:").map(positive::<u32>) {
                Some(Ok(requests)) => Ok(Self::KeepAlive(requests)),
                Some(Err(why)) => Err(format!("requests for each connection: {why}")),
                None => Err("allowed: connection, keep-alive, keep-alive:N, long-lived".into()),
            },
        }
    }
}

/// The longest measurement, in seconds.
const SECONDS_MAX: f64 = 3600.0;
/// The shortest: there is hardly anything to count in less.
const SECONDS_MIN: f64 = 0.1;

fn seconds(text: &str) -> Result<f64, String> {
    // Not all that Rust takes for a number: no exponent, sign or infinity.
    let plain = |part: &str| decimal(part).is_some();
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let number = (plain(whole) && plain(part)).then(|| text.parse().ok());
    number
        .flatten()
        .filter(|seconds| (SECONDS_MIN..=SECONDS_MAX).contains(seconds))
        .ok_or_else(|| format!("allowed: seconds from {SECONDS_MIN} to {SECONDS_MAX}: 0.5, 2"))
}

fn path(text: &str) -> Result<String, String> {
    request_path(text, "a path, such as /index.html")
}

fn load(text: &str) -> Result<u8, String> {
    let percent = decimal(text).filter(|percent| (1..=100).contains(percent));
    percent.and_then(|percent| u8::try_from(percent).ok()).ok_or_else(|| {
        "allowed: whole per cent of the baseline's peak, from 1 to 100; what is above can't be answered"
            .into()
    })
}

fn rounds(text: &str) -> Result<u32, String> {
    within(text, 1..=1000)
}

fn connections(text: &str) -> Result<u32, String> {
    within(text, 1..=10_000)
}

/// Up to ten seconds of work for a request.
fn microseconds(text: &str) -> Result<u64, String> {
    within(text, 1..=10_000_000).map(u64::from)
}

fn within(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    decimal(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            let (first, last) = range.into_inner();
            format!("allowed: a whole number from {first} to {last}")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!("connection".parse(), Ok(Shape::Connection));
        assert_eq!("keep-alive".parse(), Ok(Shape::KeepAlive(100)));
        assert_eq!("keep-alive:7".parse(), Ok(Shape::KeepAlive(7)));
        assert_eq!("long-lived".parse(), Ok(Shape::LongLived));
        for wrong in ["", "keepalive", "keep-alive:0", "keep-alive:", "long"] {
            let why = wrong.parse::<Shape>().unwrap_err();
            assert!(why.contains("allowed:"), "{wrong}: {why}");
        }
    }

    #[test]
    fn quantities_say_what_is_allowed() {
        assert_eq!((seconds("2"), seconds("0.3")), (Ok(2.0), Ok(0.3)));
        for wrong in [
            "", "0", "0.05", "1e3", "-1", "3601", "inf", "nan", ".5", "1.", "2s",
        ] {
            assert!(
                seconds(wrong).unwrap_err().contains("0.1 to 3600"),
                "{wrong}"
            );
        }
        assert_eq!((load("1"), load("100")), (Ok(1), Ok(100)));
        for wrong in ["", "0", "101", "-5", "50%", "300"] {
            assert!(load(wrong).unwrap_err().contains("1 to 100"), "{wrong}");
        }
        assert_eq!((rounds("1"), connections("10000")), (Ok(1), Ok(10_000)));
        assert!(rounds("0").unwrap_err().contains("1 to 1000"));
        assert!(microseconds("0").unwrap_err().contains("1 to 10000000"));
    }
}
