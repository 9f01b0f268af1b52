//! Finding the program that a command names.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::failure::{Exit, Failure};

/// Finds the program that a command names, as `execvp` would: by `PATH` unless it has a slash.
///
/// # Errors
/// [`Exit::NotFound`] or [`Exit::NotExecutable`].
pub fn find_program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let shown = name.to_string_lossy();
    let not_found = |why: String| {
        Failure::new(
            format!("cannot run {shown}"),
            why,
            "check the command after --; a script in this directory needs ./ before its name",
        )
        .exit(Exit::NotFound)
    };
    let candidates: Vec<PathBuf> = if name.as_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        std::env::split_paths(path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin")))
            .map(|dir| dir.join(name))
            .collect()
    };
    let mut refused = None;
    for candidate in candidates {
        let Ok(metadata) = candidate.metadata() else {
            continue;
        };
        if metadata.is_file() && access(&candidate, AccessFlags::X_OK).is_ok() {
            return Ok(candidate);
        }
        let why = if metadata.is_dir() {
            "is a directory"
        } else {
            "is not executable"
        };
        refused.get_or_insert(format!("{} {why}", candidate.display()));
    }
    match refused {
        Some(why) => Err(Failure::new(
            format!("cannot run {shown}"),
            why,
            "make it executable (chmod +x), or name its interpreter: -- python3 script.py",
        )
        .exit(Exit::NotExecutable)),
        None if name.as_bytes().contains(&b'/') => Err(not_found("there is no such file".into())),
        None => Err(not_found("no directory in PATH has it".into())),
    }
}
