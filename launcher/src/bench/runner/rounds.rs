//! The rounds: every mode in turn, first at its peak, then under the loads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{
    measurement::{self, Measurement},
    order::{Budget, order},
    plan::Plan,
    progress::{Progress, Work, spoken},
};
use crate::bench::{
    interrupt::Interrupt,
    model::{Level, Measured, ModeResult, Round},
    modes::{Mode, Running, Setup},
    stats::median,
};

/// What the rounds came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Mode by mode.
    pub(super) modes: Vec<ModeResult>,
    /// What there is to say about them.
    pub(super) notes: Vec<String>,
    /// Whether a signal ended them.
    pub(super) interrupted: bool,
}

/// What it is measured with.
#[derive(Debug)]
pub(super) struct Rounds<'a> {
    /// What to do.
    pub(super) plan: &'a Plan,
    /// How modes are started.
    pub(super) setup: Setup,
    /// The generator's CPUs; empty: any.
    pub(super) generator_cpus: Vec<usize>,
    /// Ends it early.
    pub(super) interrupt: &'a Interrupt,
}

/// Measures everything. A mode that fails is not tried again; the others go on.
pub(super) fn measure(rounds: Rounds<'_>) -> Outcome {
    let plan = rounds.plan;
    let measurement = Duration::from_secs_f64(plan.seconds + plan.warmup());
    let modes = plan.modes.iter().map(|mode| ModeResult {
        mode: mode.to_string(),
        workers: match mode {
            Mode::Single => 1,
            _ => plan.workers,
        },
        measured: Vec::new(),
        failed: None,
    });
    let modes: Vec<ModeResult> = modes.collect();
    let ahead = Ahead {
        peaks: plan.rounds,
        loads: plan.rounds,
    };
    let work = ahead.work(plan, modes.len());
    let mut state = State {
        modes,
        rounds,
        progress: Progress::begin(title(plan), work, measurement, plan.limit),
        ahead,
        measurement,
        notes: Vec::new(),
        began: Instant::now(),
    };
    let interrupted = state.all().is_err();
    let State {
        modes,
        progress,
        notes,
        ..
    } = state;
    progress.end();
    Outcome {
        modes,
        notes,
        interrupted,
    }
}

/// `8 modes × 5 rounds, 2 workers`.
fn title(plan: &Plan) -> String {
    let counted = |number: usize, word: &str| {
        let s = if number == 1 { "" } else { "s" };
        format!("{number} {word}{s}")
    };
    format!(
        "{} × {}, {}",
        counted(plan.modes.len(), "mode"),
        counted(plan.rounds as usize, "round"),
        counted(plan.workers as usize, "worker"),
    )
}

/// A signal has come.
struct Interrupted;

/// Rounds that have not begun.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    peaks: u32,
    loads: u32,
}

impl Ahead {
    /// What they are with so many modes.
    fn work(self, plan: &Plan, modes: usize) -> Work {
        let Self { peaks, loads } = self;
        let modes = modes as u32;
        Work {
            starts: modes * (peaks + loads),
            measurements: modes * (peaks + loads * plan.loads.len() as u32),
        }
    }
}

/// What is sent in a measurement.
#[derive(Clone, Copy, Debug)]
struct Load {
    level: Level,
    /// Requests per second; none: as many as go.
    offered: Option<f64>,
}

struct State<'a> {
    rounds: Rounds<'a>,
    progress: Progress,
    ahead: Ahead,
    /// What one measurement takes.
    measurement: Duration,
    modes: Vec<ModeResult>,
    notes: Vec<String>,
    began: Instant,
}

