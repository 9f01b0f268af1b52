//! One line of a worker with all that is known of it, and the words between the pump and `logs`: a
//! JSON value a line.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::source::Stream;
use crate::worker::WorkerId;

/// A line of a worker. The field names are a promise to scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// When it was read, RFC 3339 with milliseconds, UTC.
    pub(super) time: String,
    pub(super) slot: u32,
    pub(super) generation: u64,
    pub(super) stream: Stream,
    /// Without its newline; what is not UTF-8 is replaced. A part of a line that is longer than 64 KiB.
    pub(super) line: String,
}

impl Record {
    pub(super) fn new(worker: WorkerId, stream: Stream, piece: &[u8], now: SystemTime) -> Self {
        let line = piece.strip_suffix(b"\n").unwrap_or(piece);
        Self {
            time: humantime::format_rfc3339_millis(now).to_string(),
            slot: worker.slot,
            generation: worker.generation,
            stream,
            line: String::from_utf8_lossy(line).into_owned(),
        }
    }
}

/// What is asked of a pump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Ask {
    /// The last lines.
    Logs {
        /// Of this slot; `None`: of all.
        slot: Option<u32>,
        /// At most so many.
        lines: usize,
        /// And those that will come.
        follow: bool,
    },
    /// To open the log files anew.
    Reopen,
}

/// What it says to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    Line(Record),
    /// So many lines were left out here: nobody read them in time.
    Dropped(u64),
    /// What follows is new.
    Past,
    /// It does not answer, for this reason.
    Refused(String),
}

/// A message as one line.
pub(super) fn to_line(message: &impl Serialize) -> Vec<u8> {
    // Numbers and strings: it fails for none of our messages.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
