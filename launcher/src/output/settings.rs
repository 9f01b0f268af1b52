//! What becomes of the workers' lines besides being passed on.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
};

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure};

/// What stands for the slot in the path of a log file.
const SLOT: &str = "{slot}";

/// How lines are written and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Each line is a JSON object: time, slot, generation, stream and the line.
    pub json: bool,
    /// Lines kept of each slot for `logs`, at most 256 KiB of them.
    pub lines: usize,
    /// Where lines are written, too.
    pub file: Option<LogFile>,
}

/// Files of a bounded size: `PATH`, and before it `PATH.1`, `PATH.2` and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Absolute. Each `{slot}` is replaced by the slot; without one, all share a file.
    pub path: String,
    /// Bytes of one file; at least 1 MiB, so that any line fits.
    pub max_size: u64,
    /// Earlier files kept; 0: none.
    pub keep: u32,
}

impl LogFile {
    /// The file of a slot.
    pub(super) fn of(&self, slot: u32) -> String {
        self.path.replace(SLOT, &slot.to_string())
    }

    /// Whether each slot has a file of its own.
    pub(super) fn each(&self) -> bool {
        self.path.contains(SLOT)
    }

    /// Tries whether the file of slot 0 can be written to; creates it where it is missing.
    ///
    /// # Errors
    /// When it can't.
    pub fn check(&self) -> Result<(), Failure> {
        let path = self.of(0);
        open(&path).map(drop).map_err(|error| {
            Failure::new(
                format!("cannot write the log file {path}"),
                error,
                "create its directory, or name another file: --log-file PATH",
            )
            .exit(Exit::Config)
        })
    }
}

/// Opens a file to write at its end; creates it where it is missing. Only a file: to open a pipe
/// could wait for its reader.
pub(super) fn open(path: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a file"))
    }
}
