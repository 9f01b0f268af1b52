//! What a shell completes: a script registers this program itself, which the shell then asks with the
//! words so far. So what is completed is always what this version has, and which launchers run.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
};

use clap::{Command, CommandFactory as _, ValueEnum};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::{Bash, Elvish, EnvCompleter, Fish, Zsh},
};

use super::Cli;
use crate::sys::runtime::RuntimeDir;

/// The environment variable by which a shell's script asks.
const ASKED: &str = "REUSEPORT_LAUNCH_COMPLETE";

/// The program's name, as the script is for it and calls it.
const PROGRAM: &str = "reuseport-launch";

/// A shell that can be told what to complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// For `source`, or `/usr/share/bash-completion/completions/reuseport-launch`.
    Bash,
    /// For `eval`.
    Elvish,
    /// For `source`, or `/usr/share/fish/vendor_completions.d/reuseport-launch.fish`.
    Fish,
    /// For `source`, or `_reuseport-launch` in a directory of `$fpath`.
    Zsh,
}

/// The script that has `shell` ask this program.
///
/// # Errors
/// Never, as long as memory can be written to.
pub fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Zsh => &Zsh,
    };
    let mut script = Vec::new();
    shell.write_registration(ASKED, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    Ok(script)
}

/// Answers a shell that asks what `args` could go on with; `false` if none does. To be called before
/// anything else is: it changes the environment.
///
/// # Errors
/// When the shell is none that we know, or does not read the answer.
pub fn answer(args: impl IntoIterator<Item = OsString>) -> Result<bool, clap::Error> {
    let here = env::current_dir().ok();
    CompleteEnv::with_factory(command)
        .var(ASKED)
        .try_complete(args, here.as_deref())
}

/// The command, whose verbs know the names of the launchers.
fn command() -> Command {
    Cli::command().mut_subcommands(|verb| {
        verb.mut_args(|arg| match arg.get_id().as_str() {
            // The first word of `logs` is a slot, or a name.
            "name" | "of" if arg.is_positional() => arg.add(ArgValueCompleter::new(names)),
            _ => arg,
        })
    })
}

/// The launchers whose names begin like this.
fn names(begun: &OsStr) -> Vec<CompletionCandidate> {
    let explicit = env::var_os("REUSEPORT_LAUNCH_RUNTIME_DIR");
    let directory = RuntimeDir::locate(explicit.as_deref().map(AsRef::as_ref));
    // Nobody could read what is wrong with it.
    let names = directory.and_then(|directory| directory.names());
    let names = names.unwrap_or_default().into_iter();
    names
        .filter(|name| {
            let begun = begun.to_str();
            begun.is_some_and(|begun| name.as_str().starts_with(begun))
        })
        .map(|name| CompletionCandidate::new(name.as_str()))
        .collect()
}
