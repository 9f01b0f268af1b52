//! The harness of the kernel, lifecycle and command-line tests: real servers under the real
//! launcher, each test in a network namespace of its own.
//!
//! A test starts with [`gate::enter`], starts a [`launcher::Launch`] of one of the
//! [`servers`], waits for events with the bounded waits of [`process::Process`], sends load with
//! [`client`], and compares what was served with what the kernel counted
//! ([`launcher::Launcher::status`]).

pub mod cgroup;
pub mod client;
pub mod dns;
pub mod figures;
pub mod flow;
pub mod gate;
pub mod launcher;
pub mod load;
pub mod manager;
pub mod netns;
pub mod patient;
pub mod process;
pub mod procfs;
pub mod quota;
pub mod scripts;
pub mod servers;
pub mod status;
pub mod tmux;
pub mod tun;

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

/// How long anything is waited for. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// All policies.
pub const POLICIES: [&str; 7] = [
    "round-robin",
    "least-conn",
    "hash",
    "source",
    "cpu",
    "random",
    "kernel",
];

/// Waits until `look` finds something that no event tells.
///
/// # Panics
/// When it has not within [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a line that libtest does not capture: results worth seeing in every run.
pub fn say(text: &str) {
    // Nothing depends on it being read.
    let _ = writeln!(std::io::stderr(), "{text}");
}
