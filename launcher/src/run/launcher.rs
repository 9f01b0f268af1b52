//! Carries out what the fleet asks for, and tells it what happened.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use rustix::process::Rlimit;
use tokio::{sync::oneshot, time::Instant};
use tracing::{debug, info, warn};

use super::fleet_log;
use crate::{
    capture::Capture,
    config::Plan,
    control::{
        protocol::{Request, Response},
        server::Call,
    },
    failure::{Exit, Failure},
    fleet::{Cause, Effect, Event, Fleet, Notice, Outcome, Settings, State, StopMode, View},
    output::Output,
    steer::Steering,
    sys::{
        cgroup::{FleetCgroup, WorkerCgroup},
        process::{self, Launch},
        program::find_program,
    },
    worker::WorkerId,
};

/// How long a worker may run without listening before that is worth a word.
const LISTEN_WARNING: Duration = Duration::from_secs(10);

/// How long no socket must have appeared before the startup line is printed.
const QUIET: Duration = Duration::from_millis(100);

/// Everything that runs.
pub(super) struct Launcher {
    pub(super) plan: Plan,
    pub(super) fleet: Fleet,
    pub(super) steering: Steering,
    pub(super) running: HashMap<WorkerId, Running>,
    pub(super) started: Instant,
    /// RFC 3339.
    pub(super) started_at: String,
    pub(super) capture: Capture,
    pub(super) output: Output,
    cgroup: FleetCgroup,
    file_limit: Rlimit,
    /// Who waits for the end.
    stop_calls: Vec<oneshot::Sender<Response>>,
    /// Why the fleet was told to give up, in full.
    fatal: Option<Failure>,
    /// The last failure's worker and its last lines.
    pub(super) last_words: Option<(WorkerId, Vec<String>)>,
    outcome: Option<Outcome>,
    announcement: Announcement,
    pub(super) events_lost: u64,
    /// Whether capture events are left to be handled.
    pub(super) behind: bool,
    /// The strangers' sockets that were warned of.
    pub(super) strangers_told: HashSet<u64>,
}

/// The startup line: printed once, when the workers have opened all of their sockets, which no
/// event tells; a short quiet does.
enum Announcement {
    /// Nothing to announce yet.
    Waiting,
    /// To be made then, unless another socket appears.
    Due(Instant),
    /// Made.
    Made,
}

/// A worker's handles.
pub(super) struct Running {
    pub(super) cgroup: WorkerCgroup,
    /// Its main process; `None` when that could not be started.
    pub(super) pid: Option<u32>,
    pub(super) started: Instant,
    /// Whether its main process has ended.
    pub(super) ended: bool,
    /// The address it could not have, if it met one.
    pub(super) taken: Option<Failure>,
}

impl Launcher {
    pub(super) fn new(
        plan: Plan,
        cgroup: FleetCgroup,
        capture: Capture,
        steering: Steering,
        output: Output,
        started_at: String,
        file_limit: Rlimit,
    ) -> Self {
        let settings = Settings {
            workers: plan.workers,
            stop_timeout: plan.stop_timeout,
            listen_warning: LISTEN_WARNING,
            restart: crate::fleet::restart::Settings::default(),
            seed: u64::from(std::process::id()),
        };
        Self {
            fleet: Fleet::new(settings),
            plan,
            steering,
            running: HashMap::new(),
            started: Instant::now(),
            started_at,
            capture,
            output,
            cgroup,
            file_limit,
            stop_calls: Vec::new(),
            fatal: None,
            last_words: None,
            outcome: None,
            announcement: Announcement::Waiting,
            events_lost: 0,
            behind: false,
            strangers_told: HashSet::new(),
        }
    }

