//! PURE. What a handful of rounds allows to say: medians, 95 % intervals, and how evenly counts are
//! spread.
//!
//! Modes are compared round by round, since the machine's mood changes between rounds more than
//! within one. **The interval** of such ratios is exact where it can be: from six rounds on, two of
//! the ordered values enclose the median with at least 95 % whatever the distribution (the rounds
//! above and below it are coin tosses). With fewer rounds nothing free of assumptions reaches 95 %
//! (the extremes of five: 93.75 %; resampling can't say more than they do), so there it is Student's
//! interval of the logarithms. Their distribution is close to symmetric, because both sides of a ratio
//! suffer the same kind of noise; and outliers make this interval wider, never narrower.

use serde::Serialize;

/// What lies outside of the interval on each side.
const TAIL: f64 = 0.025;

/// Student's t at 97.5 %, for 1 to 4 degrees of freedom.
const STUDENT: [f64; 4] = [12.706, 4.303, 3.182, 2.776];

/// Where the median lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Interval {
    /// The lower end.
    pub(crate) low: f64,
    /// The upper end.
    pub(crate) high: f64,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// More, as of throughput.
    More,
    /// Less, as of latency.
    Less,
}

/// What a comparison comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Faster, or cheaper.
    Better,
    /// Slower, or dearer.
    Worse,
    /// The interval contains 1: noise could have done it.
    NoDifference,
}

/// A figure over the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Compared {
    /// The median of the rounds' ratios.
    pub(crate) ratio: f64,
    /// Of that median. One round has none.
    pub(crate) interval: Option<Interval>,
    /// None where there is no interval.
    pub(crate) verdict: Option<Verdict>,
}

/// How evenly counts are spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The greatest over the mean: 1 is even, the number of counts is all in one.
    pub(crate) max_over_mean: f64,
    /// Coefficient of variation, the (population's) standard deviation over the mean: 0 is even.
    pub(crate) variation: f64,
    /// Jain's index: 1 is even, 1/n is all in one.
    pub(crate) jain: f64,
}

/// The middle value, or the mean of the two in the middle. Values that are no numbers don't count.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// The 95 % interval of the median of positive values; none of fewer than two.
pub(crate) fn interval(values: &[f64]) -> Option<Interval> {
    let sorted = sorted(values);
    let (&least, &greatest) = (sorted.first()?, sorted.last()?);
    match sorted.len() {
        0 | 1 => None,
        // A mode that answered nothing in a round has no logarithm there.
        2..6 if least > 0.0 => Some(student(&sorted)),
        2..6 => Some(Interval {
            low: least,
            high: greatest,
        }),
        len => {
            let cut = cut(len);
            Some(Interval {
                low: sorted[cut],
                high: sorted[len - 1 - cut],
            })
        }
    }
}

/// How the first of each pair compares with the second, the baseline's. Pairs without a ratio don't
/// count; where all are such there is no answer.
pub(crate) fn compare(pairs: &[(f64, f64)], better: Better) -> Option<Compared> {
    let ratios: Vec<f64> = pairs
        .iter()
        .filter(|(_, baseline)| *baseline > 0.0)
        .map(|(value, baseline)| value / baseline)
        .collect();
    let ratio = median(&ratios)?;
    let interval = interval(&ratios);
    let verdict = interval.map(|Interval { low, high }| match better {
        _ if low <= 1.0 && high >= 1.0 => Verdict::NoDifference,
        Better::More if low > 1.0 => Verdict::Better,
        Better::Less if high < 1.0 => Verdict::Better,
        Better::More | Better::Less => Verdict::Worse,
    });
    Some(Compared {
        ratio,
        interval,
        verdict,
    })
}

/// How evenly `counts` are spread; none where there is nothing to spread.
pub(crate) fn spread(counts: &[u64]) -> Option<Spread> {
    let number = counts.len() as f64;
    let sum: f64 = counts.iter().map(|&count| count as f64).sum();
    if sum == 0.0 {
        return None;
    }
    let mean = sum / number;
    let squares: f64 = counts.iter().map(|&count| (count as f64).powi(2)).sum();
    let deviations: f64 = counts
        .iter()
        .map(|&count| (count as f64 - mean).powi(2))
        .sum();
    let greatest = counts.iter().copied().max().unwrap_or_default() as f64;
    Some(Spread {
        max_over_mean: greatest / mean,
        variation: (deviations / number).sqrt() / mean,
        jain: sum * sum / (number * squares),
    })
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// Student's interval of the logarithms of 2 to 5 values.
fn student(values: &[f64]) -> Interval {
    let number = values.len() as f64;
    let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    let mean = logs.iter().sum::<f64>() / number;
    let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    let error = (squares / (number - 1.0) / number).sqrt();
    let t = STUDENT.get(values.len() - 2).copied().unwrap_or(f64::NAN);
    Interval {
        low: (mean - t * error).exp(),
        high: (mean + t * error).exp(),
    }
}

/// How many of `len` ordered values can be left out on each side, so that the others enclose the median
/// with at least 95 %. Sums the binomial distribution in logarithms, which don't underflow.
fn cut(len: usize) -> usize {
    let mut log_term = -(len as f64) * std::f64::consts::LN_2;
    let mut below = log_term.exp();
    let mut cut = 0;
    while cut < len / 2 {
        log_term += ((len - cut) as f64 / (cut + 1) as f64).ln();
        below += log_term.exp();
        if below > TAIL {
            break;
        }
        cut += 1;
    }
    cut
}

#[cfg(test)]
mod tests;
