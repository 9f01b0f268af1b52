//! Where the workers start. The path is kept as it was written, so that a symbolic link in it, such
//! as `current` of a deployment, is followed anew at each start.

use std::{
    env,
    ffi::OsString,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use crate::failure::{Exit, Failure};

/// The directory that relative paths of the command line are meant from, as whoever wrote it
/// knows it: by `$PWD`, with its symbolic links, where that is true.
///
/// # Errors
/// When it is gone.
pub(super) fn current() -> Result<PathBuf, Failure> {
    let real = env::current_dir().map_err(|error| {
        Failure::new(
            "cannot tell the current directory",
            error,
            "start the launcher in a directory that exists",
        )
    })?;
    Ok(by_name(env::var_os("PWD"), real))
}

/// `named`, if that is another name of `real`.
fn by_name(named: Option<OsString>, real: PathBuf) -> PathBuf {
    let identity = |path: &Path| path.metadata().ok().map(|it| (it.dev(), it.ino()));
    // As POSIX has it for `pwd -L`: with dots in it, a link before them would make it another place.
    let plain = |path: &Path| {
        let mut parts = path.components();
        path.is_absolute() && !parts.any(|part| part == Component::ParentDir)
    };
    match named.map(PathBuf::from) {
        Some(named) if plain(&named) && identity(&named) == identity(&real) => named,
        _ => real,
    }
}

/// The workers' directory: `chdir`, as seen from `current`.
///
/// # Errors
/// When it is no directory; with [`Exit::Usage`].
pub(super) fn of_workers(current: &Path, chdir: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(chdir) = chdir else {
        return Ok(current.to_owned());
    };
    let directory = current.join(chdir);
    let why = match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => return Ok(directory),
        Ok(_) => "it is not a directory".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(
        format!("cannot start workers in {}", directory.display()),
        why,
        "name a directory that exists (--chdir)",
    )
    .exit(Exit::Usage))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_link_is_kept_where_it_names_the_current_directory() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().canonicalize().unwrap().join(name);
        fs::create_dir(path("one")).unwrap();
        fs::create_dir(path("two")).unwrap();
        symlink("one", path("current")).unwrap();
        let named = |name: &Path| by_name(Some(name.into()), path("one"));
        assert_eq!(named(&path("current")), path("current"));
        assert_eq!(named(&path("one")), path("one"));
        for wrong in [
            &path("two"),
            &path("none"),
            &path("two/../one"),
            Path::new("one"),
        ] {
            assert_eq!(named(wrong), path("one"), "{wrong:?}");
        }
        assert_eq!(by_name(None, path("one")), path("one"));
    }

    #[test]
    fn workers_start_where_asked() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        let of_workers = |chdir| of_workers(root.path(), chdir);
        assert_eq!(of_workers(None).unwrap(), root.path());
        let dir = root.path().join("dir");
        assert_eq!(of_workers(Some(Path::new("dir"))).unwrap(), dir);
        assert_eq!(of_workers(Some(&dir)).unwrap(), dir);
        for (wrong, why) in [("file", "it is not a directory"), ("none", "No such file")] {
            let failure = of_workers(Some(Path::new(wrong))).unwrap_err();
            assert!(failure.why.starts_with(why), "{failure}");
            assert_eq!(failure.exit, Exit::Usage);
        }
    }
}
