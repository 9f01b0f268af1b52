//! The values that options take: how each is written, and what is said about a wrong one.

use std::{fmt, str::FromStr, time::Duration};

use nix::sys::signal::Signal;

use crate::sys::listeners::Protocol;

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

/// The longest duration that [`duration`] accepts.
const DURATION_MAX: Duration = Duration::from_hours(24);

/// Parses `500ms`, `8s`, `2m`, `1h`, or a plain number of seconds; at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    decimal(digits)
        .zip(milliseconds)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            "allowed: a whole number with ms, s, m or h, or of seconds, up to 24h: 500ms, 8s, 2m, 8"
                .into()
        })
}

/// A whole number in plain digits: unlike `parse`, no leading `+`.
fn decimal(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
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
    fn durations() {
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("8s").unwrap(), Duration::from_secs(8));
        assert_eq!(duration("8").unwrap(), Duration::from_secs(8));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(duration("24h").unwrap(), DURATION_MAX);
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        for wrong in [
            "",
            "s",
            "8 s",
            "1.5s",
            "-1s",
            "+1s",
            "8d",
            "25h",
            "99999999999999999999",
            "8µs",
        ] {
            assert!(
                duration(wrong).unwrap_err().starts_with("allowed:"),
                "{wrong:?}"
            );
        }
    }
}
