//! Times, sizes and numbers as they are written, and what is said about wrong ones.

use std::time::Duration;

/// The longest time of all options but ages.
const DURATION_MAX: Duration = Duration::from_hours(24);
/// The longest age.
const AGE_MAX: Duration = Duration::from_hours(365 * 24);
/// The smallest size, in bytes: no process needs less, so every worker would be over it.
const SIZE_MIN: u64 = 1 << 20;

/// The smallest flow table: each CPU keeps up to 128 entries in reserve (`LOCAL_FREE_TARGET` of
/// `kernel/bpf/bpf_lru_list.c`), for which a smaller one would evict what is in use.
const FLOWS_MIN: u32 = 1_024;
/// The largest one: 120 MiB, and status takes 0.15 s to count so many.
const FLOWS_MAX: u32 = 1 << 20;

/// The most lines that are kept of a slot.
const LOG_LINES_MAX: u64 = 100_000;
/// The most earlier log files: each is renamed in a rotation.
const LOG_KEEP_MAX: u64 = 100;

/// A time limit; `None` where the option lifts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit(pub Option<Duration>);

/// Parses `500ms`, `8s`, `2m`, `1h`, or a plain number of seconds; at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    time(text)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            "allowed: a whole number with ms, s, m or h, or of seconds, up to 24h: 500ms, 8s, 2m, 8"
                .into()
        })
}

/// As [`duration`], but not 0.
pub(super) fn duration_above_zero(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("there is no time in it; allowed: from 1ms to 24h".into()),
        duration => Ok(duration),
    }
}

/// The time between two looks: as [`duration`], but not less than 100 ms.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_millis(100) => {
            Err("that is too often; allowed: from 100ms to 24h".into())
        }
        duration => Ok(duration),
    }
}

/// As [`duration`], or `infinite`.
pub(super) fn duration_or_infinite(text: &str) -> Result<TimeLimit, String> {
    match text {
        "infinite" => Ok(TimeLimit(None)),
        _ => limit(duration(text), "infinite"),
    }
}

/// As [`duration_above_zero`], or `off`.
pub(super) fn duration_or_off(text: &str) -> Result<TimeLimit, String> {
    match text {
        "off" => Ok(TimeLimit(None)),
        _ => limit(duration_above_zero(text), "off"),
    }
}

/// As [`duration_or_off`], and 0 is off, too.
pub(super) fn flow_timeout(text: &str) -> Result<TimeLimit, String> {
    match duration(text) {
        Ok(Duration::ZERO) => Ok(TimeLimit(None)),
        _ => duration_or_off(text),
    }
}

/// Parses the size of a flow table.
pub(super) fn flows(text: &str) -> Result<u32, String> {
    decimal(text)
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| (FLOWS_MIN..=FLOWS_MAX).contains(number))
        .ok_or_else(|| format!("allowed: a whole number from {FLOWS_MIN} to {FLOWS_MAX}"))
}

/// Parses how many lines of a slot are kept, or shown.
pub(super) fn log_lines(text: &str) -> Result<usize, String> {
    up_to(text, LOG_LINES_MAX)
}

/// Parses how many earlier log files are kept.
pub(super) fn log_keep(text: &str) -> Result<u32, String> {
    up_to(text, LOG_KEEP_MAX)
}

fn up_to<N: TryFrom<u64>>(text: &str, max: u64) -> Result<N, String> {
    decimal(text)
        .filter(|number| *number <= max)
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(|| format!("allowed: a whole number from 0 to {max}"))
}

fn limit(duration: Result<Duration, String>, word: &str) -> Result<TimeLimit, String> {
    match duration {
        Ok(duration) => Ok(TimeLimit(Some(duration))),
        Err(why) => Err(format!("{why}, or {word}")),
    }
}

