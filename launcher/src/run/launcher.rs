//! Carries out what the fleet asks for, and tells it what happened.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::PathBuf,
    time::Duration,
};

use rustix::process::Rlimit;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{
    fleet_log,
    looks::Looks,
    news::News,
    probing::Probing,
    reload::{Replaced, Staged},
    remember::{Listened, StateFile},
    requests::Pending,
    service::Service,
    upgrade::Upgrade,
    worker::Running,
};
use crate::{
    capture::Capture,
    config::{App, Plan},
    control::protocol::Response,
    failure::{Exit, Failure},
    fleet::{Cause, Effect, Event, Fleet, Notice, Outcome, State, Ticket},
    metrics::Tallies,
    output::Output,
    steer::Steering,
    sys::{cgroup::FleetCgroup, pins::Pins, runtime::RuntimeDir},
    worker::WorkerId,
};

/// How long no socket must have appeared before the startup line is printed.
const QUIET: Duration = Duration::from_millis(100);

/// How long a worker that does not read its IPC messages is left alone before the next try.
const FLUSH_PAUSE: Duration = Duration::from_millis(50);

/// What a launcher is made of when it starts.
pub(super) struct Parts {
    pub(super) plan: Plan,
    pub(super) app: App,
    pub(super) runtime_dir: RuntimeDir,
    pub(super) fleet: Fleet,
    pub(super) cgroup: FleetCgroup,
    /// Its cgroup's path in the hierarchy.
    pub(super) cgroup_path: String,
    pub(super) pins: Option<Pins>,
    pub(super) capture: Capture,
    pub(super) steering: Steering,
    pub(super) output: Output,
    pub(super) state_file: StateFile,
    pub(super) probing: Probing,
    pub(super) news: mpsc::Sender<News>,
    /// RFC 3339.
    pub(super) started_at: String,
    pub(super) file_limit: Rlimit,
    /// Whether this kernel wakes the process to which it moves a connection.
    pub(super) migration_wakes: bool,
    /// Our own executable, by the name that it was started by: another version may lie there later.
    pub(super) executable: PathBuf,
}

