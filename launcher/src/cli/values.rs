//! The values that options take: how each is written, and what is said about a wrong one.

use std::{fmt, str::FromStr};

use nix::sys::signal::Signal;

use super::quantities::decimal;
use crate::{
    fleet::placement::{WORKERS_MAX, Workers},
    policy::WEIGHT_MAX,
    sys::{listeners::Protocol, runtime::Name},
};

pub use crate::probe::Check;

/// One value of `--port`: `8080`, `8080/tcp` or `53/udp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortSpec {
    /// 1–65535.
    pub port: u16,
    /// TCP where none was named.
    pub protocol: Protocol,
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const ALLOWED: &str = "allowed: a port from 1 to 65535, alone or with /tcp or /udp";
        let (port, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((port, "tcp")) => (port, Protocol::Tcp),
            Some((port, "udp")) => (port, Protocol::Udp),
            Some(_) => return Err(ALLOWED.into()),
        };
        match decimal(port) {
            Some(0) => Err(format!(
                "port 0 lets the kernel pick another port for each worker, so none is shared; {ALLOWED}"
            )),
            Some(port) => u16::try_from(port)
                .map(|port| Self { port, protocol })
                .map_err(|_| ALLOWED.into()),
            None => Err(ALLOWED.into()),
        }
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// A signal by name (`TERM`, `SIGTERM`, any case) or by number (1–64, real-time ones too).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StopSignal(i32);

impl StopSignal {
    /// The signal's number, 1–64.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for StopSignal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match decimal(text) {
            Some(number) => i32::try_from(number)
                .ok()
                .filter(|number| (1..=64).contains(number)),
            None => Signal::from_str(&format!("SIG{name}"))
                .ok()
                .map(|signal| signal as i32),
        };
        number.map(Self).ok_or_else(|| {
            "allowed: a signal's name, such as TERM, INT, QUIT, USR1 or WINCH, or its number from 1 to 64".into()
        })
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str().trim_start_matches("SIG")),
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            _ => match text.strip_prefix("http:") {
                Some(path) => http_path(path).map(Self::Http),
                None => Err("allowed: tcp, or http:PATH, such as http:/health".into()),
            },
        }
    }
}

/// What makes a worker ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// It listens.
    Listen,
    /// It sends `READY=1` to its `NOTIFY_SOCKET`.
    Notify,
    /// As [`Check::Tcp`].
    Tcp,
    /// As [`Check::Http`].
    Http(String),
    /// It calls `process.send('ready')`.
    Node,
}

impl FromStr for Ready {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "listen" => Ok(Self::Listen),
            "notify" => Ok(Self::Notify),
            "tcp" => Ok(Self::Tcp),
            "node" => Ok(Self::Node),
            _ => match text.strip_prefix("http:") {
                Some(path) => http_path(path).map(Self::Http),
                None => Err(
                    "allowed: listen, notify, tcp, node, or http:PATH, such as http:/ready".into(),
                ),
            },
        }
    }
}

fn http_path(text: &str) -> Result<String, String> {
    request_path(text, "http:PATH, such as http:/health")
}

/// The path of a request; `allowed` is said of one that does not start as a path.
pub(super) fn request_path(text: &str, allowed: &str) -> Result<String, String> {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !text.starts_with('/') {
        return Err(format!(
            "the path {text:?} does not start with /; allowed: {allowed}"
        ));
    }
    if !text.bytes().all(visible) {
        return Err(format!(
            "the path {text:?} can't stand in a request; allowed: visible ASCII characters without #, others as %XX"
        ));
    }
    Ok(text.to_owned())
}

/// Whom `send` reaches: the worker of a slot, or (`None`) every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target(pub Option<u32>);

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self(None)),
            _ => slot(text)
                .map(|slot| Self(Some(slot)))
                .map_err(|why| format!("{why}, or all")),
        }
    }
}

/// The slot that `logs` is about, or (where the slot is left out) the launcher: a name that is a number
/// stands behind a slot, or `all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotOrName {
    /// A slot, or `all`.
    Slot(Target),
    /// A launcher.
    Name(Name),
}

impl FromStr for SlotOrName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" || text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().map(Self::Slot)
        } else {
            text.parse().map(Self::Name)
        }
    }
}

/// Parses the number of a slot that some fleet can have.
pub(super) fn slot(text: &str) -> Result<u32, String> {
    decimal(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|slot| *slot < WORKERS_MAX)
        .ok_or_else(|| {
            format!(
                "allowed: the number of a slot, 0 to {}, as `status` shows it",
                WORKERS_MAX - 1
            )
        })
}

/// Parses what the steering object is told about a worker.
pub(super) fn hint(text: &str) -> Result<u64, String> {
    decimal(text).ok_or_else(|| format!("allowed: a whole number, 0 to {}", u64::MAX))
}

/// Parses the weight of a slot.
pub(super) fn weight(text: &str) -> Result<u16, String> {
    decimal(text)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or_else(|| format!("allowed: 0 (no new connections) to {WEIGHT_MAX}"))
}