impl State<'_> {
    fn all(&mut self) -> Result<(), Interrupted> {
        let plan = self.rounds.plan;
        let loads = plan.loads.len() as u32;
        let budget = Budget {
            limit: plan.limit,
            longer: self.measurement * plan.modes.len() as u32 * loads.saturating_sub(1),
        };
        let peak = Load {
            level: Level::Peak,
            offered: None,
        };
        let mut peaks = 0;
        while peaks < plan.rounds
            && self.working() > 0
            && budget.allows_peak(peaks, self.began.elapsed())
        {
            peaks += 1;
            self.ahead.peaks -= 1;
            self.round(peaks, "peak", &[peak])?;
        }
        self.ahead = Ahead {
            peaks: 0,
            loads: peaks,
        };
        let Some(peak) = self.peak_of_baseline() else {
            // Its failure says all.
            return Ok(());
        };
        let loads = plan.levels().map(|(level, share)| Load {
            level,
            offered: Some(peak * share),
        });
        let loads: Vec<Load> = loads.collect();
        let began = Instant::now();
        let mut done = 0;
        while done < peaks
            && self.working() > 0
            && budget.allows_loads(done, began.elapsed(), self.began.elapsed())
        {
            done += 1;
            self.ahead.loads -= 1;
            self.round(done, "loads", &loads)?;
        }
        self.note_limit(done);
        Ok(())
    }

    /// Whether a mode has not failed.
    fn works(&self, index: usize) -> bool {
        let mode = self.modes.get(index);
        mode.is_some_and(|mode| mode.failed.is_none())
    }

    /// How many have not.
    fn working(&self) -> usize {
        (0..self.modes.len())
            .filter(|&index| self.works(index))
            .count()
    }

    /// Says what the time limit has prevented; so many rounds of both parts are done.
    fn note_limit(&mut self, done: u32) {
        let (Some(limit), planned) = (self.rounds.plan.limit, self.rounds.plan.rounds) else {
            return;
        };
        let took = self.began.elapsed();
        if done == 1 && took > limit {
            self.notes.push(format!(
                "--time {} was too short for 1 of {planned} rounds, which took {}",
                spoken(limit),
                spoken(took)
            ));
        } else if done < planned {
            let limit = spoken(limit);
            self.notes.push(format!(
                "--time {limit} was enough for {done} of {planned} rounds"
            ));
        }
    }

    /// Requests per second of the baseline at its peak: the median of its rounds.
    fn peak_of_baseline(&self) -> Option<f64> {
        let baseline = self.modes.get(self.rounds.plan.baseline)?;
        let mut levels = baseline.measured.iter();
        let peak = levels.find(|measured| measured.level == Level::Peak)?;
        let rates = peak.rounds.iter();
        let rates = rates.map(|round| round.load.answered as f64 / round.load.seconds);
        median(&rates.collect::<Vec<_>>()).filter(|_| baseline.failed.is_none())
    }

    fn round(&mut self, number: u32, part: &str, loads: &[Load]) -> Result<(), Interrupted> {
        let rounds = self.rounds.plan.rounds;
        self.progress
            .round(format!("round {number} of {rounds}, {part}"));
        let order = order(self.modes.len(), number);
        for (turn, &index) in order.iter().enumerate() {
            if !self.works(index) {
                continue;
            }
            self.tell_ahead(order.get(turn..).unwrap_or_default(), loads.len());
            let visited = self.visit(index, number, loads);
            if self.rounds.interrupt.came() {
                return Err(Interrupted);
            }
            self.progress.started();
            if let (Err(error), Some(mode)) = (visited, self.modes.get_mut(index)) {
                let why = format!("{error:#}");
                self.progress
                    .say(format_args!("{} failed: {why}", mode.mode));
                mode.failed = Some(why);
            }
        }
        self.tell_ahead(&[], loads.len());
        self.progress.round_done();
        Ok(())
    }

    /// Tells the progress what is to be done: so many loads for each of these modes in this round, and
    /// the rounds after it. Without a baseline there are no loads.
    fn tell_ahead(&mut self, turns: &[usize], loads: usize) {
        let plan = self.rounds.plan;
        let turns = turns.iter().filter(|&&index| self.works(index)).count() as u32;
        let mut ahead = self.ahead;
        if !self.works(plan.baseline) {
            ahead.loads = 0;
        }
        let mut work = ahead.work(plan, self.working());
        work.starts += turns;
        work.measurements += turns * loads as u32;
        self.progress.ahead(work);
    }

    /// One mode's turn in a round.
    fn visit(&mut self, index: usize, number: u32, loads: &[Load]) -> Result<()> {
        let Rounds {
            plan,
            setup,
            generator_cpus,
            interrupt,
        } = &self.rounds;
        let mode = plan.modes.get(index).context("there is no such mode")?;
        let name = mode.to_string();
        let running = Running::start_unless(mode, setup, &|| {
            self.progress.draw(&name);
            interrupt.came()
        })?;
        for load in loads {
            let measurement = Measurement {
                plan,
                round: number,
                offered: load.offered,
                disturb: plan.disturbance().filter(|_| load.level != Level::Peak),
                generator_cpus,
                interrupt,
            };
            let draw = || self.progress.draw(&name);
            let round = measurement::measure(&measurement, &running, draw)?;
            self.progress.measured();
            let (answered, errors) = (round.load.answered, round.load.errors);
            if let Some(result) = self.modes.get_mut(index) {
                record(result, *load, round);
            }
            if answered == 0 {
                bail!("no request was answered: {}", measurement::told(&errors));
            }
        }
        running.stop();
        Ok(())
    }
}

/// Adds a round to those of its level.
fn record(result: &mut ModeResult, load: Load, round: Round) {
    let mut levels = result.measured.iter_mut();
    match levels.find(|measured| measured.level == load.level) {
        Some(measured) => measured.rounds.push(round),
        None => result.measured.push(Measured {
            level: load.level,
            offered: load.offered,
            rounds: vec![round],
        }),
    }
}
