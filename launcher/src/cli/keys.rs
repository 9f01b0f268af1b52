//! The options of `run` as keys of the configuration file and as environment variables. All of it is
//! derived from what clap knows, so that an option can't have one and lack another.

use clap::{Arg, ArgAction, Args as _, Command, ValueHint};

use super::Run;

/// The options that say which file is read, and so can't stand in it.
const OF_THE_FILE: [&str; 3] = ["config", "env", "app"];

/// The options that mean nothing without another one: both by name.
const NEEDS: [(&str, &str); 3] = [
    ("health-interval", "health"),
    ("health-timeout", "health"),
    ("health-threshold", "health"),
];

/// An option of `run`, as a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The option's long name, without dashes at its front: `drain-timeout`.
    pub name: String,
    /// What clap calls it.
    pub(super) id: String,
    /// How its value is written in a file.
    pub kind: Kind,
    /// Whether that is a path, which a file means from its own directory.
    pub path: bool,
    /// What `--help` says about it.
    pub help: String,
    /// The heading it has there.
    pub heading: String,
    /// What its value is called there: `auto|N`.
    pub value_name: String,
    /// Its value where nobody sets one.
    pub default: Option<String>,
    /// The options that can't be set together with it.
    pub conflicts: Vec<String>,
    /// The option without which it means nothing.
    pub needs: Option<&'static str>,
}

/// How the value of a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string, or a whole number.
    Text,
    /// An array of those, or one of them.
    List,
    /// `true` or `false`.
    Switch,
    /// How often the flag would stand on the command line: 0 to 2.
    Count,
}

/// The environment variable of an option.
#[must_use]
pub fn variable(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace('-', "_");
    format!("REUSEPORT_LAUNCH_{name}")
}

/// All of them, in the order of `--help`.
#[must_use]
pub fn keys() -> Vec<Key> {
    let command = Run::augment_args(Command::new("run"));
    let options = command.get_arguments().filter_map(|arg| {
        let name = arg.get_long()?;
        (!OF_THE_FILE.contains(&name)).then(|| key(&command, arg, name))
    });
    options.collect()
}

fn key(command: &Command, arg: &Arg, name: &str) -> Key {
    let kind = match arg.get_action() {
        ArgAction::Append => Kind::List,
        ArgAction::Count => Kind::Count,
        ArgAction::Set if arg.get_num_args().is_some_and(|of| of.min_values() == 0) => Kind::Switch,
        _ => Kind::Text,
    };
    let default = match kind {
        Kind::Count => Some("0".to_owned()),
        Kind::Text | Kind::List | Kind::Switch => arg
            .get_default_values()
            .first()
            .map(|value| value.to_string_lossy().into_owned()),
    };
    let value_names = arg.get_value_names().unwrap_or_default();
    let others = command.get_arg_conflicts_with(arg);
    Key {
        name: name.to_owned(),
        id: arg.get_id().to_string(),
        kind,
        path: arg.get_value_hint() == ValueHint::AnyPath,
        help: arg.get_help().map_or_else(String::new, ToString::to_string),
        heading: arg.get_help_heading().unwrap_or_default().to_owned(),
        value_name: value_names
            .first()
            .map_or_else(String::new, ToString::to_string),
        default,
        conflicts: others
            .into_iter()
            .filter_map(|other| other.get_long().map(str::to_owned))
            .collect(),
        needs: NEEDS
            .iter()
            .find_map(|&(option, other)| (option == name).then_some(other)),
    }
}
