//! The words on the control socket: one JSON object a line, one answer for each request.
//!
//! ```json
//! {"verb":"status"}
//! {"ok":true,"status":{"name":"web",…}}
//! {"verb":"scale","workers":8}
//! {"ok":true}
//! {"verb":"reload"}
//! {"ok":true,"changes":{"applied":[{"key":"workers","from":"auto","to":"4"}],"needs_restart":[]}}
//! {"verb":"dance"}
//! {"ok":false,"error":{"what":"…","why":"…","hint":"…"}}
//! ```

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{failure::Failure, observe::Snapshot};

/// The longest request, in bytes, with its newline.
pub const REQUEST_MAX: usize = 64 * 1024;

/// What a launcher can be asked. A field it does not know is refused: ignoring one could do
/// another thing than was asked for. (The braces: serde would let a unit variant have any field.)
/// One reload, scale or restart goes on at a time; another is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Show what there is.
    Status {},
    /// Stop the workers and end. Answered when the workers are gone.
    Stop {},
    /// Replace every worker, by the configuration file as it is by now. Answered when the last old one is
    /// gone, or when it was called off.
    Reload {
        /// How long the old workers may finish their connections; `null` or left out: as long as the
        /// launcher was told to wait.
        drain_timeout_ms: Option<TimeLimit>,
    },
    /// Change the number of workers. Answered when the additional ones are ready, or the surplus
    /// ones gone.
    Scale {
        /// From 1.
        workers: u32,
    },
    /// Replace the worker of one slot. Answered as a reload.
    Restart {
        /// Its slot.
        slot: u32,
    },
    /// Give a worker no more connections. Answered when it has none left.
    Drain {
        /// Its slot.
        slot: u32,
    },
    /// Give a drained worker connections again. Answered at once.
    Undrain {
        /// Its slot.
        slot: u32,
    },
    /// Tell the steering object something about a worker. Answered at once. A worker that starts has 0.
    Hint {
        /// Its slot.
        slot: u32,
        /// Its generation; `null` or left out: that of the worker that has the slot's place. One that
        /// speaks for itself names its own, or it could speak for its successor.
        generation: Option<u64>,
        /// What it means is the object's to say.
        value: u64,
    },
    /// Give a slot another share of the connections. Answered at once.
    Weight {
        /// Which slot.
        slot: u32,
        /// Relative to the others': 0 (no new ones) to 256.
        weight: u32,
    },
    /// Deal out connections and datagrams in another way. Answered when that is in force.
    Steer {
        /// As for `--steer`.
        policy: String,
        /// As for `--steer-udp`.
        #[serde(default)]
        udp: bool,
    },
    /// Go on as the launcher's present binary. With the old one its connections go: where this one
    /// is closed without an answer, it is done once the launcher, of the same pid, answers
    /// `status`.
    Upgrade {},
    /// Pass a message on. Answered when it is on its way.
    Send {
        /// To the worker of this slot; `null`: to all. It must be there: it would be too easy to
        /// reach all by mistake.
        #[serde(deserialize_with = "Option::deserialize")]
        slot: Option<u32>,
        /// Any JSON value.
        message: serde_json::Value,
    },
}

/// A time as it is written: `5000` or `"infinite"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "milliseconds or \"infinite\" expected")]
pub enum TimeLimit {
    /// So many milliseconds.
    Milliseconds(u64),
    /// No limit.
    Word(Word),
}

/// The word for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// For ever.
    Infinite,
}

impl From<TimeLimit> for Option<Duration> {
    fn from(limit: TimeLimit) -> Self {
        match limit {
            TimeLimit::Milliseconds(milliseconds) => Some(Duration::from_millis(milliseconds)),
            TimeLimit::Word(Word::Infinite) => None,
        }
    }
}

impl Request {
    /// The verbs, as they are written.
    pub const VERBS: &[&str] = &[
        "status", "stop", "reload", "scale", "restart", "drain", "undrain", "weight", "steer",
        "hint", "upgrade", "send",
    ];

    /// A reload with this time for old workers, or with the launcher's own.
    /// (`Some(None)`: for ever.)
    pub fn reload(drain_timeout: Option<Option<Duration>>) -> Self {
        Self::Reload {
            drain_timeout_ms: drain_timeout.map(|limit| match limit {
                // Far more than anybody waits; a larger number could not be written.
                Some(time) => {
                    TimeLimit::Milliseconds(time.as_millis().try_into().unwrap_or(u64::MAX))
                }
                None => TimeLimit::Word(Word::Infinite),
            }),
        }
    }

