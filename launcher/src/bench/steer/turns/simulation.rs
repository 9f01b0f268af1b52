//! How even turns are: simulated, with connections that arrive at any of the CPUs.

use launcher_common::{CpuCursor, QUIET_MAX, mix};

use crate::steer::measure::Way;

/// How many members there are: as many as the sequence has entries.
const MEMBERS: usize = 8;

/// Connections in a run: a thousand for each member.
const CONNECTIONS: u64 = 8000;

/// How much of what the members can do is asked of them.
const UTILISATION: f64 = 0.7;

/// How often it is run, each time with another chance.
const RUNS: u64 = 20;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench::steer) struct Evenness {
    pub(in crate::bench::steer) cpus: u64,
    pub(in crate::bench::steer) way: Way,
    /// Under [`Way::Hybrid`]: whether every CPU is busy, not quiet.
    pub(in crate::bench::steer) busy: bool,
    /// The most that any member had too many or too few, at any moment of any run.
    pub(in crate::bench::steer) off: f64,
    /// The busiest member's connections over the mean, at the end: the worst run's.
    pub(in crate::bench::steer) max_mean: f64,
    /// The coefficient of variation of the gaps between a member's connections, counted in
    /// connections: 0 when members take exact turns, nearly 1 when chance decides.
    pub(in crate::bench::steer) gaps: f64,
    /// What that does to queues: how long 99 % of the connections took at most, in the time that each
    /// occupies its member, where Poisson arrivals ask 70 % of what the members can do.
    pub(in crate::bench::steer) p99: f64,
}

/// For 2 to 64 CPUs, each way.
pub(in crate::bench::steer) fn simulate_all() -> Vec<Evenness> {
    let ways = [
        (Way::Shared, false),
        (Way::Own, false),
        (Way::Hybrid, false),
        (Way::Hybrid, true),
    ];
    let cpus = (1..=6).map(|power| 1 << power);
    cpus.flat_map(|cpus| ways.map(|(way, busy)| simulate(cpus, way, busy)))
        .collect()
}

fn simulate(cpus: u64, way: Way, busy: bool) -> Evenness {
    let mean = CONNECTIONS as f64 / MEMBERS as f64;
    let mut evenness = Evenness {
        cpus,
        way,
        busy,
        off: 0.0,
        max_mean: 0.0,
        gaps: 0.0,
        p99: 0.0,
    };
    for seed in 0..RUNS {
        let run = run(cpus, way, busy, seed);
        evenness.off = evenness.off.max(run.off);
        evenness.max_mean = evenness.max_mean.max(run.most as f64 / mean);
        evenness.gaps += run.gaps / RUNS as f64;
        evenness.p99 += run.p99 / RUNS as f64;
    }
    evenness
}

struct Run {
    off: f64,
    most: u64,
    gaps: f64,
    p99: f64,
}

fn run(cpus: u64, way: Way, busy: bool, seed: u64) -> Run {
    let mut random = Random(seed);
    let mut shared = 0;
    let mut cursors: Vec<CpuCursor> = (0..cpus).map(CpuCursor::of).collect();
    let mut counts = [0u64; MEMBERS];
    let mut last = [None; MEMBERS];
    let (mut gaps, mut squares, mut gap_count) = (0.0, 0.0, 0.0);
    let mut off: f64 = 0.0;
    let (mut now, mut free) = (0.0, [0.0f64; MEMBERS]);
    let mut times = Vec::new();
    // A busy CPU takes all its turns in one tick, of which only the first few are shared: those are
    // taken before the run.
    for cursor in &mut cursors {
        cursor.taken = if busy { QUIET_MAX } else { 0 };
    }
    for number in 0..CONNECTIONS {
        let cursor = &mut cursors[(random.next() % cpus) as usize];
        let mut next = || {
            shared += 1;
            shared - 1
        };
        let turn = match way {
            Way::None => 0,
            Way::Shared => next(),
            Way::Own => cursor.own(),
            // A quiet CPU has a tick for each turn.
            Way::Hybrid => cursor.shared_while_quiet(if busy { 0 } else { number }, next),
        };
        let member = (turn % MEMBERS as u64) as usize;
        counts[member] += 1;
        now -= (1.0 - random.unit()).ln() / (UTILISATION * MEMBERS as f64);
        free[member] = free[member].max(now) + 1.0;
        times.push(free[member] - now);
        let mean = (number + 1) as f64 / MEMBERS as f64;
        for &count in &counts {
            off = off.max((count as f64 - mean).abs());
        }
        if let Some(last) = last[member].replace(number) {
            let gap = (number - last) as f64;
            gaps += gap;
            squares += gap * gap;
            gap_count += 1.0;
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let mean = gaps / gap_count;
    Run {
        off,
        most: counts.into_iter().max().unwrap_or_default(),
        gaps: (squares / gap_count - mean * mean).max(0.0).sqrt() / mean,
        p99: times[times.len() * 99 / 100],
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        let bits = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits
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
    fn one_counter_is_exact() {
        for (way, busy) in [(Way::Shared, false), (Way::Hybrid, false)] {
            let Evenness {
                off,
                max_mean,
                gaps,
                ..
            } = simulate(64, way, busy);
            assert!(off < 1.0, "{way}: {off}");
            assert_eq!((max_mean, gaps), (1.0, 0.0), "{way}");
        }
    }

    #[test]
    fn cursors_are_off_by_less_than_one_for_each_cpu() {
        for (way, busy) in [(Way::Own, false), (Way::Hybrid, true)] {
            let Evenness { off, gaps, p99, .. } = simulate(16, way, busy);
            assert!(off > 1.0 && off < 16.0, "{way}: {off}");
            assert!(gaps > 0.5, "{way}: {gaps}");
            let exact = simulate(16, Way::Shared, false).p99;
            assert!(p99 > 1.5 * exact, "{way}: {p99} beside {exact}");
        }
    }
}
