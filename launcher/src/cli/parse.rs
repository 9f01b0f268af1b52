//! What clap cannot say by itself: `run` is the default verb, and an environment variable that
//! counts for one verb only.

use std::ffi::OsString;

use clap::{
    ArgMatches, CommandFactory as _, FromArgMatches as _, error::ErrorKind, parser::ValueSource,
};

use super::{Cli, Invocation, Verb, WORKERS_VARIABLE};
use crate::fleet::placement::Workers;

/// Parses `args` (the program's name first). `web_concurrency` is the value of
/// [`WORKERS_VARIABLE`]: it counts only for `run` without `--workers`, and empty means unset.
///
/// # Errors
/// What clap makes of a wrong command line, of `--help` and of `--version`: `exit()` prints it
/// and ends with the right code.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    web_concurrency: Option<OsString>,
) -> Result<Invocation, clap::Error> {
    let mut command = Cli::command();
    let matches = command.try_get_matches_from_mut(args)?;
    let mut workers_given = given(&matches, "workers");
    if let Some((name, of_verb)) = matches.subcommand() {
        refuse_before_verb(&mut command, &matches, name)?;
        workers_given = given(of_verb, "workers");
    }

    let Cli {
        verb,
        run,
        runtime_dir,
    } = Cli::from_arg_matches(&matches)?;
    let mut verb = verb.unwrap_or_else(|| Verb::Run(Box::new(run)));
    if let Verb::Run(run) = &mut verb {
        if run.command.is_empty() {
            return Err(command.error(
                ErrorKind::MissingRequiredArgument,
                "no command to run: reuseport-launch --workers auto -- ./myserver",
            ));
        }
        if let Some(value) = web_concurrency.filter(|value| !value.is_empty() && !workers_given) {
            run.workers = workers_from_environment(&value)
                .map_err(|why| command.error(ErrorKind::ValueValidation, why))?;
        }
    }
    Ok(Invocation { runtime_dir, verb })
}

fn workers_from_environment(value: &OsString) -> Result<Workers, String> {
    let shown = value.to_string_lossy();
    shown.parse().map_err(|why| {
        format!("invalid value '{shown}' in the environment variable {WORKERS_VARIABLE}: {why}")
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
    command: &mut clap::Command,
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
