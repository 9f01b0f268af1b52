//! What is told while it measures, on standard error: a bar on a terminal, a line for each round
//! elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What it takes to start and stop a mode, before that is known.
const START: Duration = Duration::from_millis(500);

/// What is to be done, or has been.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Modes to start and stop.
    pub(super) starts: u32,
    /// Measurements.
    pub(super) measurements: u32,
}

/// How far it is.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    /// What one measurement takes, with its warm-up.
    measurement: Duration,
    /// All of it takes no longer.
    limit: Option<Duration>,
    ahead: Work,
    done: Work,
    /// What it is about at the moment: `round 2 of 5, peak`.
    round: String,
}

impl Progress {
    /// Says what will be done, and how long it will take.
    pub(super) fn begin(
        what: impl fmt::Display,
        ahead: Work,
        measurement: Duration,
        limit: Option<Duration>,
    ) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
            // No colours. The template is a constant of ours; the default style is a bar, too.
            let style = ProgressStyle::with_template("{bar:16}  {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let progress = Self {
            bar,
            began: Instant::now(),
            measurement,
            limit,
            ahead,
            done: Work::default(),
            round: String::new(),
        };
        progress.say(format_args!("{what}; about {}", spoken(progress.left())));
        progress
    }

    /// A round begins: `round 2 of 5, peak`.
    pub(super) fn round(&mut self, round: String) {
        self.round = round;
    }

    /// So much is to be done from here on.
    pub(super) fn ahead(&mut self, ahead: Work) {
        self.ahead = ahead;
    }

    /// A mode's turn in it has come: this is drawn now and then, as long as it takes.
    pub(super) fn draw(&self, mode: &str) {
        let Some(bar) = &self.bar else { return };
        let (elapsed, left) = (self.began.elapsed(), self.left());
        let all = (elapsed + left).as_secs_f64();
        let share = if all > 0.0 {
            elapsed.as_secs_f64() / all
        } else {
            0.0
        };
        bar.set_position((share * 1000.0) as u64);
        bar.set_message(format!("{} left · {}: {mode}", spoken(left), self.round));
    }

    /// A mode has been started and stopped.
    pub(super) fn started(&mut self) {
        self.done.starts += 1;
    }

    /// Something has been measured.
    pub(super) fn measured(&mut self) {
        self.done.measurements += 1;
        self.ahead.measurements = self.ahead.measurements.saturating_sub(1);
    }

    /// The round has ended.
    pub(super) fn round_done(&self) {
        if self.bar.is_none() {
            match self.left() {
                Duration::ZERO => self.say(format_args!("{} done", self.round)),
                left => self.say(format_args!(
                    "{} done, about {} left",
                    self.round,
                    spoken(left)
                )),
            }
        }
    }

    /// Writes a line that stays.
    pub(super) fn say(&self, line: impl fmt::Display) {
        let write = || {
            // Nothing depends on it being read.
            let _ = writeln!(io::stderr(), "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// The bar goes.
    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn left(&self) -> Duration {
        let elapsed = self.began.elapsed();
        let left = left(self.ahead, self.done, self.measurement, elapsed);
        self.limit
            .map_or(left, |limit| left.min(limit.saturating_sub(elapsed)))
    }
}

/// What is ahead takes as long as what has been done: a measurement is known, and a start is what the
/// rest was.
fn left(ahead: Work, done: Work, measurement: Duration, elapsed: Duration) -> Duration {
    let starts = match done.starts {
        0 => START,
        starts => elapsed.saturating_sub(measurement * done.measurements) / starts,
    };
    measurement * ahead.measurements + starts * ahead.starts
}

/// A time as one says it: `40 s`, `3 min`.
pub(super) fn spoken(time: Duration) -> String {
    match time.as_secs_f64().ceil() as u64 {
        seconds @ ..=90 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let work = |starts, measurements| Work {
            starts,
            measurements,
        };
        let second = Duration::from_secs(1);
        let nothing = work(0, 0);
        let all = work(10, 40);
        assert_eq!(left(all, nothing, second, Duration::ZERO), second * 45);
        // Ten measurements and five starts have taken 15 s: a start takes 1 s.
        let (ahead, done) = (work(5, 30), work(5, 10));
        assert_eq!(left(ahead, done, second, second * 15), second * 35);
        assert_eq!(left(nothing, all, second, second * 60), Duration::ZERO);
    }

    #[test]
    fn times_are_spoken() {
        let spoken = |millis| spoken(Duration::from_millis(millis));
        assert_eq!(
            (spoken(0), spoken(1), spoken(90_000)),
            ("0 s".into(), "1 s".into(), "90 s".into())
        );
        assert_eq!(
            (spoken(91_000), spoken(150_000)),
            ("2 min".into(), "3 min".into())
        );
    }
}
