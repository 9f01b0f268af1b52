//! What the end of a child process means to the fleet.

use std::time::Duration;

use tracing::{error, warn};

use super::{launcher::Launcher, strangers, worker::Running};
use crate::{
    fleet::{Event, ExitStatus},
    sys::process,
    worker::WorkerId,
};

/// How long a process that has been reaped may still count as a member of its cgroup: since Linux
/// 6.19 it leaves when it has run for the last time, not when it has exited.
const UNLINK: Duration = Duration::from_millis(20);

impl Launcher {
    /// Children have ended: workers, the output process, or orphans of workers.
    pub(super) fn on_children(&mut self) {
        // What a worker did before it ended is known by now, and explains its end.
        self.catch_up();
        let ended = process::reap();
        for child in &ended {
            if child.pid == self.output.pid() {
                warn!("the output process was killed; starting another");
                if let Err(error) = self.output.restart() {
                    error!("the output process could not be restarted: {error}");
                }
            }
        }
        // Only one of a batch, because the answer may take its time.
        let mut asked = false;
        for child in ended {
            let main = |running: &Running| !running.ended && running.pid == Some(child.pid);
            let mut running = self.running.iter();
            let Some(worker) =
                running.find_map(|(&worker, running)| main(running).then_some(worker))
            else {
                continue;
            };
            let status = match child.status {
                Ok(code) => ExitStatus::Code(code),
                Err(signal) => ExitStatus::Signal(signal),
            };
            self.on_end(worker, status, &mut asked);
        }
        self.check_emptied();
    }

    /// A worker's main process has ended. What it wrote last is asked for unless that was done.
    pub(super) fn on_end(&mut self, worker: WorkerId, status: ExitStatus, asked: &mut bool) {
        let was_ready = self.has_been_ready(worker);
        let Some(running) = self.running.get_mut(&worker) else {
            return;
        };
        running.ended = true;
        let mut taken = running.taken.take();
        let emptied = running.cgroup.wait_until_empty(UNLINK);
        if !was_ready && !self.is_stopping() {
            if !*asked {
                *asked = true;
                self.last_words = Some((worker, self.output.tail(worker)));
            }
            let failed = self.capture.failed_binds(worker);
            for (protocol, address) in failed {
                self.steering.stop_holding_for_nobody(address.port());
                taken = taken.or_else(|| strangers::at(self, protocol, address));
            }
        }
        if emptied {
            self.feed(Event::Emptied { worker });
        }
        self.feed(Event::Exited { worker, status });
        if let Some(failure) = taken.filter(|_| !was_ready) {
            self.fail_unless_serving(failure);
        }
        if was_ready {
            // What waited for it has moved to others.
            self.nudge();
        }
    }

    /// Finds the workers of which nothing is left any more.
    pub(super) fn check_emptied(&mut self) {
        let emptied: Vec<WorkerId> = self
            .running
            .iter()
            .filter(|(_, running)| running.ended && !running.cgroup.populated())
            .map(|(&worker, _)| worker)
            .collect();
        for worker in emptied {
            self.feed(Event::Emptied { worker });
        }
    }
}
