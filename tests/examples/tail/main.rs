//! The tail: how long the slowest requests take while workers are killed or replaced, beside Node's
//! cluster module with the same server, in the same run. A benchmark, not a test: `cargo xtask
//! bench-tail`.
//!
//! The server keeps a CPU for 4 ms for each request, and 200 are sent a second, each on a connection
//! of its own and at its time, whether or not the ones before have been answered. Systems take turns
//! in each round, so that whatever else the machine does meets all alike.
#![expect(clippy::print_stdout, reason = "what it prints is its output")]

mod report;
mod system;

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use kernel_tests::{
    client, gate,
    load::{OpenLoad, Report},
};

use report::Measured;
use system::{PORT, Running, System};

/// Requests a second: with the server's 4 ms, 40 % of what two workers can do.
const RATE: u32 = 200;

/// How long a client waits for its answer. Longer than two retransmissions of a SYN (3 s).
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests that are not measured: what a server does only once is done.
const WARM_UP: u64 = 200;

/// How often a worker is killed.
const KILL_EVERY: Duration = Duration::from_millis(500);

/// How often both workers are replaced: as many of them as are killed.
const RESTART_EVERY: Duration = Duration::from_secs(1);

/// Measure the tail while workers are killed and replaced, beside Node's cluster module.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench-tail")]
struct Options {
    /// How often each system is measured
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// For how many seconds each time
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// What shall happen to the workers
    #[arg(long, value_delimiter = ',', default_value = "kills,restarts,nothing")]
    troubles: Vec<Trouble>,
}

/// What happens to the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Trouble {
    Kills,
    Restarts,
    Nothing,
}

impl Trouble {
    /// Does it for so long. Returns how many workers were killed or replaced.
    fn befall(self, system: &Running, length: Duration) -> usize {
        let every = match self {
            Self::Kills => KILL_EVERY,
            Self::Restarts => RESTART_EVERY,
            Self::Nothing => length,
        };
        let start = Instant::now();
        let (mut next, mut done) = (start + every / 2, 0);
        while next < start + length {
            pause_until(next);
            done += match self {
                Self::Kills => usize::from(system.kill(done)),
                Self::Restarts => {
                    system.restart(done / 2);
                    2
                }
                Self::Nothing => 0,
            };
            next = (next + every).max(Instant::now());
        }
        pause_until(start + length);
        done
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kills => write!(f, "One of the two workers is killed every {KILL_EVERY:?}"),
            Self::Restarts => write!(
                f,
                "A rolling restart of both workers every {RESTART_EVERY:?}"
            ),
            Self::Nothing => write!(f, "Undisturbed"),
        }
    }
}

fn main() {
    let Options {
        rounds,
        seconds,
        troubles,
    } = Options::parse();
    let length = Duration::from_secs(seconds);
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    println!(
        "cargo xtask bench-tail --rounds {rounds} --seconds {seconds}\n\
         kernel {}, {} CPUs; {RATE} requests/s of 4 ms each, a connection each; two workers; \
         {rounds} × {seconds} s by turns\n",
        rustix::system::uname().release().to_string_lossy(),
        thread::available_parallelism().map_or(0, usize::from),
    );
    for trouble in troubles {
        let mut measured = System::ALL.map(Measured::new);
        for _ in 0..rounds {
            // Another one begins each time.
            measured.rotate_left(1);
            for Measured { system, runs } in &mut measured {
                runs.push(run(*system, trouble, length));
            }
        }
        measured.sort_by_key(|measured| measured.system as u8);
        println!("{}", report::table(&trouble.to_string(), &measured));
    }
    println!(
        "Medians of the rounds. Of all: one that was lost took longer than any answer. Clients and workers \
         share the CPUs:\nonly comparisons within one run mean something."
    );
}

/// Measures a system once. Returns what came of the load, and how many workers were killed or replaced.
fn run(system: System, trouble: Trouble, length: Duration) -> (Report, usize) {
    let running = system.start();
    let to = client::address(&format!("127.0.0.1:{PORT}"));
    let warm_up = OpenLoad::start(to, RATE);
    warm_up.wait_for(WARM_UP);
    warm_up.stop().assert_nothing_lost();
    let load = OpenLoad::with(to, RATE, "/", PATIENCE);
    let done = trouble.befall(&running, length);
    let report = load.stop();
    running.stop();
    (report, done)
}

fn pause_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
