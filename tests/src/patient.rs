//! Servers that do nothing unasked, so that a test decides how long connections wait, and where.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::{
    launcher::{Launch, Launcher},
    procfs::Handle,
    servers::python_code,
};

/// The port on which they listen.
pub const PORT: u16 = 8080;

/// A launcher of servers that listen when they are told to, accept when they are told to, and answer
/// with their pid.
#[derive(Debug)]
pub struct Patient {
    /// Their launcher.
    pub launcher: Launcher,
    /// Of the first generation, by slot.
    workers: Vec<Handle>,
}

impl Patient {
    /// Starts so many, for connections to this address, and waits until they can be told something.
    /// `options` are the launcher's, besides `--workers`.
    #[must_use]
    #[track_caller]
    pub fn start(address: &str, workers: u32, options: &[&str]) -> Self {
        let mut command = python_code(include_str!("../servers/patient.py"));
        command.extend([address.to_owned(), PORT.to_string()]);
        let launcher = Launch::of(command)
            .options(["--workers", &workers.to_string()])
            .options(options)
            .start();
        launcher.process.wait_until("all workers", |lines| {
            let waiting = lines.iter().filter(|line| line.text.ends_with(" waiting"));
            (waiting.count() == workers as usize).then_some(())
        });
        let status = launcher.status();
        let workers = (0..workers).map(|slot| Handle::of(status.pid(slot)));
        Self {
            workers: workers.collect(),
            launcher,
        }
    }

    /// The process that was started first in this slot.
    ///
    /// # Panics
    /// When there is no such slot.
    #[must_use]
    pub fn worker(&self, slot: u32) -> &Handle {
        &self.workers[slot as usize]
    }

    /// Has a worker listen, and waits until it is steered to.
    #[track_caller]
    pub fn listen(&self, slot: u32) {
        self.worker(slot).signal(Signal::USR1);
        self.launcher.status_when("it to be ready", |status| {
            status.worker(slot)["state"] == "ready"
        });
    }

    /// Has a worker accept and answer, from now on.
    #[track_caller]
    pub fn accept(&self, slot: u32) {
        self.worker(slot).signal(Signal::USR2);
    }

    /// Kills a worker, and waits until the launcher has noticed. The next generation in its slot does
    /// not listen, as nobody tells it to.
    #[track_caller]
    pub fn kill(&self, slot: u32) {
        let worker = self.worker(slot);
        worker.kill();
        self.launcher
            .status_when("the launcher to notice", |status| {
                status.worker(slot)["pid"] != worker.pid()
            });
    }

    /// How many connections wait to be accepted, by slot; only of workers that listen.
    ///
    /// # Panics
    /// As [`Launcher::status`].
    #[must_use]
    #[track_caller]
    pub fn queues(&self) -> BTreeMap<u32, u64> {
        let status = self.launcher.status();
        let queue = |slot| Some((slot, status.worker(slot)["accept_queue"].as_u64()?));
        (0..).take(self.workers.len()).filter_map(queue).collect()
    }

    /// Waits until so many connections wait to be accepted by a worker.
    #[track_caller]
    pub fn wait_for_queue(&self, slot: u32, count: u64) {
        self.launcher.status_when("connections to wait", |status| {
            status.worker(slot)["accept_queue"] == count
        });
    }

    /// Waits until so many connections have moved.
    #[track_caller]
    pub fn wait_for_migrated(&self, count: u64) {
        self.launcher.status_when("connections to move", |status| {
            status.counter(PORT, "migrated_total") == count
        });
    }

    /// Asserts that so many have moved by now, and all by the program's choice.
    ///
    /// # Panics
    /// When that is not so.
    #[track_caller]
    pub fn assert_migrated(&self, count: u64) {
        let status = self.launcher.status();
        let counts =
            ["migrated_total", "fell_through_total"].map(|name| status.counter(PORT, name));
        assert_eq!(counts, [count, 0], "{}", status.0);
    }

    /// Stops the launcher.
    ///
    /// # Panics
    /// When its exit code is not 0.
    #[track_caller]
    pub fn end(self) {
        assert_eq!(self.launcher.stop(), 0);
    }
}
