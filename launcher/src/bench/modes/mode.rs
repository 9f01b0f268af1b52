//! The ways of spreading connections over workers that are compared.

use std::{fmt, str::FromStr};

use crate::policy::{InvalidPolicy, Policy};

/// What [`Mode::ReuseportEbpf`] begins with on the command line.
const EBPF: &str = "reuseport-ebpf:";

/// A way of spreading connections over workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// One process, as a server is without any of this.
    Single,
    /// All workers wait for connections at one socket that they have inherited: each connection wakes
    /// all that wait (the thundering herd), and one of them gets it.
    SharedListener,
    /// The same with `EPOLLEXCLUSIVE`: it wakes one, mostly the same one.
    SharedListenerExclusive,
    /// A master accepts, and passes each connection to a worker, in turn (`SCM_RIGHTS`): `SCHED_RR` of
    /// Node's cluster module.
    MasterDispatch,
    /// A master accepts, connects to a worker, in turn, and moves the bytes both ways: a load balancer
    /// on loopback.
    ProxyDispatch,
    /// The launcher with `--steer kernel`: the kernel's own hash.
    ReuseportKernel,
    /// The launcher with this `--steer`, which is not `kernel`.
    ReuseportEbpf(Policy),
}

impl Mode {
    /// All of them, each policy as it is without prefixes.
    pub(crate) fn all() -> Vec<Self> {
        let policies = Policy::NAMES.iter().filter_map(|name| name.parse().ok());
        let steered = policies.filter(|policy| *policy != Policy::Kernel);
        [
            Self::Single,
            Self::SharedListener,
            Self::SharedListenerExclusive,
            Self::MasterDispatch,
            Self::ProxyDispatch,
            Self::ReuseportKernel,
        ]
        .into_iter()
        .chain(steered.map(Self::ReuseportEbpf))
        .collect()
    }

    /// Whether the server must take part in it, which only the built-in worker does.
    pub(crate) fn needs_cooperation(self) -> bool {
        match self {
            Self::SharedListener | Self::SharedListenerExclusive | Self::MasterDispatch => true,
            Self::Single | Self::ProxyDispatch | Self::ReuseportKernel | Self::ReuseportEbpf(_) => {
                false
            }
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Single => "single",
            Self::SharedListener => "shared-listener",
            Self::SharedListenerExclusive => "shared-listener-exclusive",
            Self::MasterDispatch => "master-dispatch",
            Self::ProxyDispatch => "proxy-dispatch",
            Self::ReuseportKernel => "reuseport-kernel",
            Self::ReuseportEbpf(policy) => return f.pad(&format!("{EBPF}{policy}")),
        })
    }
}

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        if let Some(policy) = text.strip_prefix(EBPF) {
            return match policy.parse() {
                // It has a mode of its own.
                Ok(Policy::Kernel) => Err(InvalidMode::Unknown),
                Ok(policy) => Ok(Self::ReuseportEbpf(policy)),
                Err(InvalidPolicy::Unknown) => Err(InvalidMode::Unknown),
                Err(invalid @ InvalidPolicy::Prefixes) => Err(InvalidMode::Policy(invalid)),
            };
        }
        let mut modes = Self::all().into_iter();
        let found = modes.find(|mode| mode.to_string() == text);
        found.ok_or(InvalidMode::Unknown)
    }
}

/// A text that is no [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidMode {
    /// None has this name.
    Unknown,
    /// The policy is not written as it has to be.
    Policy(InvalidPolicy),
}

impl fmt::Display for InvalidMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                let names: Vec<String> = Mode::all().iter().map(Mode::to_string).collect();
                write!(f, "unknown mode; allowed: {}", names.join(", "))
            }
            Self::Policy(invalid) => invalid.fmt(f),
        }
    }
}

impl std::error::Error for InvalidMode {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Prefixes;

    #[test]
    fn every_mode_is_read_as_it_is_written() {
        let all = Mode::all();
        assert_eq!(all.len(), 6 + Policy::NAMES.len() - 1);
        for mode in all {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let source = Mode::ReuseportEbpf(Policy::Source(Prefixes { v4: 24, v6: 56 }));
        assert_eq!("reuseport-ebpf:source:24/56".parse(), Ok(source));
        assert_eq!(source.to_string(), "reuseport-ebpf:source:24/56");
    }

    #[test]
    fn an_unknown_mode_is_refused_with_those_that_there_are() {
        for text in [
            "",
            "Single",
            "prefork",
            "reuseport-ebpf",
            "reuseport-ebpf:",
            "reuseport-ebpf:kernel",
            "reuseport-ebpf:fair",
        ] {
            let refused = text.parse::<Mode>();
            assert_eq!(refused, Err(InvalidMode::Unknown), "{text}");
        }
        let message = InvalidMode::Unknown.to_string();
        for mode in Mode::all() {
            assert!(message.contains(&mode.to_string()), "{message}");
        }
        let prefixes = "reuseport-ebpf:source:33/0".parse::<Mode>();
        assert_eq!(prefixes, Err(InvalidMode::Policy(InvalidPolicy::Prefixes)));
    }

    #[test]
    fn only_the_modes_in_which_no_worker_listens_for_itself_need_its_cooperation() {
        let need: Vec<String> = Mode::all()
            .into_iter()
            .filter(|mode| mode.needs_cooperation())
            .map(|mode| mode.to_string())
            .collect();
        assert_eq!(
            need,
            [
                "shared-listener",
                "shared-listener-exclusive",
                "master-dispatch"
            ]
        );
    }
}
