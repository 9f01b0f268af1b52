//! A plausible report, for tests: what two CPUs might have found, made of a fixed sequence of numbers.

use std::sync::LazyLock;

use hdrhistogram::Histogram;

use crate::bench::{
    latency::encode,
    model::{
        Errors, Host, Level, LoadResult, Measured, ModeResult, REPORT_VERSION, Report, Round,
        Shape, Usage,
    },
};

/// Rounds of each measurement.
pub(super) const ROUNDS: u32 = 5;

const BASELINE: &str = "master-dispatch";
const SECONDS: f64 = 2.0;
const WORKERS: u32 = 2;
/// Latencies that are drawn for each round; each stands for many.
const DRAWN: u64 = 1_500;

/// Name, peak rate relative to the baseline's, latency relative to its, CPU seconds per 10 000 requests
/// of workers and dispatcher, share of the busier worker.
const MODES: [(&str, f64, f64, f64, f64, f64); 12] = [
    ("single", 0.98, 1.05, 0.52, 0.0, 1.0),
    ("shared-listener", 1.61, 0.72, 0.74, 0.0, 0.61),
    ("shared-listener-exclusive", 1.67, 0.70, 0.69, 0.0, 0.74),
    (BASELINE, 1.0, 1.0, 0.61, 0.58, 0.5),
    ("proxy-dispatch", 0.52, 1.9, 0.70, 1.33, 0.5),
    ("reuseport-kernel", 1.90, 0.62, 0.533, 0.0, 0.512),
    ("reuseport-ebpf:round-robin", 1.91, 0.51, 0.541, 0.002, 0.5),
    ("reuseport-ebpf:least-conn", 1.83, 0.52, 0.563, 0.002, 0.501),
    ("reuseport-ebpf:hash", 1.89, 0.63, 0.536, 0.002, 0.511),
    ("reuseport-ebpf:source", 0.99, 1.01, 0.54, 0.002, 1.0),
    ("reuseport-ebpf:cpu", 1.88, 0.60, 0.53, 0.002, 0.53),
    ("reuseport-ebpf:random", 1.89, 0.64, 0.537, 0.002, 0.507),
];

/// Numbers that look like chance.
struct Chance(u64);

impl Chance {
    /// At least 0, less than 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About 1, give or take `by`.
    fn noise(&mut self, by: f64) -> f64 {
        1.0 + by * (self.next() + self.next() - 1.0)
    }
}

/// Twelve modes and one that failed, at the peak and under 50, 70 and 90 % of it.
pub(super) fn report() -> Report {
    static MADE: LazyLock<Report> = LazyLock::new(make);
    MADE.clone()
}

fn make() -> Report {
    let mut chance = Chance(5);
    let mut modes: Vec<ModeResult> = (0..MODES.len())
        .map(|index| mode(index, &[50, 70, 90], false, &mut chance))
        .collect();
    modes.push(ModeResult {
        mode: "reuseport-ebpf:source:24/56".to_owned(),
        workers: WORKERS,
        measured: Vec::new(),
        failed: Some(
            "worker 1 never listened: <script>alert(\"1\")</script>\n\u{1b}[31mError: \
             EADDRINUSE & more that goes on for so long that it can't fit on a line of a terminal"
                .to_owned(),
        ),
    });
    Report {
        version: REPORT_VERSION,
        program: "0.1.0".to_owned(),
        started: "2026-11-21T15:11:40Z".to_owned(),
        command: [
            "reuseport-launch",
            "bench",
            "--spin-us",
            "20",
            "--connections",
            "50",
            "--load",
            "50,70,90",
            "--rounds",
            "5",
            "--html",
            "out <1>.html",
            "--modes",
            "single,shared-listener,shared-listener-exclusive,master-dispatch,proxy-dispatch",
        ]
        .map(str::to_owned)
        .into(),
        host: Host {
            kernel: "6.18.0-1-amd64".to_owned(),
            cpu: "AMD EPYC 7B13".to_owned(),
            cpus: 4,
            affinity: 2,
            cpu_limit: Some(1.5),
            memory_limit: Some(4 << 30),
            somaxconn: 4_096,
            own_namespace: true,
        },
        work: "spin 20 µs".to_owned(),
        shape: Shape::Connection,
        worker_cpus: vec![0],
        generator_cpus: vec![1],
        disturb: None,
        baseline: BASELINE.to_owned(),
        modes,
        notes: vec![
            "2 CPUs are shared by 2 workers and the generator: with CPUs of their own the modes \
             would differ more"
                .to_owned(),
        ],
    }
}

