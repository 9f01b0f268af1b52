//! What a benchmark asks and finds: the types that its parts hand to each other, and that its JSON
//! report consists of. Only data. `docs/BENCH-JSON.md` describes the report for its readers.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// The version of the report's layout. It changes when a field changes its meaning or goes.
pub(crate) const REPORT_VERSION: u32 = 1;

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Shape {
    /// A new connection for each request.
    Connection,
    /// Connections stay open, each for so many requests.
    KeepAlive {
        /// After so many it is replaced by another one.
        requests: u32,
    },
    /// A few connections for the whole run.
    LongLived,
}

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub(crate) enum Pace {
    /// Each of `connections` clients sends the next request when it has its answer: finds the peak.
    Closed {
        /// Clients.
        connections: u32,
    },
    /// Requests are sent at times that are set beforehand (Poisson arrivals), whatever comes back.
    /// Latency is counted from the time that was set.
    Open {
        /// Requests per second.
        rate: f64,
        /// At most so many at a time; what would be one more waits, and its time counts.
        connections: u32,
    },
}

/// What the generator is told, on its standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadSpec {
    /// Where to: `127.0.0.1:8080` or `[::1]:8080`.
    pub(crate) address: std::net::SocketAddr,
    /// What is asked for: the path of the GET.
    pub(crate) path: String,
    /// How connections are used.
    pub(crate) shape: Shape,
    /// How requests are sent.
    pub(crate) pace: Pace,
    /// Requests in this first time are not counted; seconds.
    pub(crate) warmup: f64,
    /// How long it is counted, in seconds.
    pub(crate) seconds: f64,
    /// A request that has no answer after this time has failed; seconds.
    pub(crate) timeout: f64,
    /// The CPUs that the generator may use; empty: any.
    pub(crate) cpus: Vec<usize>,
    /// For the arrival times.
    pub(crate) seed: u64,
}

/// Requests without a good answer, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Errors {
    /// The connection was refused.
    pub(crate) refused: u64,
    /// It was reset.
    pub(crate) reset: u64,
    /// It was closed before the answer was whole.
    pub(crate) closed: u64,
    /// Nothing, or not all, came in time.
    pub(crate) timeout: u64,
    /// An answer that is none of HTTP, or no 2xx or 3xx.
    pub(crate) bad: u64,
    /// Anything else, such as no free port at the client.
    pub(crate) other: u64,
}

impl Errors {
    /// By kind, in the order of the fields.
    fn counts(self) -> [u64; 6] {
        let Self {
            refused,
            reset,
            closed,
            timeout,
            bad,
            other,
        } = self;
        [refused, reset, closed, timeout, bad, other]
    }

    /// All of them.
    pub(crate) fn total(self) -> u64 {
        self.counts().iter().sum()
    }

    /// Those that happened, each with its kind's word: the words are in the order of the fields.
    pub(crate) fn happened(
        self,
        words: [&'static str; 6],
    ) -> impl Iterator<Item = (u64, &'static str)> {
        let kinds = self.counts().into_iter().zip(words);
        kinds.filter(|(count, _)| *count > 0)
    }
}

impl AddAssign for Errors {
    fn add_assign(&mut self, more: Self) {
        let Self {
            refused,
            reset,
            closed,
            timeout,
            bad,
            other,
        } = more;
        self.refused += refused;
        self.reset += reset;
        self.closed += closed;
        self.timeout += timeout;
        self.bad += bad;
        self.other += other;
    }
}

/// What the generator found, on its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadResult {
    /// How long was counted, in seconds.
    pub(crate) seconds: f64,
    /// Requests sent in that time, each of which became an answer or an error.
    pub(crate) sent: u64,
    /// Good answers.
    pub(crate) answered: u64,
    /// The others.
    pub(crate) errors: Errors,
    /// Connections that were opened, and carried a request of that time.
    pub(crate) connections: u64,
    /// Latency of the good answers in ns, an HDR histogram (3 digits) as base64 of its V2 deflate form.
    pub(crate) latency: String,
    /// Connections (with keep-alive: requests) by worker, as its answers say (`X-Worker: N`), by N.
    /// Empty where they don't.
    pub(crate) by_worker: Vec<u64>,
    /// CPU seconds that the generator used, user and system.
    pub(crate) cpu_seconds: f64,
    /// The busiest of its threads: share of the time that it was on a CPU, 0 to 1.
    pub(crate) busiest_thread: f64,
    /// How late requests were sent, beyond what the server caused: the 99th percentile, in ns. (Open
    /// pace only.) A generator that is late, or busy all the time, may be the bottleneck.
    pub(crate) late_p99: u64,
}