    /// Tells the fleet what happened, and does what follows from it.
    pub(super) fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.fleet.step(self.started.elapsed(), event) {
                events.extend(self.apply(effect));
            }
        }
    }

    fn apply(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Spawn(worker) => Some(match self.spawn(worker) {
                Ok(()) => Event::Spawned { worker },
                Err(reason) => Event::SpawnFailed { worker, reason },
            }),
            Effect::Steer(workers) => match self.steering.set_ready(&workers) {
                Ok(()) => None,
                Err(failure) => Some(self.fail(failure)),
            },
            Effect::Signal(worker) => {
                if let Some(running) = self.running.get(&worker) {
                    running.cgroup.signal(self.plan.stop_signal);
                }
                None
            }
            Effect::Kill(worker) => {
                if let Some(running) = self.running.get(&worker) {
                    running.cgroup.kill();
                }
                None
            }
            Effect::Release(worker) => self.release(worker),
            Effect::Notice(notice) => {
                self.tell(&notice);
                None
            }
            Effect::Quit(outcome) => {
                self.outcome = Some(outcome);
                None
            }
        }
    }

    fn spawn(&mut self, worker: WorkerId) -> Result<(), String> {
        let cgroup = self
            .cgroup
            .create_worker(worker)
            .map_err(|error| format!("creating its cgroup failed: {error}"))?;
        self.capture.watch(worker, &cgroup);
        let started = self.launch(worker, &cgroup);
        if let Ok(pid) = started {
            debug!("worker {worker} is pid {pid}");
        }
        let running = Running {
            cgroup,
            pid: started.as_ref().ok().copied(),
            started: Instant::now(),
            ended: false,
            taken: None,
        };
        self.running.insert(worker, running);
        started.map(|_| ())
    }

    fn launch(&mut self, worker: WorkerId, cgroup: &WorkerCgroup) -> Result<u32, String> {
        let environment = self.plan.environment(worker, std::env::vars_os());
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map(|(_, value)| value.as_os_str());
        let arguments = self.plan.arguments(worker);
        let program = arguments.first().ok_or("the command is empty")?;
        let program = find_program(program, path)
            .map_err(|failure| format!("{}: {}", failure.what, failure.why))?;
        let (stdout, stderr) = self
            .output
            .open(worker)
            .map_err(|error| format!("opening its output failed: {error}"))?;
        let cpus = self.plan.pinning.cpus_for(worker.slot, &self.plan.cpus);
        process::spawn(Launch {
            program: &program,
            arguments: &arguments,
            environment: &environment,
            cgroup,
            cpus: cpus.as_deref(),
            identity: self.plan.identity.as_ref(),
            file_limit: self.file_limit,
            stdout,
            stderr,
        })
        .map_err(|error| error.to_string())
    }

    fn release(&mut self, worker: WorkerId) -> Option<Event> {
        if let Some(running) = self.running.remove(&worker)
            && let Err(error) = running.cgroup.remove()
        {
            warn!("the cgroup of worker {worker} could not be removed: {error}");
        }
        self.capture.forget(worker);
        self.output.close(worker);
        self.steering
            .forget(worker)
            .err()
            .map(|failure| self.fail(failure))
    }

    /// Going on would be wrong: remembers why, for the end.
    pub(super) fn fail(&mut self, failure: Failure) -> Event {
        let reason = format!("{}: {}", failure.what, failure.why);
        self.fatal.get_or_insert(failure);
        Event::Fatal { reason }
    }

    /// A control client asks for something.
    pub(super) fn on_call(&mut self, call: Call) {
        let Call { request, reply } = call;
        match request {
            // A client that has gone away does not get its answer; nothing depends on it.
            Request::Status {} => drop(reply.send(Response::Status(Box::new(self.snapshot())))),
            Request::Stop {} => {
                info!("stopping, because of a stop request");
                self.stop_calls.push(reply);
                self.feed(Event::Stop(StopMode::Graceful));
            }
        }
    }

    pub(super) fn is_ready(&self, worker: WorkerId) -> bool {
        let ready = |view: &View| view.worker == worker && view.state == State::Ready;
        self.fleet.views().iter().any(ready)
    }

    /// Whether some worker takes connections.
    pub(super) fn is_serving(&self) -> bool {
        let mut views = self.fleet.views().into_iter();
        views.any(|view| view.state == State::Ready)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.fleet.is_stopping()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let fleet = self.fleet.next_deadline().map(|after| self.started + after);
        match self.announcement {
            Announcement::Due(at) => Some(fleet.map_or(at, |fleet| fleet.min(at))),
            Announcement::Waiting | Announcement::Made => fleet,
        }
    }

    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn tell(&mut self, notice: &Notice) {
        fleet_log::notice(notice);
        let announce = matches!(notice, Notice::AllReady | Notice::NotListening { .. });
        if announce && matches!(self.announcement, Announcement::Waiting) {
            self.announcement = Announcement::Due(Instant::now() + QUIET);
        }
    }

    /// A socket has appeared.
    pub(super) fn postpone_announcement(&mut self) {
        if let Announcement::Due(at) = &mut self.announcement {
            *at = Instant::now() + QUIET;
        }
    }

    /// A deadline has passed: the fleet's, or that of the startup line.
    pub(super) fn on_deadline(&mut self) {
        self.check_emptied();
        self.feed(Event::Tick);
        if let Announcement::Due(at) = self.announcement
            && at <= Instant::now()
        {
            self.announcement = Announcement::Made;
            info!("{}", self.startup_line());
        }
    }

    /// Ends what is left, and says how it went.
    pub(super) fn finish(self, outcome: Outcome) -> Result<Exit, Failure> {
        let Self {
            output,
            stop_calls,
            fatal,
            last_words,
            plan,
            ..
        } = self;
        output.finish();
        for reply in stop_calls {
            let _ = reply.send(Response::Done);
        }
        match outcome {
            Outcome::Stopped => {
                info!("stopped");
                Ok(Exit::Clean)
            }
            Outcome::GaveUp {
                worker,
                failures,
                last,
            } => {
                let words = last_words.map_or_else(String::new, |(worker, lines)| {
                    if lines.is_empty() {
                        format!("; worker {worker} wrote nothing to stderr")
                    } else {
                        format!(
                            "; the last lines of worker {worker}:\n    {}",
                            lines.join("\n    ")
                        )
                    }
                });
                Err(Failure::new(
                    format!("gave up: {} never became ready", plan.name),
                    format_args!(
                        "slot {} failed {failures} times in a row, last of {last}{words}",
                        worker.slot
                    ),
                    match last {
                        Cause::Exited(_) => "start the command by hand to see why it ends",
                        Cause::NotSpawned(_) => {
                            "look at the launcher's limits: ulimit -n (files), ulimit -u (processes), memory"
                        }
                    },
                ))
            }
            Outcome::Fatal { reason } => {
                Err(fatal
                    .unwrap_or_else(|| Failure::new("stopped", reason, "see the messages above")))
            }
        }
    }
}