/// Five modes whose workers are killed.
pub(super) fn disturbed() -> Report {
    let mut chance = Chance(7);
    let modes = [0, 3, 4, 5, 6];
    Report {
        disturb: Some("kill".to_owned()),
        shape: Shape::KeepAlive { requests: 100 },
        modes: modes
            .map(|index| mode(index, &[50], true, &mut chance))
            .into(),
        notes: Vec::new(),
        ..report()
    }
}

fn mode(index: usize, percents: &[u8], disturbed: bool, chance: &mut Chance) -> ModeResult {
    let (name, peak, ..) = MODES[index];
    let levels = std::iter::once(Level::Peak).chain(percents.iter().map(|&p| Level::Percent(p)));
    ModeResult {
        mode: name.to_owned(),
        workers: WORKERS,
        measured: levels
            .map(|level| {
                let (rate, offered) = match level {
                    Level::Peak => (20_000.0 * peak, None),
                    Level::Percent(percent) => {
                        let offered = 200.0 * f64::from(percent);
                        (offered.min(20_000.0 * peak), Some(offered))
                    }
                };
                let used = rate / (20_000.0 * peak);
                let rounds = (1..=ROUNDS).map(|round| {
                    let events = u32::from(disturbed && offered.is_some()) * 2;
                    measure(index, round, rate, used, events, chance)
                });
                Measured {
                    level,
                    offered,
                    rounds: rounds.collect(),
                }
            })
            .collect(),
        failed: None,
    }
}

fn measure(
    index: usize,
    round: u32,
    rate: f64,
    used: f64,
    disturbed: u32,
    chance: &mut Chance,
) -> Round {
    let (name, _, slow, workers_cpu, dispatcher_cpu, busier) = MODES[index];
    let answered = (rate * SECONDS * chance.noise(0.04)) as u64;
    let lost = match name {
        "single" => 41,
        BASELINE => 7,
        "reuseport-kernel" => 19,
        _ => 0,
    };
    let errors = Errors {
        reset: lost * u64::from(disturbed),
        timeout: if index == 4 && used > 0.9 { 12 } else { 0 },
        ..Errors::default()
    };
    let first = (answered as f64 * busier) as u64;
    let tens = answered as f64 / 10_000.0;
    Round {
        round,
        load: LoadResult {
            seconds: SECONDS,
            sent: answered + errors.total(),
            answered,
            errors,
            connections: answered,
            latency: latencies(answered, slow, used, chance),
            by_worker: vec![first, answered - first],
            cpu_seconds: micros(0.31 * tens),
            busiest_thread: 0.6,
            late_p99: 18_000,
        },
        usage: Usage {
            workers_cpu: micros(workers_cpu * tens * chance.noise(0.03)),
            dispatcher_cpu: micros(dispatcher_cpu * tens * chance.noise(0.03)),
            switches: (answered as f64 * (0.4 + dispatcher_cpu) * chance.noise(0.1)) as u64,
            by_worker: Some(vec![first + 10, answered - first + 10]),
            listen_overflows: if index == 0 { 1_240 } else { 0 },
            listen_drops: if index == 0 { 1_240 } else { 0 },
        },
        disturbed,
        generator_limited: index == 6 && used > 0.95,
    }
}

/// Whole microseconds, as the kernel counts them.
fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// A short service, a wait that grows with the load, and now and then something worse.
fn latencies(answered: u64, slow: f64, used: f64, chance: &mut Chance) -> String {
    let mut histogram = Histogram::new(3).unwrap();
    let each = (answered / DRAWN).max(1);
    for _ in 0..DRAWN {
        let waits = -(1.0 - chance.next()).ln() * used / (1.05 - used);
        let rare = if chance.next() > 0.997 { 40.0 } else { 1.0 };
        let value = 180_000.0 * slow * chance.noise(0.3) * (1.0 + waits) * rare;
        histogram.record_n(value as u64, each).unwrap();
    }
    encode(&histogram)
}
