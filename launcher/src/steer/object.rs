//! A steering object of the user's own, in place of ours: what it must have, and what is said of one
//! that can't be used. docs/STEER-OBJECT.md is its description for those who write one.

mod interface;
#[cfg(test)]
mod tests;

use std::{
    fmt, fs, io,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Mutex,
};

use aya::programs::ProgramError;
use aya_obj::{ParseError, ProgramSection, programs::SkReuseportAttachType};

use self::interface::{INTERFACE, Known};
use super::program::{LoadError, Program};
use crate::{
    failure::{Exit, Failure},
    sys::privilege::{ebpf_failure, root_errno},
};

/// The largest object that is read, in bytes. Ours has less than 100 KiB.
const SIZE_MAX: u64 = 16 << 20;

/// How many lines of the verifier's log are shown; the last ones say what is wrong.
const LOG_LINES: usize = 12;

/// An object that was found to be usable.
#[derive(Clone)]
pub struct Object {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The name of its program.
    program: String,
    /// Whether that is asked where connections move to.
    migrates: bool,
    /// Which maps of the interface it has.
    maps: Vec<&'static str>,
}

impl Object {
    /// Reads an object, looks at its maps, and has the verifier look at its program.
    ///
    /// # Errors
    /// When it can't be read, is not what docs/STEER-OBJECT.md asks for, or the kernel refuses it.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let bytes = read(path).map_err(|error| {
            let doing = format!("reading {}", path.display());
            Failure::io(CANNOT, doing, &error, "correct the path").exit(Exit::Config)
        })?;
        let object = Self::parse(path, bytes)?;
        object.load(None)?;
        Ok(object)
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, Failure> {
        let unusable = |why: String| {
            let why = format!("{}: {why}", path.display());
            let hint = "docs/STEER-OBJECT.md says what such an object has; examples/ has one";
            Failure::new(CANNOT, why, hint).exit(Exit::Config)
        };
        let parsed = contained(|| aya_obj::Object::parse(&bytes)).map_err(|error| {
            let section = error.downcast_ref();
            unusable(match section {
                Some(ParseError::InvalidProgramSection { section }) => {
                    format!("its section {section:?} is for no kind of eBPF program")
                }
                Some(ParseError::ElfError(error)) => format!("it is no eBPF object: {error}"),
                _ => format!("it is no eBPF object: {}", with_causes(error.as_ref())),
            })
        })?;
        let mut names: Vec<&str> = parsed.programs.keys().map(String::as_str).collect();
        names.sort_unstable();
        let [name] = names[..] else {
            return Err(unusable(if names.is_empty() {
                "it has no program".to_owned()
            } else {
                format!("it has several programs, {}, not one", names.join(", "))
            }));
        };
        let ProgramSection::SkReuseport { attach_type } = &parsed.programs[name].section else {
            return Err(unusable(format!(
                "its program {name} is not in the section sk_reuseport or sk_reuseport/migrate"
            )));
        };
        let mut maps = Vec::new();
        for known in &INTERFACE {
            match parsed.maps.get(known.name) {
                Some(map) => {
                    known.check(map).map_err(unusable)?;
                    maps.push(known.name);
                }
                None if known.required => {
                    return Err(unusable(format!("it has no map {}", known.name)));
                }
                None => {}
            }
        }
        Ok(Self {
            path: path.to_owned(),
            program: name.to_owned(),
            migrates: matches!(attach_type, SkReuseportAttachType::SelectOrMigrate),
            maps,
            bytes,
        })
    }

    /// Whether it counts what it selects.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.maps.contains(&"COUNTERS")
    }

    /// Whether workers can tell it something.
    #[must_use]
    pub fn takes_hints(&self) -> bool {
        self.maps.contains(&"HINTS")
    }

    /// Loads an instance with maps of its own.
    pub(super) fn load(&self, pins: Option<&Path>) -> Result<Program, Failure> {
        let pinned = INTERFACE
            .iter()
            .filter(|known| self.maps.contains(&known.name))
            .filter_map(Known::pin)
            .collect();
        let load = || Program::load_object(&self.bytes, &self.program, self.migrates, pinned, pins);
        contained(load).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: LoadError) -> Failure {
        /// What says nothing about the object.
        const OURS: [i32; 4] = [libc::EPERM, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
        let path = self.path.display();
        let log = match error.downcast_ref::<ProgramError>() {
            Some(ProgramError::LoadError { verifier_log, .. }) => verifier_log.to_string(),
            _ => String::new(),
        };
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            if root_errno(error.as_ref()).is_some_and(|errno| OURS.contains(&errno)) {
                return ebpf_failure(format!("{CANNOT}: {path}"), error.as_ref());
            }
            let why = with_causes(error.as_ref());
            return Failure::new(
                CANNOT,
                format!("{path}: it can't be loaded: {why}"),
                "build it anew; before Linux 5.14 leave /migrate out of the section's name",
            )
            .exit(Exit::Config);
        }
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ");
        let program = &self.program;
        Failure::new(
            CANNOT,
            format!("{path}: the kernel's verifier refuses the program {program}:\n    {last}"),
            "correct the program: these are the verifier's last words",
        )
        .exit(Exit::Config)
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

const CANNOT: &str = "cannot steer with the object of --steer-object";

/// Runs what aya does with the object: of one that is damaged it may expect too much, and panic. (What
/// it was making is dropped then.) What the panic has to say is no use to anybody.
fn contained<T, E: Into<LoadError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, LoadError> {
    /// The hook is the process's: two that exchange it at a time would not get their own back.
    static HOOK: Mutex<()> = Mutex::new(());
    let exchanging = HOOK.lock();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    drop(exchanging);
    match result {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err("it is damaged: what it says of itself contradicts itself".into()),
    }
}

/// Reads a file that is one: a device or a pipe could go on for ever.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if metadata.len() > SIZE_MAX {
        let why = format!("it has {} bytes, more than {SIZE_MAX}", metadata.len());
        return Err(io::Error::other(why));
    }
    fs::read(path)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
