//! What the built-in worker does for a request, besides answering it.

use std::{fmt, str::FromStr, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The longest that a request may take, in µs: a minute.
const LONGEST: u64 = 60_000_000;

/// The greatest weight of a part of a mix.
const WEIGHT_MAX: u32 = 1000;

/// The most parts of a mix.
const PARTS_MAX: usize = 16;

/// What is done for each request. Written `none`, `spinN` or `sleepN` (N in µs), and
/// `WEIGHT:WORK,WEIGHT:WORK…`, such as `90:spin1000,10:sleep30000`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing.
    #[default]
    None,
    /// The worker computes: so much of a CPU's time, however often it is put aside meanwhile.
    Spin(Duration),
    /// The worker sleeps and does nothing else, as if it computed on a core of its own that this machine
    /// lacks.
    Sleep(Duration),
    /// One of these by chance, each as often as its weight says. Not nested.
    Mix(Vec<(u32, Work)>),
}

impl Work {
    /// Does it.
    pub(super) fn perform(&self, chance: &mut Chance) {
        match self {
            Self::None => {}
            Self::Spin(time) => {
                let end = cpu_time() + *time;
                while cpu_time() < end {}
            }
            Self::Sleep(time) => thread::sleep(*time),
            Self::Mix(parts) => {
                let total: u32 = parts.iter().map(|(weight, _)| weight).sum();
                let mut left = chance.below(total);
                for (weight, work) in parts {
                    if left < *weight {
                        return work.perform(chance);
                    }
                    left -= weight;
                }
            }
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Spin(time) => write!(f, "spin{}", time.as_micros()),
            Self::Sleep(time) => write!(f, "sleep{}", time.as_micros()),
            Self::Mix(parts) => {
                for (number, (weight, work)) in parts.iter().enumerate() {
                    let comma = if number == 0 { "" } else { "," };
                    write!(f, "{comma}{weight}:{work}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Work {
    type Err = InvalidWork;

    fn from_str(text: &str) -> Result<Self, InvalidWork> {
        if !text.contains(':') {
            return simple(text);
        }
        let parts = text.split(',').map(|part| {
            let (weight, work) = part.split_once(':').ok_or(InvalidWork)?;
            let weight = weight.parse().map_err(|_| InvalidWork)?;
            let allowed = (1..=WEIGHT_MAX).contains(&weight);
            Ok((allowed.then_some(weight).ok_or(InvalidWork)?, simple(work)?))
        });
        let parts: Vec<(u32, Self)> = parts.collect::<Result<_, _>>()?;
        (parts.len() <= PARTS_MAX)
            .then_some(Self::Mix(parts))
            .ok_or(InvalidWork)
    }
}

fn simple(text: &str) -> Result<Work, InvalidWork> {
    let time = |text: &str| {
        let number = text.bytes().all(|byte| byte.is_ascii_digit());
        let micros = text.parse().ok().filter(|micros| *micros <= LONGEST);
        let micros = micros.filter(|_| number).ok_or(InvalidWork)?;
        Ok(Duration::from_micros(micros))
    };
    match (text, text.strip_prefix("spin"), text.strip_prefix("sleep")) {
        ("none", _, _) => Ok(Work::None),
        (_, Some(micros), _) => time(micros).map(Work::Spin),
        (_, _, Some(micros)) => time(micros).map(Work::Sleep),
        _ => Err(InvalidWork),
    }
}

/// A text that is no [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidWork;

impl fmt::Display for InvalidWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "allowed: none, spinN, sleepN (N in µs, at most {LONGEST}), or up to {PARTS_MAX} of these \
             with weights from 1 to {WEIGHT_MAX}, as in 90:spin1000,10:sleep30000"
        )
    }
}

impl std::error::Error for InvalidWork {}

/// Numbers by chance: splitmix64. Each worker has its own.
#[derive(Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The numbers that this seed stands for.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One below `end`; 0 when that is 0. Small ends are favoured by less than one part in a million.
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^= number >> 31;
        // The upper half times the end, of which the upper half again is below the end.
        (((number >> 32) * u64::from(end)) >> 32) as u32
    }
}

/// How long this thread has run.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_read_as_it_is_written() {
        let spin = Work::Spin(Duration::from_millis(1));
        let sleep = Work::Sleep(Duration::from_millis(30));
        for (text, work) in [
            ("none", Work::None),
            ("spin1000", spin.clone()),
            ("sleep30000", sleep.clone()),
            ("1:none", Work::Mix(vec![(1, Work::None)])),
            (
                "90:spin1000,10:sleep30000",
                Work::Mix(vec![(90, spin), (10, sleep)]),
            ),
        ] {
            assert_eq!(text.parse(), Ok(work.clone()));
            assert_eq!(work.to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let many = vec!["1:none"; PARTS_MAX + 1].join(",");
        for text in [
            "",
            "spin",
            "spin+5",
            "spin-1",
            "sleep60000001",
            "sleep1ms",
            "busy5",
            "90:",
            ":spin5",
            "0:spin5",
            "1001:spin5",
            "1:spin5,",
            "1:1:spin5",
            "spin5,sleep5",
            &many,
        ] {
            assert_eq!(text.parse::<Work>(), Err(InvalidWork), "{text}");
        }
    }

    #[test]
    fn a_mix_deals_out_by_weight() {
        let mut chance = Chance::new(7);
        let drawn = (0..100_000).filter(|_| chance.below(10) == 0).count();
        assert!((9_500..10_500).contains(&drawn), "{drawn}");
        assert_eq!(chance.below(0), 0);
        // Only one of its parts would ever end.
        let mix = Work::Mix(vec![(1, Work::None)]);
        mix.perform(&mut chance);
    }

    #[test]
    fn spinning_takes_the_time_of_a_cpu() {
        let time = Duration::from_millis(2);
        let before = cpu_time();
        Work::Spin(time).perform(&mut Chance::new(0));
        assert!(cpu_time() - before >= time);
    }
}
