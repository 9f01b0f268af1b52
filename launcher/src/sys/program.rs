//! Finding the program that a command names.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use crate::failure::{Exit, Failure};

/// Finds the program that a command names, as `execvp` would in the working directory `directory`:
/// by `path` unless it has a slash. Like the name, the result may be relative to `directory`.
///
/// # Errors
/// [`Exit::NotFound`] or [`Exit::NotExecutable`].
pub fn find_program(
    name: &OsStr,
    directory: &Path,
    path: Option<&OsStr>,
) -> Result<PathBuf, Failure> {
    let shown = name.to_string_lossy();
    let not_found = |why: String| {
        Failure::new(
            format!("cannot run {shown}"),
            why,
            "check the command after --; a script in the workers' directory needs ./ before its name",
        )
        .exit(Exit::NotFound)
    };
    let by_path = !name.as_bytes().contains(&b'/');
    let candidates: Vec<PathBuf> = if by_path {
        std::env::split_paths(path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin")))
            .map(|dir| dir.join(name))
            .collect()
    } else {
        vec![PathBuf::from(name)]
    };
    let mut refused = None;
    for candidate in candidates {
        let place = directory.join(&candidate);
        let Ok(metadata) = place.metadata() else {
            continue;
        };
        if metadata.is_file() && access(&place, AccessFlags::X_OK).is_ok() {
            return Ok(candidate);
        }
        let why = if metadata.is_dir() {
            "is a directory"
        } else {
            "is not executable"
        };
        refused.get_or_insert(format!("{} {why}", place.display()));
    }
    match refused {
        Some(why) => Err(Failure::new(
            format!("cannot run {shown}"),
            why,
            "make it executable (chmod +x), or name its interpreter: -- python3 script.py",
        )
        .exit(Exit::NotExecutable)),
        None if by_path => Err(not_found("no directory in PATH has it".into())),
        None if Path::new(name).is_absolute() => Err(not_found("there is no such file".into())),
        None => Err(not_found(format!(
            "there is no such file in {}",
            directory.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn relative_names_are_meant_from_the_directory() {
        let root = tempfile::tempdir().unwrap();
        let server = root.path().join("bin/server");
        fs::create_dir(root.path().join("bin")).unwrap();
        fs::write(&server, "").unwrap();
        let find =
            |name: &str, path: &str| find_program(name.as_ref(), root.path(), Some(path.as_ref()));
        let failure = find("bin/server", "").unwrap_err();
        assert_eq!(failure.exit, Exit::NotExecutable, "{failure}");
        fs::set_permissions(&server, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("bin/server", "").unwrap(), Path::new("bin/server"));
        assert_eq!(
            find("server", "/none:bin").unwrap(),
            Path::new("bin/server")
        );
        assert_eq!(find(server.to_str().unwrap(), "").unwrap(), server);
        for (missing, why) in [
            (
                "./server",
                format!("there is no such file in {}", root.path().display()),
            ),
            ("/none/server", "there is no such file".into()),
            ("server", "no directory in PATH has it".into()),
        ] {
            let failure = find(missing, "/none").unwrap_err();
            assert_eq!((failure.why, failure.exit), (why, Exit::NotFound));
        }
    }
}
