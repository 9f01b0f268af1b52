//! One measurement: a mode that runs, a generator that asks, and what both used meanwhile.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Instant,
};

use anyhow::{Result, anyhow};

use super::{order::disturbances, plan::Plan};
use crate::bench::{
    interrupt::Interrupt,
    load::{self, Generator},
    model::{Errors, LoadSpec, Pace, Round, Usage},
    modes::{Disturbance, Running},
};

/// How often workers are disturbed, in seconds; a stall lasts for one.
const DISTURBED_EVERY: f64 = 1.0;
/// How often they are stalled: they serve half of the time.
const STALLED_EVERY: f64 = 2.0;

/// What is measured.
#[derive(Debug)]
pub(super) struct Measurement<'a> {
    /// Everything that does not change.
    pub(super) plan: &'a Plan,
    /// The round, from 1.
    pub(super) round: u32,
    /// Requests per second; none: as many as go.
    pub(super) offered: Option<f64>,
    /// What is done to workers meanwhile.
    pub(super) disturb: Option<Disturbance>,
    /// The generator's CPUs; empty: any.
    pub(super) generator_cpus: &'a [usize],
    /// Ends it early.
    pub(super) interrupt: &'a Interrupt,
}

/// Carries out a measurement. `draw` is called now and then.
///
/// The warm-up is a load of its own, so that all that the processes use from then on belongs to requests
/// that count.
///
/// # Errors
/// When the generator or a disturbance fails, or a signal has come.
pub(super) fn measure(
    measurement: &Measurement<'_>,
    running: &Running,
    draw: impl Fn(),
) -> Result<Round> {
    let Measurement {
        plan,
        round,
        offered,
        disturb,
        generator_cpus,
        interrupt,
    } = measurement;
    let connections = plan.connections;
    let mut spec = LoadSpec {
        address: running.address(),
        path: plan.path.clone(),
        shape: plan.shape,
        pace: match *offered {
            None => Pace::Closed { connections },
            Some(rate) => Pace::Open { rate, connections },
        },
        warmup: 0.0,
        seconds: plan.warmup(),
        timeout: plan.timeout,
        cpus: generator_cpus.to_vec(),
        // The same arrivals for all modes of a round.
        seed: u64::from(*round),
    };
    let check = || {
        draw();
        interrupt.check()
    };
    Generator::start(&spec)?.wait(check)?;

    spec.seconds = plan.seconds;
    spec.seed += 1 << 32;
    let before = running.usage()?;
    let generator = Generator::start(&spec)?;
    let (load, disturbed) = match *disturb {
        None => (generator.wait(check)?, 0),
        Some(disturbance) => thread::scope(|scope| {
            // Apart from who waits for the load and for signals: it takes its time.
            let (over, is_over) = mpsc::channel();
            let disturber =
                scope.spawn(move || disturb_workers(running, disturbance, plan.seconds, &is_over));
            let load = generator.wait(check);
            drop(over);
            let disturbed = disturber.join();
            let disturbed = disturbed.map_err(|_| anyhow!("the disturbing thread panicked"));
            Ok::<_, anyhow::Error>((load?, disturbed??))
        })?,
    };
    let usage = used(&before, running.usage()?);
    Ok(Round {
        round: *round,
        generator_limited: load::is_limit(&load),
        load,
        usage,
        disturbed,
    })
}

/// Disturbs one worker after the other, until there is no time left or `is_over` is closed. Returns how
/// often.
fn disturb_workers(
    running: &Running,
    disturbance: Disturbance,
    seconds: f64,
    is_over: &Receiver<()>,
) -> Result<u32> {
    let every = match disturbance {
        Disturbance::Stall => STALLED_EVERY,
        Disturbance::Reload | Disturbance::Kill => DISTURBED_EVERY,
    };
    let began = Instant::now();
    let mut done = 0;
    for time in disturbances(seconds, every) {
        let left = time.saturating_sub(began.elapsed());
        if is_over.recv_timeout(left) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        running.disturb(disturbance)?;
        done += 1;
    }
    Ok(done)
}

/// What was used between two looks. Counts that began anew meanwhile, with a worker, count from there.
fn used(before: &Usage, after: Usage) -> Usage {
    let Usage {
        workers_cpu,
        dispatcher_cpu,
        switches,
        by_worker,
        listen_overflows,
        listen_drops,
    } = after;
    let by_worker = by_worker.map(|counts| {
        let earlier = before.by_worker.iter().flatten().copied();
        let earlier = earlier.chain(std::iter::repeat(0));
        let pairs = counts.into_iter().zip(earlier);
        pairs
            .map(|(now, then)| now.checked_sub(then).unwrap_or(now))
            .collect()
    });
    Usage {
        workers_cpu: (workers_cpu - before.workers_cpu).max(0.0),
        dispatcher_cpu: (dispatcher_cpu - before.dispatcher_cpu).max(0.0),
        switches: switches.saturating_sub(before.switches),
        by_worker,
        listen_overflows: listen_overflows.saturating_sub(before.listen_overflows),
        listen_drops: listen_drops.saturating_sub(before.listen_drops),
    }
}

/// Errors as one says them: `12 refused, 3 timed out`.
pub(super) fn told(errors: &Errors) -> String {
    let happened = errors.happened([
        "refused",
        "reset",
        "closed early",
        "timed out",
        "answered badly",
        "failed otherwise",
    ]);
    let told: Vec<String> = happened
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    if told.is_empty() {
        return "none was sent".to_owned();
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_make_a_difference() {
        let look = |cpu: f64, switches: u64, by_worker: Option<Vec<u64>>| Usage {
            workers_cpu: cpu,
            dispatcher_cpu: cpu / 2.0,
            switches,
            by_worker,
            listen_overflows: switches,
            listen_drops: switches,
        };
        let before = look(1.0, 10, Some(vec![5, 6]));
        // The second worker was replaced, and a third one has come.
        let difference = used(&before, look(3.0, 25, Some(vec![9, 2, 4])));
        assert_eq!(difference.workers_cpu, 2.0);
        assert_eq!(difference.dispatcher_cpu, 1.0);
        assert_eq!((difference.switches, difference.listen_drops), (15, 15));
        assert_eq!(difference.by_worker, Some(vec![4, 2, 4]));
        let less = used(&before, look(0.5, 5, None));
        assert_eq!(
            (less.workers_cpu, less.switches, less.by_worker),
            (0.0, 0, None)
        );
    }

    #[test]
    fn errors_are_told_by_kind() {
        let errors = Errors {
            refused: 12,
            timeout: 3,
            ..Errors::default()
        };
        assert_eq!(told(&errors), "12 refused, 3 timed out");
        assert_eq!(told(&Errors::default()), "none was sent");
    }
}
