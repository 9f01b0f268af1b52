//! Errors that a person sees: what failed, why, and what to do.

use std::{fmt, io, process::ExitCode};

/// How the launcher ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Stopped as asked.
    Clean = 0,
    /// Gave up, was refused a port, or a control verb failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A kernel feature or a privilege is missing (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// The configuration is wrong (`EX_CONFIG`).
    Config = 78,
    /// The command can't be executed.
    NotExecutable = 126,
    /// The command was not found.
    NotFound = 127,
    /// A benchmark was interrupted by a signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What to do when a limit of open files is reached.
pub const MORE_FILES: &str =
    "raise the limit of open files: ulimit -n, or LimitNOFILE= of the service";

/// An error in three parts, with the exit code it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed, without a full stop: `cannot load eBPF`.
    pub what: String,
    /// Why: `CAP_BPF is missing`.
    pub why: String,
    /// What to do about it: `run as root, or …`.
    pub hint: String,
    /// The exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure that ends with [`Exit::Failed`].
    pub fn new(what: impl Into<String>, why: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.to_string(),
            hint: hint.into(),
            exit: Exit::Failed,
        }
    }

    /// The failure of a system call. Too many open files is no fault of what was asked for, so that
    /// has a hint of its own.
    pub fn io(
        what: impl Into<String>,
        doing: impl fmt::Display,
        error: &io::Error,
        hint: impl Into<String>,
    ) -> Self {
        let hint = match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => MORE_FILES.to_owned(),
            _ => hint.into(),
        };
        Self::new(what, format_args!("{doing} failed: {error}"), hint)
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  → {}", self.what, self.why, self.hint)
    }
}

impl std::error::Error for Failure {}
