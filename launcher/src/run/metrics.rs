//! The page of metrics: what is counted for it, and its answers.

use std::{io, os::fd::OwnedFd};

use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::{handed::Inherited, launcher::Launcher};
use crate::{
    failure::Failure,
    fleet::{Notice, Reason, Recycle, State},
    metrics::{self, Counts, GroupKey, Outcome, Restart, Used},
    scrape::{Address, Answer, Bound, Call, Question, Server},
    sys::listeners::Endpoint,
    worker::WorkerId,
};

/// Opens the socket of the metrics, or goes on with the one that was passed on. A launcher that has
/// replaced itself does without where it can't: its workers have nobody else.
pub(super) fn open(
    address: Option<&Address>,
    inherited: &mut Inherited,
    replaces_itself: bool,
) -> Result<Option<Bound>, Failure> {
    let kept = inherited.metrics.take().and_then(resumed);
    let Some(address) = address else {
        return Ok(None);
    };
    if let Some(kept) = kept.filter(|kept| kept.address() == address) {
        return Ok(Some(kept));
    }
    match Bound::bind(address) {
        Err(failure) if replaces_itself => {
            warn!("{}: {}; there are none", failure.what, failure.why);
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

fn resumed((address, socket): (String, Option<OwnedFd>)) -> Option<Bound> {
    Some(Bound::resume(address.parse().ok()?, socket?))
}

/// Serves on that socket.
pub(super) fn serve(bound: Option<Bound>, calls: mpsc::Sender<Call>) -> io::Result<Option<Server>> {
    bound.map(|bound| Server::start(bound, calls)).transpose()
}

impl Launcher {
    /// Somebody asks for the page, or how we are.
    pub(super) fn on_scrape(&mut self, call: Call) {
        let Call { question, reply } = call;
        let answer = match question {
            Question::Page(format) => {
                self.count();
                let decisions = self.steering.decision_times().into_iter();
                let decisions: Vec<_> = decisions
                    .map(|(endpoint, seconds)| (key(&endpoint), seconds))
                    .collect();
                let snapshot = self.snapshot();
                Answer {
                    yes: true,
                    text: metrics::render(&snapshot, &self.tallies, &decisions, format),
                }
            }
            Question::Ready => self.readiness(),
            Question::Healthy => Answer {
                yes: true,
                text: "healthy\n".to_owned(),
            },
        };
        // Who has gone away does not get it.
        let _ = reply.send(answer);
    }

    fn readiness(&self) -> Answer {
        let views = self.fleet.views();
        let ready = views
            .iter()
            .filter(|view| view.state == State::Ready && !view.leaving)
            .count();
        let stopping = self.is_stopping();
        let of = self.fleet.workers_wanted();
        Answer {
            yes: ready > 0 && !stopping,
            text: match stopping {
                true => "stopping\n".to_owned(),
                false => format!("{ready} of {of} workers ready\n"),
            },
        }
    }

    /// Takes note of what the kernel has counted, for what may be gone the next time. To be called
    /// before and after what makes counters begin anew.
    pub(super) fn count(&mut self) {
        if self.plan.metrics.is_none() {
            return;
        }
        let groups = self.steering.groups().into_iter().map(|group| {
            let evicted = group.flows.map_or(0, |flows| flows.evicted);
            let counts = group.counted.map(|counted| Counts {
                selected: counted.selected,
                migrated: counted.migrated,
                held: counted.held,
                fell_through: counted.fell_through,
                refused: counted.refused,
                missed: counted.missed,
                evicted,
            });
            (key(&group.endpoint), counts)
        });
        self.tallies.see_groups(groups);
        let workers: Vec<WorkerId> = self.running.keys().copied().collect();
        for worker in workers {
            self.count_worker(worker);
        }
    }

    fn count_worker(&mut self, worker: WorkerId) {
        let running = self.running.get(&worker);
        let used = Used {
            connections: self.steering.connections(worker),
            cpu_seconds: running.and_then(|running| running.cgroup.cpu_seconds()),
        };
        self.tallies.see_worker(worker, used);
    }

    /// The same for a worker that is about to be forgotten.
    pub(super) fn count_last(&mut self, worker: WorkerId) {
        if self.plan.metrics.is_some() && self.running.contains_key(&worker) {
            self.count_worker(worker);
        }
        self.tallies.end_worker(worker);
    }

    /// Counts what is told as a restart, if it is one.
    pub(super) fn count_notice(&mut self, notice: &Notice) {
        let (worker, reason) = match notice {
            Notice::Exited {
                worker,
                restart_in: Some(_),
                ..
            } => (worker, Restart::Exited),
            Notice::SpawnFailed {
                worker,
                restart_in: Some(_),
                ..
            } => (worker, Restart::NotStarted),
            Notice::NotReady {
                worker,
                restart_in: Some(_),
                ..
            } => (worker, Restart::NotReady),
            Notice::Replacing { old, reason, .. } => (
                old,
                match reason {
                    Reason::Reload => Restart::Reload,
                    Reason::Restart => Restart::Restart,
                    Reason::Unhealthy => Restart::Unhealthy,
                    Reason::Recycle(Recycle::Connections) => Restart::MaxConnections,
                    Reason::Recycle(Recycle::Memory) => Restart::MaxMemory,
                    Reason::Recycle(Recycle::Age) => Restart::MaxAge,
                },
            ),
            _ => return,
        };
        self.tallies.restart(worker.slot, reason);
    }

    /// Counts a reload that has ended, if it is one: those of other requests have no beginning.
    pub(super) fn count_reload(&mut self, since: Option<Instant>, outcome: Outcome) {
        if let Some(since) = since {
            self.tallies.reload(outcome, since.elapsed());
        }
    }
}

fn key(endpoint: &Endpoint) -> GroupKey {
    (
        endpoint.protocol.to_string(),
        endpoint.address.ip().to_string(),
        endpoint.address.port(),
    )
}