/// Parses an age of a second to a year: `12h`, `7d`.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    time(text)
        .filter(|age| (Duration::from_secs(1)..=AGE_MAX).contains(age))
        .ok_or_else(|| {
            "allowed: a whole number with s, m, h or d, or of seconds, from 1s to 365d: 90m, 12h, 7d"
                .into()
        })
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Parses a number of bytes of at least 1M, with the units of systemd and Docker: K, M, G and T
/// are powers of 1024, and so are KiB, MiB, GiB and TiB. KB and the like mean 1000 to some and 1024
/// to others, and are refused.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let bytes = split(text).and_then(|(number, unit)| {
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return None,
        };
        number.checked_mul(factor)
    });
    bytes.filter(|bytes| *bytes >= SIZE_MIN).ok_or_else(|| {
        "allowed: a whole number of bytes or with K, M, G, T, KiB, MiB, GiB or TiB (powers of 1024), from 1M: 512M, 2G"
            .into()
    })
}

/// Parses a whole number from 1.
pub(super) fn positive<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let number = decimal(text).filter(|number| *number > 0);
    let too_large = || format!("allowed: a smaller number than {text}");
    match number {
        Some(number) => N::try_from(number).map_err(|_| too_large()),
        None => Err("allowed: a whole number from 1".into()),
    }
}

/// A number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    Some((decimal(digits)?, &text[digits.len()..]))
}

/// A whole number in plain digits: unlike `parse`, no leading `+`.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_tables() {
        let off = Ok(TimeLimit(None));
        assert_eq!((flow_timeout("0"), flow_timeout("off")), (off.clone(), off));
        let limit = TimeLimit(Some(Duration::from_millis(1)));
        assert_eq!(flow_timeout("1ms"), Ok(limit));
        assert!(flow_timeout("-1").unwrap_err().contains("or off"));
        assert_eq!((flows("1024"), flows("1048576")), (Ok(1_024), Ok(1 << 20)));
        for wrong in ["0", "1023", "1048577", "4294967296", "64k", ""] {
            let why = "allowed: a whole number from 1024 to 1048576";
            assert_eq!(flows(wrong).unwrap_err(), why, "{wrong}");
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
            "18446744073709551615h",
            "8µs",
        ] {
            for parse in [duration, duration_above_zero] {
                let why = parse(wrong).unwrap_err();
                assert!(why.starts_with("allowed:"), "{wrong:?}: {why}");
            }
        }
        assert!(
            duration_above_zero("0ms")
                .unwrap_err()
                .contains("allowed: from 1ms")
        );
    }

    #[test]
    fn limits_can_be_lifted() {
        let limit = |duration| TimeLimit(Some(duration));
        assert_eq!(duration_or_infinite("infinite"), Ok(TimeLimit(None)));
        assert_eq!(duration_or_infinite("0"), Ok(limit(Duration::ZERO)));
        assert_eq!(duration_or_off("off"), Ok(TimeLimit(None)));
        assert_eq!(duration_or_off("2s"), Ok(limit(Duration::from_secs(2))));
        for (why, word) in [
            (duration_or_infinite("never"), ", or infinite"),
            (duration_or_off("never"), ", or off"),
            (duration_or_off("0"), ", or off"),
        ] {
            assert!(
                why.as_ref().is_err_and(|why| why.ends_with(word)),
                "{why:?}"
            );
        }
    }

    #[test]
    fn ages() {
        assert_eq!(age("7d").unwrap(), Duration::from_hours(7 * 24));
        assert_eq!(age("1").unwrap(), Duration::from_secs(1));
        assert_eq!(age("365d").unwrap(), AGE_MAX);
        for wrong in ["", "0", "999ms", "366d", "1w", "18446744073709551615d"] {
            assert!(age(wrong).unwrap_err().starts_with("allowed:"), "{wrong:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1048576", SIZE_MIN),
            ("1024K", SIZE_MIN),
            ("1m", SIZE_MIN),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("2g", 2 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "M",
            "0",
            "1048575",
            "1.5G",
            "-1G",
            "1 G",
            "512MB",
            "1P",
            "99999999T",
        ] {
            assert!(
                size(wrong).unwrap_err().starts_with("allowed:"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn positive_numbers() {
        assert_eq!(positive::<u32>("1"), Ok(1));
        assert_eq!(positive::<u64>("4294967296"), Ok(4_294_967_296));
        for wrong in ["", "0", "-1", "+1", "x", "1.0", "4294967296"] {
            let why = positive::<u32>(wrong).unwrap_err();
            assert!(why.starts_with("allowed:"), "{wrong:?}: {why}");
        }
    }
}
