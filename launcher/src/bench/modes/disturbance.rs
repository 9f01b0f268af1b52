//! What is done to a worker while it is measured.

use std::{fmt, str::FromStr};

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// It is replaced, as well as the mode can: under the launcher, and of a server of one's own, by the
    /// verb `restart`; by a master, by starting another one and having the old one end when that is ready
    /// (TERM: it gets no more connections, and 1 s for those that it has). A `single` built-in worker has
    /// the port for itself, so it ends first.
    Reload,
    /// It is killed (`kill -9`). Whoever has started it starts another one.
    Kill,
    /// It is stopped for a second, and goes on.
    Stall,
}

impl Disturbance {
    const ALL: [Self; 3] = [Self::Reload, Self::Kill, Self::Stall];
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reload => "reload",
            Self::Kill => "kill",
            Self::Stall => "stall",
        })
    }
}

impl FromStr for Disturbance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|disturbance| disturbance.to_string() == text);
        found.ok_or_else(|| "allowed: reload, kill, stall".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbance_is_read_as_it_is_written() {
        for disturbance in Disturbance::ALL {
            assert_eq!(disturbance.to_string().parse(), Ok(disturbance));
        }
        let refused = "stop".parse::<Disturbance>().expect_err("there is none");
        assert_eq!(refused, "allowed: reload, kill, stall");
    }
}