/// Everything that runs.
pub(super) struct Launcher {
    /// What is in force: after a reload by a changed file, another one than at the start.
    pub(super) plan: Plan,
    /// Where that comes from.
    pub(super) app: App,
    pub(super) runtime_dir: RuntimeDir,
    pub(super) fleet: Fleet,
    pub(super) cgroup: FleetCgroup,
    pub(super) cgroup_path: String,
    pub(super) pins: Option<Pins>,
    pub(super) capture: Capture,
    pub(super) steering: Steering,
    pub(super) output: Output,
    pub(super) state_file: StateFile,
    pub(super) probing: Probing,
    pub(super) news: mpsc::Sender<News>,
    pub(super) started_at: String,
    pub(super) file_limit: Rlimit,
    pub(super) migration_wakes: bool,
    pub(super) executable: PathBuf,
    pub(super) running: HashMap<WorkerId, Running>,
    /// The fleet's clock begins here.
    pub(super) started: Instant,
    pub(super) looks: Looks,
    /// What is being carried out.
    pub(super) pending: HashMap<Ticket, Pending>,
    pub(super) next_ticket: u64,
    /// The reload by a changed file that goes on.
    pub(super) staged: Option<Staged>,
    /// One that is done, but for what comes into force at the end.
    pub(super) replaced: Option<Replaced>,
    pub(super) service: Service,
    /// Who waits for the end.
    pub(super) stop_calls: Vec<oneshot::Sender<Response>>,
    /// To go over to another version.
    pub(super) upgrade: Option<Upgrade>,
    /// What the page of metrics counts.
    pub(super) tallies: Tallies,
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
    /// When to try again to send what a worker's IPC channel did not take.
    flush_at: Option<Instant>,
    /// Whether it was told that the state file can't be written.
    pub(super) unsaved_told: bool,
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

impl Launcher {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            plan,
            app,
            runtime_dir,
            fleet,
            cgroup,
            cgroup_path,
            pins,
            capture,
            steering,
            output,
            state_file,
            probing,
            news,
            started_at,
            file_limit,
            migration_wakes,
            executable,
        } = parts;
        Self {
            plan,
            app,
            runtime_dir,
            fleet,
            cgroup,
            cgroup_path,
            pins,
            capture,
            steering,
            output,
            state_file,
            probing,
            news,
            started_at,
            file_limit,
            migration_wakes,
            executable,
            running: HashMap::new(),
            started: Instant::now(),
            looks: Looks::default(),
            pending: HashMap::new(),
            next_ticket: 0,
            staged: None,
            replaced: None,
            service: Service::from_environment(),
            stop_calls: Vec::new(),
            upgrade: None,
            tallies: Tallies::default(),
            fatal: None,
            last_words: None,
            outcome: None,
            announcement: Announcement::Waiting,
            events_lost: 0,
            behind: false,
            strangers_told: HashSet::new(),
            flush_at: None,
            unsaved_told: false,
        }
    }

    /// Tells the fleet what happened, and does what follows from it.
    pub(super) fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let effects = self.fleet.step(self.started.elapsed(), event);
            if self.fleet.is_stopping()
                && self.steering.holds()
                && let Err(failure) = self.steering.stop_holding()
            {
                warn!("{}: {}", failure.what, failure.why);
            }
            for effect in effects {
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
            Effect::Steer(workers) => self.steer(&workers),
            Effect::Signal(worker) => {
                self.announce_shutdown(worker);
                if let Some(running) = self.running.get(&worker) {
                    running.cgroup.signal(running.stop_signal);
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
            Effect::Answer { ticket, answer } => {
                self.answer(ticket, answer);
                None
            }
            Effect::Quit(outcome) => {
                self.outcome = Some(outcome);
                None
            }
        }
    }

    fn steer(&mut self, workers: &[WorkerId]) -> Option<Event> {
        self.steering.set_slots(self.fleet.workers_wanted());
        self.steering.set_weights(self.fleet.weights());
        let served = self.is_serving();
        let ailing = self.fleet.views().into_iter();
        let ailing = ailing
            .filter(|view| matches!(view.state, State::Unhealthy | State::Stalled))
            .map(|view| view.worker);
        let failure = self.steering.set_ready(workers, ailing).err()?;
        // What was steered to goes on getting connections until the next try succeeds.
        self.fail_unless(served, failure)
    }

    /// Something has failed that is tried again later: that is the end only if nobody serves.
    pub(super) fn fail_unless(&mut self, serving: bool, failure: Failure) -> Option<Event> {
        if serving || self.fleet.is_stopping() {
            warn!("{}: {}", failure.what, failure.why);
            return None;
        }
        Some(self.fail(failure))
    }

    /// Going on would be wrong: remembers why, for the end.
    pub(super) fn fail(&mut self, failure: Failure) -> Event {
        let reason = format!("{}: {}", failure.what, failure.why);
        self.fatal.get_or_insert(failure);
        Event::Fatal { reason }
    }

    pub(super) fn has_been_ready(&self, worker: WorkerId) -> bool {
        let mut views = self.fleet.views().into_iter();
        // One that is told to go did nothing wrong.
        views.any(|view| view.worker == worker && (view.leaving || view.state.has_been_ready()))
    }

    /// Whether some worker takes connections.
    pub(super) fn is_serving(&self) -> bool {
        !self.steering.ready().is_empty()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.fleet.is_stopping()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let fleet = self.fleet.next_deadline().map(|after| self.started + after);
        let announcement = match self.announcement {
            Announcement::Due(at) => Some(at),
            Announcement::Waiting | Announcement::Made => None,
        };
        let others = [
            announcement,
            self.flush_at,
            self.looks.next(),
            self.service.next(),
            self.probing.next(),
            self.running
                .values()
                .filter_map(|running| running.ready_at)
                .min(),
            self.chatter_due(),
        ];
        fleet.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// The upgrade to be made, if it was asked for.
    pub(super) fn take_upgrade(&mut self) -> Option<Upgrade> {
        self.upgrade.take()
    }

    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        self.outcome.take()
    }

    fn tell(&mut self, notice: &Notice) {
        self.count_notice(notice);
        fleet_log::notice(notice, |worker| self.last_refusal(worker));
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

    /// To be called at each turn of the loop: sees to deadlines that have passed, and to what earlier
    /// turns have left, however much there is to hear.
    pub(super) fn go_on(&mut self) {
        if self.next_deadline().is_some_and(|at| at <= Instant::now()) {
            self.on_deadline();
        }
        if self.behind {
            self.on_captured();
        }
        self.read_on();
        self.conclude_reload();
    }

    /// Whether this turn leaves something for the next.
    pub(super) fn has_more(&self) -> bool {
        self.behind
            || self.replaced.is_some()
            || self.running.values().any(|running| running.unread)
    }

    /// To be called before the loop waits: notes what follows from all that was fed.
    pub(super) fn settle_down(&mut self) {
        let views = self.fleet.views();
        self.note_drains(&views);
        self.note_unlisted();
        self.await_health(&views);
        if self.steering.take_handed_over() {
            self.nudge();
        }
        let mut channels = self
            .running
            .values()
            .filter_map(|running| running.ipc.as_ref());
        self.flush_at = channels.any(|ipc| ipc.channel.wants_write()).then(|| {
            self.flush_at
                .unwrap_or_else(|| Instant::now() + FLUSH_PAUSE)
        });
        let announced = matches!(self.announcement, Announcement::Made);
        self.tell_service(&views, announced);
        self.save();
    }

    /// A deadline has passed: the fleet's, that of the startup line, or one for looking at something.
    fn on_deadline(&mut self) {
        self.check_emptied();
        self.service.ping();
        self.feed(Event::Tick);
        self.stop_waiting_for_sockets();
        self.look();
        self.probe();
        self.tell_chatter();
        if self.flush_at.take_if(|at| *at <= Instant::now()).is_some() {
            for ipc in self
                .running
                .values_mut()
                .filter_map(|running| running.ipc.as_mut())
            {
                if let Err(error) = ipc.channel.flush() {
                    debug!("an IPC channel fails: {error}");
                }
            }
        }
        if let Announcement::Due(at) = self.announcement
            && at <= Instant::now()
        {
            self.announcement = Announcement::Made;
            info!("{}", self.startup_line());
        }
    }

    /// Ends what is left, and says how it went.
    pub(super) fn finish(mut self, outcome: Outcome) -> Result<Exit, Failure> {
        self.service.stop();
        let remembered = self.steering.remember();
        let Self {
            output,
            stop_calls,
            fatal,
            last_words,
            plan,
            runtime_dir,
            pins,
            capture,
            steering,
            ..
        } = self;
        drop((capture, steering));
        if let Some(Err(error)) = pins.map(Pins::remove) {
            warn!("the pins could not be removed: {error}");
        }
        output.finish();
        if matches!(outcome, Outcome::Stopped) {
            Listened::new(&plan, &remembered).write(&runtime_dir, &plan.name);
        }
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
                let words =
                    last_words.map_or_else(String::new, |(worker, lines)| quote(worker, &lines));
                Err(Failure::new(
                    format!("gave up: {} never became ready", plan.name),
                    format_args!(
                        "slot {} failed {failures} times in a row, last of {last}{words}",
                        worker.slot
                    ),
                    match last {
                        Cause::Exited(_) => "start the command by hand to see why it ends",
                        Cause::NotReady(_) => {
                            "see what the workers wait for, or give them longer (--ready-timeout)"
                        }
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

/// What a worker wrote last, as the end of a sentence.
pub(super) fn quote(worker: WorkerId, lines: &[String]) -> String {
    if lines.is_empty() {
        return format!("; worker {worker} wrote nothing to stderr");
    }
    format!(
        "; the last lines of worker {worker}:\n    {}",
        lines.join("\n    ")
    )
}
