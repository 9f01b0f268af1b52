//! What the service manager is told of the fleet: that it is ready, reloads and stops, how many
//! workers are ready, and at intervals that the event loop goes round.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::launcher::Launcher;
use crate::{
    fleet::{Operation, State, Verb, View},
    sys::service::{self, ServiceManager},
};

/// The service manager, and what it knows.
pub(super) struct Service {
    manager: Option<ServiceManager>,
    told: Told,
    /// Whether it may have asked for a reload, and waits for us to begin one.
    reload_asked: bool,
    /// Whether this process has gone over to another version, and is the main process still.
    pub(super) went_over: bool,
    watchdog: Option<Watchdog>,
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether all is up; from the first time on it stays so.
    pub(super) ready: bool,
    pub(super) reloading: bool,
    /// Likewise.
    pub(super) stopping: bool,
    /// One line.
    pub(super) status: String,
}

#[derive(Debug)]
struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Service {
    pub(super) fn from_environment() -> Self {
        let manager = ServiceManager::from_environment().unwrap_or_else(|error| {
            warn!("the service manager can't be told anything: NOTIFY_SOCKET: {error}");
            None
        });
        let watchdog = service::watchdog().filter(|_| manager.is_some());
        Self {
            manager,
            told: Told::default(),
            reload_asked: false,
            went_over: false,
            watchdog: watchdog.map(|limit| Watchdog {
                // Twice in that time, as sd_watchdog_enabled(3) recommends.
                every: limit / 2,
                next: Instant::now(),
            }),
        }
    }

    /// A signal has asked for a reload. Even one that is refused at once has to begin and end for the
    /// service manager, which would wait for it.
    pub(super) fn on_reload_asked(&mut self) {
        self.reload_asked = self.told.ready;
    }

    /// When it has to be told next that we are alive.
    pub(super) fn next(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    /// Tells it that we are alive, if it is time.
    pub(super) fn ping(&mut self) {
        let Some(watchdog) = &mut self.watchdog else {
            return;
        };
        let now = Instant::now();
        if watchdog.next > now {
            return;
        }
        watchdog.next = now + watchdog.every;
        self.tell("WATCHDOG=1");
    }

    /// Tells it that this is the end, if it does not know.
    pub(super) fn stop(&mut self) {
        let stopping = Told {
            stopping: true,
            ..self.told.clone()
        };
        self.update(stopping);
    }

    /// Whether somebody wants to know.
    pub(super) fn is_wanted(&self) -> bool {
        self.manager.is_some()
    }

    /// Tells what has changed.
    pub(super) fn update(&mut self, now: Told) {
        if self.manager.is_none() {
            return;
        }
        let now = Told {
            ready: now.ready || self.told.ready,
            reloading: now.reloading && self.told.ready,
            stopping: now.stopping || self.told.stopping,
            ..now
        };
        let mut lines = Vec::new();
        if self.reload_asked || (now.reloading && !self.told.reloading) {
            lines.push("RELOADING=1".to_owned());
            lines.push(format!("MONOTONIC_USEC={}", service::monotonic_usec()));
        }
        if now.status != self.told.status {
            lines.push(format!("STATUS={}", now.status));
        }
        if now.stopping && !self.told.stopping {
            lines.push("STOPPING=1".to_owned());
        }
        if !lines.is_empty() && !self.tell(&lines.join("\n")) {
            // It is told with the next look.
            return;
        }
        let begun = self.told.reloading || self.reload_asked;
        let ends = begun && !now.reloading;
        self.reload_asked = false;
        let mut known = now.clone();
        let comes_up = !self.told.ready || ends;
        if now.ready && comes_up && !now.stopping {
            let ready = match self.went_over {
                true => format!("READY=1\nMAINPID={}", std::process::id()),
                false => "READY=1".to_owned(),
            };
            // A message of its own: one message has no order in it.
            if !self.tell(&ready) {
                known.ready = self.told.ready;
                known.reloading = begun;
            }
        }
        self.told = known;
    }

    fn tell(&self, message: &str) -> bool {
        let told = self.manager.as_ref().map(|manager| manager.tell(message));
        match told {
            Some(Err(error)) => {
                debug!("the service manager could not be told {message:?}: {error}");
                false
            }
            Some(Ok(())) | None => true,
        }
    }
}

impl Launcher {
    /// Tells the service manager what has changed. `announced`: whether the fleet is up.
    pub(super) fn tell_service(&mut self, views: &[View], announced: bool) {
        let operation = self.fleet.operation();
        let now = Told {
            ready: announced,
            reloading: operation.is_some_and(|operation| operation.verb == Verb::Reload),
            stopping: self.is_stopping(),
            status: status(views, self.fleet.workers_wanted(), operation),
        };
        self.service.update(now);
    }
}

/// `2 of 2 workers ready, reload: 1 of 2 done`
fn status(views: &[View], wanted: u32, operation: Option<Operation>) -> String {
    let ready = views
        .iter()
        .filter(|view| view.state == State::Ready && !view.leaving)
        .count();
    let plural = if wanted == 1 { "" } else { "s" };
    let workers = format!("{ready} of {wanted} worker{plural} ready");
    match operation {
        Some(Operation { verb, done, of }) => format!("{workers}, {verb}: {done} of {of} done"),
        None => workers,
    }
}
