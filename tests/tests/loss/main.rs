//! Nothing is lost: under load, whatever happens to workers and launcher, every request is
//! answered but those that a killed process had already accepted. How many those are is known
//! exactly: see [`crash`].
//!
//! What peers' users have reported as lost, by its number in the acceptance list, and the test that
//! it does not happen here:
//!
//! | | what must hold | proven by |
//! |---|---|---|
//! | 1 | capacity never below N in a reload | `reload::acceptance_1_…` |
//! | 2 | no connection lost in a reload | `matrix::acceptance_2_…`, for each server |
//! | 3 | what is in flight is finished before a kill | `drain::acceptance_3_…` |
//! | 4 | a new worker gets connections once it listens; no old one ends because a new one is slow | `reload::acceptance_4_…`, `version::acceptance_4_…` |
//! | 5 | out of the table before the signal | `drain::acceptance_5_…` |
//! | 6 | the queue of a worker that goes moves | `drain::acceptance_6_…` |
//! | 8 | connections wait while no worker is up | `hold::acceptance_8_…`, `matrix::acceptance_8_…` |
//! | 9 | nothing is reset by reload, upgrade or shutdown | `reload::acceptance_9_…` |
//! | 10 | a broken new version changes nothing | `matrix::acceptance_10_…`, `version::acceptance_10_…` |
//! | 11 | one reload at a time | `reload::acceptance_11_…` |
//! | 12 | no lock outlives its process | `takeover::acceptance_12_…` |
//! | 13 | idle connections hold a worker until the deadline, and are shown | `drain::acceptance_13_…` |
//! | 14 | the drain's deadline can be chosen for each reload, and none at all | `drain::acceptance_14_…` |
//! | 17 | the stop signal can be chosen | `lifecycle`: `stop::the_stop_signal_can_be_chosen_…` |
//! | 18 | Ctrl-C reaches the workers once | `lifecycle`: `stop::an_interrupt_of_the_whole_process_group_…` |
//! | 19 | a shell or `npm start` in between swallows no signal | `lifecycle`: `stop::the_whole_tree_of_a_worker_…`, `stop::acceptance_19_…` |
//! | 20 | `docker stop` of PID 1 ends well and in time | `lifecycle`: `stop::acceptance_20_…` |
//! | 21 | orphans are reaped | `lifecycle`: `crash::orphans_are_adopted_and_reaped` |
//! | 23 | gives up where nothing ever worked | `lifecycle`: `failing::a_command_that_ends_at_once_…` |
//! | 24 | workers survive the launcher and are taken over | `matrix::acceptance_24_…`, `takeover` |
//! | 25 | no process that got a worker's old pid is signalled | `takeover::acceptance_25_…` |
//!
//! Beyond these: 33 and 55 (stall) and 43 (recycling) in `health` and `recycle`, 42 (memory) in
//! `recycle`, 47 and 48 (environment, `current`) in `version`, 51 (crash loops) in `spawn`.
//!
//! Faults that nobody has reported: `faults` (of the launcher and what it leaves), `upgrade` (of its
//! executable), `edges` (several ports, other users, stops in the middle of something).

mod drain;
mod edges;
mod faults;
mod health;
mod hold;
mod ipc;
mod matrix;
mod passed_on;
mod readiness;
mod recycle;
mod reload;
mod spawn;
mod starvation;
mod takeover;
mod upgrade;
mod verbs;
mod version;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use kernel_tests::{
    cgroup, client,
    launcher::{Launch, Launcher},
    process::Process,
    procfs::{self, Handle},
    scripts,
    status::Status,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The port of every server here.
const PORT: u16 = 8080;

/// Requests a second: enough that each moment is met, little enough that two cores keep up with
/// two tests at once.
const RATE: u32 = 200;

/// The address of every server here.
fn address() -> SocketAddr {
    client::address("127.0.0.1:8080")
}

/// Kills the main process of a slot's only worker, without a warning. Returns the ports of the
/// clients whose connections the worker had accepted: only these may be lost. It is frozen first,
/// so that there is no doubt about them.
#[track_caller]
fn crash(launcher: &Launcher, slot: u32) -> BTreeSet<u16> {
    crash_of(launcher, slot, launcher.status().generation(slot))
}

/// The same, of the worker of this generation.
#[track_caller]
fn crash_of(launcher: &Launcher, slot: u32, generation: u64) -> BTreeSet<u16> {
    let status = launcher.status();
    let found = status
        .workers()
        .iter()
        .find(|worker| worker["slot"] == slot && worker["generation"] == generation)
        .and_then(|worker| worker["pid"].as_u64()?.try_into().ok());
    let pid = found.unwrap_or_else(|| panic!("no worker {slot}.{generation}: {}", status.0));
    let process = Handle::of(pid);
    let fleet = launcher.site.cgroup().expect("the launcher has found it");
    let worker = fleet.join(format!("{slot}.{generation}"));
    cgroup::freeze(&worker);
    let accepted = procfs::peer_ports(&cgroup::processes(&worker));
    process.kill();
    accepted
}

/// Sends a signal to a worker, which must run.
#[track_caller]
fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap_or_else(|error| panic!("{pid}: {error}"));
}

/// Does something to a launcher, and looks at its status all the while.
#[track_caller]
fn watched<T>(launcher: &Launcher, action: impl FnOnce() -> T) -> (T, Vec<Status>) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = vec![launcher.status()];
            while !done.load(Ordering::Relaxed) {
                seen.push(launcher.status());
            }
            seen
        });
        let result = action();
        done.store(true, Ordering::Relaxed);
        (result, watcher.join().expect("status is answered"))
    })
}

/// A fleet of two [`scripts::app`]s.
#[track_caller]
fn two_apps(words: &[&str], options: &[&str]) -> Launcher {
    Launch::of(scripts::app(words))
        .options(["--workers", "2"])
        .options(options)
        .ready()
}

/// Starts a reload, and waits until it is under way.
#[track_caller]
fn begin_reload(launcher: &Launcher, options: &[&str]) -> Process {
    let words: Vec<&str> = ["reload"].iter().chain(options).copied().collect();
    let reload = launcher.begin(&words);
    launcher.status_when("the reload", |status| {
        status.0["operation"]["verb"] == "reload"
    });
    reload
}
