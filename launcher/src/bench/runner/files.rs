//! The files that a report is written to: looked at before anything is measured, and written when there
//! is something to write. A file that is there stays whole until its successor is.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _},
    path::{Path, PathBuf},
    process,
};

use crate::failure::{Exit, Failure};

/// A file that can be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As on the command line.
    shown: PathBuf,
    /// Where it is.
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A regular file, or none yet: another one takes its place.
    Regular(PathBuf),
    /// A device, a pipe: written as it is.
    Special(PathBuf),
}

impl Target {
    /// Checks that a report can be written to the file, and changes nothing about it.
    ///
    /// # Errors
    /// When it can't; with [`Exit::Usage`].
    pub(super) fn check(path: &Path) -> Result<Self, Failure> {
        Self::find(path).map_err(|error| {
            let hint = "name a file in a directory that is there and can be written to";
            Failure::new(what(path), error, hint).exit(Exit::Usage)
        })
    }

    fn find(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let place = match fs::metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                // To open a pipe without a reader would block.
                if !found.file_type().is_fifo() {
                    OpenOptions::new().write(true).open(path)?;
                }
                Place::Special(path.to_owned())
            }
            Ok(_) => {
                OpenOptions::new().append(true).open(path)?;
                // What a symbolic link leads to is replaced, not the link.
                Place::Regular(fs::canonicalize(path)?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Place::Regular(path.to_owned())
            }
            Err(error) => return Err(error),
        };
        if let Place::Regular(file) = &place {
            let beside = beside(file)?;
            drop(File::create_new(&beside)?);
            fs::remove_file(&beside)?;
        }
        Ok(Self {
            shown: path.to_owned(),
            place,
        })
    }

    /// Whether both are the same regular file.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Regular(a), Place::Regular(b)) => {
                let absolute = |path: &Path| std::path::absolute(path).ok();
                absolute(a) == absolute(b)
            }
            _ => false,
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When that has become impossible since [`Target::check`]: what was there is as it was.
    pub(super) fn write(&self, text: &str) -> Result<(), Failure> {
        let written = match &self.place {
            Place::Special(file) => fs::write(file, text),
            Place::Regular(file) => replace(file, text),
        };
        written.map_err(|error| {
            let hint = "make room or give access, and measure again";
            Failure::new(what(&self.shown), error, hint)
        })
    }
}

fn what(path: &Path) -> String {
    format!("cannot write the report {}", path.display())
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let beside = beside(file)?;
    let write = || {
        let mut new = File::create_new(&beside)?;
        new.write_all(text.as_bytes())?;
        // It keeps who may read it.
        if let Ok(old) = fs::metadata(file) {
            let permissions: Permissions = old.permissions();
            new.set_permissions(permissions)?;
        }
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    write().inspect_err(|_| {
        // It may never have been made.
        let _ = fs::remove_file(&beside);
    })
}

/// A name in the same directory that nobody else has.
fn beside(file: &Path) -> io::Result<PathBuf> {
    let name = file.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", process::id()));
    Ok(file.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_is_checked_without_a_trace_and_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report.json");
        let target = Target::check(&file).unwrap();
        assert_eq!(names(dir.path()), Vec::<OsString>::new());
        target.write("one").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one");

        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        let target = Target::check(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one");
        target.write("two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["report.json"]);
    }

    #[test]
    fn what_a_link_leads_to_is_replaced_and_not_the_link() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        Target::check(&link).unwrap().write("new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in [
            dir.path().to_owned(),
            dir.path().join("none/report"),
            dir.path().join("report/"),
            "/proc/report".into(),
            "".into(),
        ] {
            let failure = Target::check(&wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong:?}");
            assert!(failure.what.starts_with("cannot write the report"));
        }
        Target::check(Path::new("/dev/null"))
            .unwrap()
            .write("anything")
            .unwrap();
    }

    #[test]
    fn one_file_by_two_names_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str| Target::check(&dir.path().join(name)).unwrap();
        assert!(check("a").is_same(&check("./a")));
        assert!(!check("a").is_same(&check("b")));
        let null = || Target::check(Path::new("/dev/null")).unwrap();
        assert!(!null().is_same(&null()));
    }
}