    /// The verb, as it is written.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Status {} => "status",
            Self::Stop {} => "stop",
            Self::Reload { .. } => "reload",
            Self::Scale { .. } => "scale",
            Self::Restart { .. } => "restart",
            Self::Drain { .. } => "drain",
            Self::Undrain { .. } => "undrain",
            Self::Hint { .. } => "hint",
            Self::Weight { .. } => "weight",
            Self::Steer { .. } => "steer",
            Self::Upgrade {} => "upgrade",
            Self::Send { .. } => "send",
        }
    }

    /// Reads one line.
    ///
    /// # Errors
    /// Says what is wrong with it, for the one who sent it.
    pub fn parse(line: &[u8]) -> Result<Self, Failure> {
        let refused = |why: String| {
            Failure::new(
                "cannot understand the request",
                why,
                format!(
                    "this launcher (version {VERSION}) knows {}",
                    Self::VERBS.join(", ")
                ),
            )
        };
        if line.len() > REQUEST_MAX {
            return Err(refused(format!("longer than {REQUEST_MAX} bytes")));
        }
        let value: serde_json::Value = serde_json::from_slice(line)
            .map_err(|error| refused(format!("not a line of JSON: {error}")))?;
        match value.get("verb").and_then(serde_json::Value::as_str) {
            None => return Err(refused("no \"verb\" in it".to_owned())),
            Some(verb) if !Self::VERBS.contains(&verb) => {
                return Err(refused(format!("unknown verb {verb:?}")));
            }
            Some(_) => {}
        }
        serde_json::from_value(value).map_err(|error| refused(error.to_string()))
    }
}

/// The version that answers name.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a launcher answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Answer", try_from = "Answer")]
pub enum Response {
    /// To `status`.
    Status(Box<Snapshot>),
    /// Done, with nothing to show.
    Done,
    /// Done, by another configuration than before.
    Changed(Changes),
    /// Not done.
    Failed(Error),
}

/// What a reload has found changed in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// What is in force by now.
    pub applied: Vec<Change>,
    /// What will be when the launcher is started anew.
    pub needs_restart: Vec<Change>,
}

/// An option that has another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its name; `env.NAME` for a variable of the workers.
    pub key: String,
    /// As it was; `null`: not set. Of a variable never told.
    pub from: Option<String>,
    /// As it is by now.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        match (&self.from, &self.to) {
            (None, None) => f.write_str(&self.key),
            (from, to) => write!(f, "{}: {} → {}", self.key, value(from), value(to)),
        }
    }
}

/// Why something was not done; the parts of a [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What failed.
    pub what: String,
    /// Why.
    pub why: String,
    /// What to do about it.
    pub hint: String,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure {
            what,
            why,
            hint,
            exit: _,
        } = failure;
        Self { what, why, hint }
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let Error { what, why, hint } = error;
        Self::new(what, why, hint)
    }
}

/// A response as it is written.
#[derive(Serialize, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Box<Snapshot>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changes: Option<Changes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Error>,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        let nothing = Self {
            ok: true,
            status: None,
            changes: None,
            error: None,
        };
        match response {
            Response::Status(snapshot) => Self {
                status: Some(snapshot),
                ..nothing
            },
            Response::Done => nothing,
            Response::Changed(changes) => Self {
                changes: Some(changes),
                ..nothing
            },
            Response::Failed(error) => Self {
                ok: false,
                error: Some(error),
                ..nothing
            },
        }
    }
}

impl TryFrom<Answer> for Response {
    type Error = &'static str;

    fn try_from(answer: Answer) -> Result<Self, Self::Error> {
        let Answer {
            ok,
            status,
            changes,
            error,
        } = answer;
        match (ok, status, changes, error) {
            (true, Some(snapshot), None, None) => Ok(Self::Status(snapshot)),
            (true, None, None, None) => Ok(Self::Done),
            (true, None, Some(changes), None) => Ok(Self::Changed(changes)),
            (false, None, None, Some(error)) => Ok(Self::Failed(error)),
            _ => Err("ok and what stands beside it contradict each other"),
        }
    }
}

/// Writes a message as one line.
pub(super) fn to_line(message: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