/// Parses a number of workers that a fleet can have.
pub(super) fn worker_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(Workers::Count(count)) => Ok(count),
        Ok(Workers::Auto) | Err(_) => Err(format!("allowed: 1 to {WORKERS_MAX}")),
    }
}

/// Parses one JSON value.
pub(super) fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|error| {
        format!(
            "no JSON: {error}; allowed: a JSON value, such as 42, '\"text\"' or '{{\"key\":1}}'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let parse = |text: &str| text.parse::<PortSpec>().map(|spec| spec.to_string());
        assert_eq!(parse("8080").unwrap(), "8080/tcp");
        assert_eq!(parse("443/tcp").unwrap(), "443/tcp");
        assert_eq!(parse("53/udp").unwrap(), "53/udp");
        assert!(
            parse("0")
                .unwrap_err()
                .starts_with("port 0 lets the kernel pick")
        );
        assert!(
            parse("0/udp")
                .unwrap_err()
                .starts_with("port 0 lets the kernel pick")
        );
        for wrong in [
            "",
            "/tcp",
            "65536",
            "+80",
            "-1",
            "http",
            "80/sctp",
            "80/",
            "80/tcp/tcp",
        ] {
            assert!(
                parse(wrong).unwrap_err().starts_with("allowed:"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn signals() {
        let parse = |text: &str| {
            text.parse::<StopSignal>()
                .map(|signal| (signal.number(), signal.to_string()))
        };
        assert_eq!(parse("TERM").unwrap(), (15, "TERM".into()));
        assert_eq!(parse("SIGINT").unwrap(), (2, "INT".into()));
        assert_eq!(parse("sigwinch").unwrap(), (28, "WINCH".into()));
        assert_eq!(parse("15").unwrap(), (15, "TERM".into()));
        assert_eq!(parse("37").unwrap(), (37, "37".into()));
        for wrong in ["", "SIG", "0", "65", "-9", "NOPE", "SIGSIGTERM"] {
            assert!(
                parse(wrong).unwrap_err().starts_with("allowed:"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn checks() {
        assert_eq!("tcp".parse(), Ok(Check::Tcp));
        assert_eq!(
            "http:/a?b=c%20".parse(),
            Ok(Check::Http("/a?b=c%20".into()))
        );
        for wrong in ["", "TCP", "http", "https:/x", "listen", "/health"] {
            let why = wrong.parse::<Check>().unwrap_err();
            assert!(why.starts_with("allowed: tcp, or http:PATH"), "{why}");
        }
        assert_eq!("listen".parse(), Ok(Ready::Listen));
        assert_eq!("notify".parse(), Ok(Ready::Notify));
        assert_eq!("tcp".parse(), Ok(Ready::Tcp));
        assert_eq!("http:/".parse(), Ok(Ready::Http("/".into())));
        assert_eq!("node".parse(), Ok(Ready::Node));
        let why = "always".parse::<Ready>().unwrap_err();
        assert!(why.starts_with("allowed: listen, notify"), "{why}");
    }

    #[test]
    fn paths_can_stand_in_a_request() {
        for (wrong, what) in [
            ("http:", "does not start with /"),
            ("http:health", "does not start with /"),
            ("http:/a b", "visible ASCII"),
            ("http:/a\r\nHost: b", "visible ASCII"),
            ("http:/a#b", "visible ASCII"),
            ("http:/ä", "visible ASCII"),
        ] {
            let why = wrong.parse::<Check>().unwrap_err();
            assert!(why.contains(what) && why.contains("allowed:"), "{why}");
            assert_eq!(wrong.parse::<Ready>(), Err(why));
        }
    }

    #[test]
    fn slots_and_numbers_of_workers() {
        assert_eq!("all".parse(), Ok(Target(None)));
        assert_eq!("0".parse(), Ok(Target(Some(0))));
        assert_eq!("255".parse(), Ok(Target(Some(255))));
        for wrong in ["", "256", "-1", "+1", "ALL", "99999999999"] {
            let why = wrong.parse::<Target>().unwrap_err();
            assert!(why.contains("0 to 255") && why.contains("or all"), "{why}");
        }
        assert_eq!((weight("0"), weight("256")), (Ok(0), Ok(256)));
        for wrong in ["257", "-1", "1.5", ""] {
            let why = weight(wrong).unwrap_err();
            assert_eq!(why, "allowed: 0 (no new connections) to 256", "{wrong}");
        }
        assert_eq!(worker_count("256"), Ok(256));
        for wrong in ["0", "257", "auto", "", "x"] {
            assert_eq!(
                worker_count(wrong).unwrap_err(),
                "allowed: 1 to 256",
                "{wrong}"
            );
        }
    }

    #[test]
    fn messages() {
        assert_eq!(json("\"hello\""), Ok("hello".into()));
        assert_eq!(json(" -1 "), Ok((-1).into()));
        for wrong in ["", "hello", "{}{}", "{'a':1}"] {
            let why = json(wrong).unwrap_err();
            assert!(why.contains("allowed: a JSON value"), "{why}");
        }
    }
}
