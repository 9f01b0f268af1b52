//! What is asked of the workers: when, by whom, and for how long. Each system of a round is asked the
//! same.

use std::{fmt, time::Duration};

/// How long a request occupies its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Always so many microseconds.
    Fixed(u32),
    /// Many short ones, and a few long ones between them.
    Skewed {
        /// Microseconds of most requests.
        short: u32,
        /// Microseconds of the others.
        long: u32,
        /// How many of a hundred are long.
        percent_long: u32,
    },
}

impl Service {
    /// The mean, in seconds.
    pub(crate) fn mean(self) -> f64 {
        let micros = match self {
            Self::Fixed(micros) => f64::from(micros),
            Self::Skewed {
                short,
                long,
                percent_long,
            } => {
                let long_share = f64::from(percent_long) / 100.0;
                f64::from(short) * (1.0 - long_share) + f64::from(long) * long_share
            }
        };
        micros / 1e6
    }

    fn draw(self, random: &mut Random) -> u32 {
        match self {
            Self::Fixed(micros) => micros,
            Self::Skewed {
                short,
                long,
                percent_long,
            } => {
                if random.unit() * 100.0 < f64::from(percent_long) {
                    long
                } else {
                    short
                }
            }
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |micros: u32| f64::from(micros) / 1000.0;
        match *self {
            Self::Fixed(micros) => write!(f, "{} ms", ms(micros)),
            Self::Skewed {
                short,
                long,
                percent_long,
            } => write!(
                f,
                "{} % {} ms, {percent_long} % {} ms",
                100 - percent_long,
                ms(short),
                ms(long)
            ),
        }
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// When it is to be sent, from the start.
    pub(crate) at: Duration,
    /// For how many microseconds it occupies its worker.
    pub(crate) service: u32,
    /// Which of the clients sends it, below [`CLIENTS`].
    pub(crate) client: u16,
}

/// How many clients there are, each with an address of its own. Each request is any one's.
pub(crate) const CLIENTS: u16 = 4096;

/// The requests of so long a time: Poisson arrivals, `rate` a second. The same seed gives the same
/// ones.
pub(crate) fn poisson(rate: f64, length: Duration, service: Service, seed: u64) -> Vec<Request> {
    let mut random = Random(seed);
    let mut requests = Vec::new();
    let mut at = 0.0;
    loop {
        // Above 0, so that its logarithm is finite.
        at -= (1.0 - random.unit()).ln() / rate;
        let at = Duration::from_secs_f64(at);
        if at >= length {
            return requests;
        }
        requests.push(Request {
            at,
            service: service.draw(&mut random),
            client: (random.next() % u64::from(CLIENTS)) as u16,
        });
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// At least 0 and below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_asked_as_was_meant() {
        let service = Service::Skewed {
            short: 1_000,
            long: 30_000,
            percent_long: 10,
        };
        assert!((service.mean() - 0.0039).abs() < 1e-12);
        let requests = poisson(1000.0, Duration::from_secs(100), service, 7);
        let count = requests.len() as f64;
        // Three standard deviations of a Poisson count, and of the draws' sum.
        assert!((count - 1e5).abs() < 3.0 * 1e5f64.sqrt(), "{count}");
        let asked: f64 = requests.iter().map(|r| f64::from(r.service) / 1e6).sum();
        let deviation = 0.0087 * count.sqrt();
        assert!((asked - 0.0039 * count).abs() < 3.0 * deviation, "{asked}");
        assert!(requests.is_sorted_by_key(|request| request.at));
        assert!(requests.iter().all(|request| request.client < CLIENTS));
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let ask = |seed| poisson(100.0, Duration::from_secs(1), Service::Fixed(5), seed);
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2));
    }
}
