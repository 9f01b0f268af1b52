//! What clap cannot say by itself: `run` is the default verb, and its options may come from a file and
//! from the environment too.

use std::ffi::OsString;

use clap::{
    ArgMatches, Args as _, Command, CommandFactory as _, FromArgMatches as _, error::ErrorKind,
    parser::ValueSource,
};

use super::{Cli, Invocation, Key, Kind, Run, Verb, keys};

/// An option of `run` and its value, wherever that comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The option's long name.
    pub key: String,
    /// Its values: one, or any number for a [`Kind::List`]. Of a [`Kind::Switch`] `true` or `false`, of
    /// a [`Kind::Count`] the number.
    pub values: Vec<OsString>,
}

/// Parses `args` (the program's name first).
///
/// # Errors
/// What clap makes of a wrong command line, of `--help` and of `--version`: `exit()` prints it
/// and ends with the right code.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(args)?;
    let mut of_run = &matches;
    if let Some((name, of_verb)) = matches.subcommand() {
        refuse_before_verb(&mut command, &matches, name)?;
        of_run = of_verb;
    }
    let given = keys()
        .iter()
        .filter_map(|key| setting(of_run, key))
        .collect();
    let Cli {
        verb,
        run,
        runtime_dir,
    } = Cli::from_arg_matches(&matches)?;
    Ok(Invocation {
        runtime_dir,
        verb: verb.unwrap_or_else(|| Verb::Run(Box::new(run))),
        given,
    })
}

/// What these settings mean, each of them given once, and no two that conflict.
///
/// # Errors
/// As clap words it for the command line.
pub fn options(settings: &[Setting], command: &[OsString]) -> Result<Run, clap::Error> {
    let known = keys();
    let mut words = Vec::new();
    for Setting { key, values } in settings {
        let kind = known.iter().find(|known| known.name == *key);
        for value in values {
            let mut word = OsString::from(format!("--{key}"));
            if kind.is_some_and(|key| key.kind == Kind::Count) {
                let times = value.to_str().and_then(|times| times.parse().ok());
                words.extend(std::iter::repeat_n(word, times.unwrap_or(0)));
                continue;
            }
            word.push("=");
            word.push(value);
            words.push(word);
        }
    }
    words.push("--".into());
    words.extend_from_slice(command);
    let mut run = Run::augment_args(Command::new("run").no_binary_name(true));
    let matches = run.try_get_matches_from_mut(words)?;
    Run::from_arg_matches(&matches)
}

/// Whether an option may have these values.
///
/// # Errors
/// Says why not, in the words of the command line.
pub fn check_setting(setting: &Setting) -> Result<(), String> {
    let Err(error) = options(std::slice::from_ref(setting), &["x".into()]) else {
        return Ok(());
    };
    // Which options it can't stand without shows when all are there.
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return Ok(());
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text.split("\n\nUsage:").next().unwrap_or(text);
    let said = said
        .split("\n\nFor more information")
        .next()
        .unwrap_or(said);
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(lines.collect::<Vec<_>>().join("; "))
}

/// The option, if it stands on the command line.
fn setting(matches: &ArgMatches, key: &Key) -> Option<Setting> {
    let id = key.id.as_str();
    if !given(matches, id) {
        return None;
    }
    let values = match key.kind {
        Kind::Count => vec![matches.get_count(id).to_string().into()],
        Kind::Text | Kind::List | Kind::Switch => matches
            .get_raw(id)
            .map(|values| values.map(ToOwned::to_owned).collect())
            .unwrap_or_default(),
    };
    Some(Setting {
        key: key.name.clone(),
        values,
    })
}

/// Whether the argument `id` stands on the command line; it may be unknown to the verb.
fn given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).unwrap_or(false)
        && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// The options of the default verb stand at the top too: before another verb they would be
/// swallowed without an effect.
fn refuse_before_verb(
    command: &mut Command,
    matches: &ArgMatches,
    verb: &str,
) -> Result<(), clap::Error> {
    let misplaced = command
        .get_arguments()
        .filter(|argument| !argument.is_global_set() && given(matches, argument.get_id().as_str()))
        .find_map(|argument| argument.get_long().map(str::to_owned));
    match misplaced {
        None => Ok(()),
        Some(option) => Err(command.error(
            ErrorKind::ArgumentConflict,
            format!("--{option} is an option of `run`: it cannot stand before the verb `{verb}`"),
        )),
    }
}
