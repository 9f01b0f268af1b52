//! How a policy is written, and what is said about a wrong one.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};

use crate::policy::{InvalidPolicy, Policy};

/// Parses a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct PolicyParser {
    /// Whether it is for datagrams only.
    datagrams: bool,
}

impl PolicyParser {
    /// For every protocol.
    pub(super) const OF_ALL: Self = Self { datagrams: false };
    /// For datagrams.
    pub(super) const OF_DATAGRAMS: Self = Self { datagrams: true };

    fn names(self) -> impl Iterator<Item = &'static str> {
        let names = Policy::NAMES.into_iter();
        names.filter(move |&name| !self.datagrams || name != Policy::LeastConn.name())
    }
}

impl TypedValueParser for PolicyParser {
    type Value = Policy;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Policy, Error> {
        let refused = |why: &dyn std::fmt::Display| {
            let of = argument.map_or_else(String::new, |argument| format!(" for '{argument}'"));
            let value = value.to_string_lossy();
            let text = format!("invalid value '{value}'{of}: {why}");
            command.clone().error(ErrorKind::ValueValidation, text)
        };
        match value.to_string_lossy().parse() {
            Ok(Policy::LeastConn) if self.datagrams => Err(refused(&NO_CONNECTIONS)),
            Ok(policy) => Ok(policy),
            Err(invalid @ InvalidPolicy::Prefixes) => Err(refused(&invalid)),
            // It fails too, and names those that there are, and one that is spelled alike.
            Err(unknown @ InvalidPolicy::Unknown) => PossibleValuesParser::new(self.names())
                .parse_ref(command, argument, value)
                .and_then(|_| Err(refused(&unknown))),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.names().map(PossibleValue::new)))
    }
}

/// Why `least-conn` is no policy for datagrams.
pub(super) const NO_CONNECTIONS: &str = "datagrams have no connections that could be counted; allowed: \
     round-robin, hash, source, cpu, random, kernel";
