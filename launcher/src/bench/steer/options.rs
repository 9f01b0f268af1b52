//! What `cargo xtask bench-steer` is asked to measure.

use std::{iter, time::Duration};

use clap::{Parser, ValueEnum, value_parser};

use super::{decision, evenness, turns};
use crate::{bench::sources::THREADS, policy::Policy};

/// Compare the policies with the kernel's hash, and measure what a decision costs.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench-steer")]
pub(super) struct Options {
    /// What to measure
    #[arg(
        long,
        value_name = "PART,…",
        value_delimiter = ',',
        default_value = "rates,decisions,evenness,turns"
    )]
    pub(super) parts: Vec<Part>,
    /// The policies beside the kernel's hash [default: all]
    #[arg(long, value_name = "POLICY,…", value_delimiter = ',')]
    policies: Option<Vec<Policy>>,
    /// Numbers of workers [default: 2,8 for the rates; 2,8,64 for decisions; 2,8,64,256 for the evenness]
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        value_parser = value_parser!(u16).range(1..=256)
    )]
    workers: Option<Vec<u16>>,
    /// How often everything is measured, by turns
    #[arg(
        long,
        value_name = "N",
        default_value = "60",
        value_parser = value_parser!(u32).range(1..=1000)
    )]
    pub(super) rounds: u32,
    /// How long each policy is loaded in a round
    #[arg(long, value_name = "S", default_value = "0.2", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// Connections that each of the two client threads has in flight
    #[arg(
        long,
        value_name = "N",
        default_value = "25",
        value_parser = value_parser!(u16).range(1..=1000)
    )]
    pub(super) in_flight: u16,
    /// Connections over which a decision's cost is averaged in a round
    #[arg(
        long,
        value_name = "N",
        default_value = "3000",
        value_parser = value_parser!(u32).range(1..)
    )]
    pub(super) connections: u32,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Connections per second
    Rates,
    /// Nanoseconds per decision
    Decisions,
    /// How evenly connections are dealt out
    Evenness,
    /// What round-robin's turns cost, from one counter and from several
    Turns,
}

impl Options {
    /// All policies to be measured, the kernel's hash first.
    pub(super) fn policies(&self) -> impl Iterator<Item = Policy> {
        iter::once(Policy::Kernel).chain(self.steering())
    }

    /// Those under which a program chooses.
    pub(super) fn steering(&self) -> impl Iterator<Item = Policy> {
        let all = || Policy::NAMES.iter().filter_map(|name| name.parse().ok());
        let policies = self.policies.clone().unwrap_or_else(|| all().collect());
        policies
            .into_iter()
            .filter(|policy| *policy != Policy::Kernel)
    }

    /// The numbers of workers of a part.
    pub(super) fn workers(&self, part: Part) -> &[u16] {
        match (&self.workers, part) {
            (Some(workers), _) => workers,
            (None, Part::Rates) => &[2, 8],
            (None, Part::Decisions) => &[2, 8, 64],
            (None, Part::Evenness) => &[2, 8, 64, 256],
            // It has no workers.
            (None, Part::Turns) => &[],
        }
    }

    /// What stands above a part's tables.
    pub(super) fn title(&self, part: Part) -> String {
        let Self {
            rounds,
            seconds,
            in_flight,
            connections,
            ..
        } = self;
        match part {
            Part::Rates => format!(
                "Connections per second: {} clients × {in_flight} connections in flight, one request \
                 each; {rounds} × {} s by turns",
                THREADS,
                seconds.as_secs_f64()
            ),
            Part::Decisions => format!(
                "One decision, by the kernel's statistics: {rounds} × {connections} connections by turns"
            ),
            Part::Evenness => format!(
                "Evenness: {} connections for each worker; chance alone gives a variation of {:.2}",
                evenness::FOR_EACH,
                (evenness::FOR_EACH as f64).powf(-0.5)
            ),
            Part::Turns => format!(
                "One turn, with nothing between a CPU's turns: {rounds} × {:?} by turns",
                turns::LENGTH
            ),
        }
    }

    /// How long it all takes, about.
    pub(super) fn estimate(&self) -> Duration {
        self.parts.iter().map(|&part| self.estimate_of(part)).sum()
    }

    fn estimate_of(&self, part: Part) -> Duration {
        /// To start and to stop a launcher, and for each of its workers.
        const LAUNCHER: Duration = Duration::from_secs(2);
        const WORKER: Duration = Duration::from_millis(20);
        let policies = self.policies().count() as u32;
        let each = |workers: u16| {
            let starting = LAUNCHER + WORKER * workers.into();
            match part {
                Part::Rates => starting + self.seconds * self.rounds,
                Part::Decisions => decision::CONNECTION * self.connections * self.rounds,
                Part::Evenness => {
                    starting + decision::CONNECTION * evenness::FOR_EACH as u32 * workers.into()
                }
                Part::Turns => Duration::ZERO,
            }
        };
        let all: Duration = self
            .workers(part)
            .iter()
            .map(|&workers| each(workers))
            .sum();
        match part {
            Part::Turns => turns::LENGTH * self.rounds * turns::MEASURED,
            _ => all * policies,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "allowed: 0.1 to 3600".to_owned())
}
