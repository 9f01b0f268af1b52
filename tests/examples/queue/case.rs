//! The cases: which workers, what is asked of them, and what the policies shall reach.

use clap::ValueEnum;

use crate::{
    report::{Goal, Part},
    schedule::Service,
    system::{KERNEL, SHARED_QUEUE},
    worker::Occupation,
};

/// How much of what the workers can do is asked of them.
pub(crate) const UTILISATION: f64 = 0.7;

/// Workers, and what is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Two workers that compute for 5 ms
    #[value(name = "2-spin")]
    Spin2,
    /// Eight that sleep for 5 ms: each stands for a core that this machine lacks
    #[value(name = "8-block")]
    Block8,
    /// 32 of them
    #[value(name = "32-block")]
    Block32,
    /// Eight that mostly sleep for 1 ms, and for 30 ms every tenth time
    #[value(name = "8-skewed")]
    Skewed8,
}

impl Case {
    /// How many.
    pub(crate) const fn workers(self) -> u16 {
        match self {
            Self::Spin2 => 2,
            Self::Block8 | Self::Skewed8 => 8,
            Self::Block32 => 32,
        }
    }

    /// How they are occupied.
    pub(crate) const fn occupation(self) -> Occupation {
        match self {
            Self::Spin2 => Occupation::Spin,
            Self::Block8 | Self::Block32 | Self::Skewed8 => Occupation::Block,
        }
    }

    /// For how long.
    pub(crate) const fn service(self) -> Service {
        match self {
            Self::Spin2 | Self::Block8 | Self::Block32 => Service::Fixed(5_000),
            Self::Skewed8 => Service::Skewed {
                short: 1_000,
                long: 30_000,
                percent_long: 10,
            },
        }
    }

    /// Requests a second.
    pub(crate) fn rate(self) -> f64 {
        UTILISATION * f64::from(self.workers()) / self.service().mean()
    }

    /// What the policies shall reach.
    pub(crate) fn goals(self) -> Vec<Goal> {
        match self {
            Self::Spin2 => vec![
                Goal::of("round-robin", Part::P99, KERNEL, 0.7),
                Goal::of("least-conn", Part::P99, KERNEL, 0.7),
            ],
            Self::Block8 => vec![
                Goal::of("round-robin", Part::P99, KERNEL, 0.25),
                Goal::of("least-conn", Part::P99, KERNEL, 0.25),
            ],
            Self::Block32 => Vec::new(),
            Self::Skewed8 => vec![
                Goal::of("least-conn", Part::P99, KERNEL, 0.3),
                Goal::of("least-conn", Part::P99, SHARED_QUEUE, 1.3),
                Goal::of("least-conn", Part::P50, SHARED_QUEUE, 1.1),
            ],
        }
    }

    /// What stands above the table.
    pub(crate) fn title(self) -> String {
        let does = match self.occupation() {
            Occupation::Spin => "compute",
            Occupation::Block => "sleep",
        };
        format!(
            "{} workers that {does} for {}; {:.0} requests/s",
            self.workers(),
            self.service(),
            self.rate()
        )
    }
}