/// What the processes of a mode have used since they started. Two of them make a difference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// CPU seconds of the workers, user and system, with their children.
    pub(crate) workers_cpu: f64,
    /// CPU seconds of the dispatcher, or of the launcher.
    pub(crate) dispatcher_cpu: f64,
    /// Context switches of both, voluntary or not.
    pub(crate) switches: u64,
    /// Connections that each worker got, by worker, where the server or the kernel counts them.
    pub(crate) by_worker: Option<Vec<u64>>,
    /// Of the network namespace: accept queues that overflowed.
    pub(crate) listen_overflows: u64,
    /// Of the network namespace: SYNs that listeners dropped.
    pub(crate) listen_drops: u64,
}

/// What one measurement is about: the peak, or a share of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// As much as goes, closed loop.
    Peak,
    /// So many per cent of the baseline's peak, open loop.
    Percent(u8),
}

/// One mode under one level in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// The round, from 1.
    pub(crate) round: u32,
    /// What the generator found.
    pub(crate) load: LoadResult,
    /// What the server's processes used meanwhile.
    pub(crate) usage: Usage,
    /// How often the server was disturbed meanwhile (`--disturb`).
    pub(crate) disturbed: u32,
    /// Whether the generator was the bottleneck.
    pub(crate) generator_limited: bool,
}

/// All rounds of a mode under a level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Under what load.
    pub(crate) level: Level,
    /// Requests per second that were offered; none at the peak.
    pub(crate) offered: Option<f64>,
    /// Round by round.
    pub(crate) rounds: Vec<Round>,
}

/// A mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModeResult {
    /// Its name on the command line, such as `reuseport-ebpf:round-robin`.
    pub(crate) mode: String,
    /// How many workers it had.
    pub(crate) workers: u32,
    /// Under each load.
    pub(crate) measured: Vec<Measured>,
    /// Why it was not measured, or not to the end.
    pub(crate) failed: Option<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The CPU's model.
    pub(crate) cpu: String,
    /// CPUs that are online.
    pub(crate) cpus: u32,
    /// CPUs that this process may use, by affinity.
    pub(crate) affinity: u32,
    /// The smallest CPU limit of its cgroups, in CPUs; none: no limit.
    pub(crate) cpu_limit: Option<f64>,
    /// The smallest memory limit of its cgroups, in bytes; none: no limit.
    pub(crate) memory_limit: Option<u64>,
    /// net.core.somaxconn.
    pub(crate) somaxconn: u32,
    /// Whether it was measured in a network namespace of its own.
    pub(crate) own_namespace: bool,
}

/// The whole benchmark: what `--json` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`REPORT_VERSION`].
    pub(crate) version: u32,
    /// The program's version.
    pub(crate) program: String,
    /// When it began, RFC 3339, UTC.
    pub(crate) started: String,
    /// The exact command.
    pub(crate) command: Vec<String>,
    /// The machine.
    pub(crate) host: Host,
    /// What the workers do for a request, as on the command line: `none`, `spin 5000 µs`, or the
    /// command of one's own server.
    pub(crate) work: String,
    /// How connections were used.
    pub(crate) shape: Shape,
    /// The CPUs of the workers, if they were set apart from the generator's.
    pub(crate) worker_cpus: Vec<usize>,
    /// The CPUs of the generator, likewise.
    pub(crate) generator_cpus: Vec<usize>,
    /// How workers were disturbed: `reload`, `kill` or `stall`.
    pub(crate) disturb: Option<String>,
    /// The mode that the others are compared with.
    pub(crate) baseline: String,
    /// In the order of the command line.
    pub(crate) modes: Vec<ModeResult>,
    /// What limits these figures, for the reader: too few CPUs, the generator, a shortened run.
    pub(crate) notes: Vec<String>,
}
