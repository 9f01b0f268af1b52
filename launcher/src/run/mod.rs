//! The event loop: the only place where the fleet's state meets system calls.
//!
//! ```text
//!   signals ─┐                                    ┌─▶ spawn, signal, kill   (sys)
//!   exits   ─┤                                    ├─▶ tables                (steer)
//!   sockets ─┼─▶ Event ─▶ Fleet::step ─▶ Effects ─┼─▶ notices               (tracing)
//!   control ─┤                                    └─▶ quit
//!   deadline ┘
//! ```

mod children;
mod fleet_log;
mod launcher;
mod snapshot;
mod sockets;
mod strangers;

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

use self::launcher::Launcher;
use crate::{
    capture::Capture,
    config::Plan,
    control::server::Server,
    failure::{Exit, Failure},
    fleet::{Event, StopMode},
    output::Output,
    steer::Steering,
    sys::{
        cgroup::FleetCgroup,
        hierarchy::Hierarchy,
        process,
        readable::Readable,
        runtime::{Lock, Name, RuntimeDir, State},
    },
};

/// How often what no event tells is looked at: sockets that closed, binds that came to nothing.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Runs a plan to its end.
///
/// # Errors
/// When it can't be started, or ended otherwise than as asked.
pub fn run(plan: Plan, runtime_dir: RuntimeDir) -> Result<Exit, Failure> {
    // One thread: nothing here is worth a second one, and between fork and exec there must be
    // none.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start the event loop", &error))?
        .block_on(serve(plan, runtime_dir))
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(
        format!("cannot {what}"),
        error,
        "look at the limits of this process (ulimit -n, memory) and try again",
    )
}

async fn serve(plan: Plan, runtime_dir: RuntimeDir) -> Result<Exit, Failure> {
    runtime_dir.prepare()?;
    let _lock = Lock::acquire(&runtime_dir, &plan.name)?;
    process::become_subreaper().map_err(|error| failed("become the reaper of orphans", &error))?;
    let hierarchy = Hierarchy::find()?;
    clear_stale(&plan, &runtime_dir, &hierarchy);
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let _state = StateFile::write(&plan, &runtime_dir, &hierarchy, &started_at)?;
    let cgroup = hierarchy.create_fleet(plan.name.as_str())?;
    let capture = Capture::start(&cgroup, &plan.ports, plan.ebpf_log)?;
    let steering = Steering::new(plan.policy)?;
    let output = Output::start().map_err(|error| failed("start the output process", &error))?;

    let mut signals = Signals::new().map_err(|error| failed("handle signals", &error))?;
    let waiting = |error| failed("wait for eBPF events", &error);
    let captured = Readable::new(capture.events()).map_err(waiting)?;
    let log = capture
        .log()
        .map(Readable::new)
        .transpose()
        .map_err(waiting)?;
    let (calls, mut called) = mpsc::channel(64);
    let server = Server::bind(&runtime_dir.socket(&plan.name), calls)
        .map_err(|error| failed("open the control socket", &error))?;
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut launcher = Launcher::new(plan, cgroup, capture, steering, output, started_at);
    launcher.feed(Event::Start);
    let outcome = loop {
        launcher.settle();
        if let Some(outcome) = launcher.take_outcome() {
            break outcome;
        }
        let deadline = launcher.next_deadline();
        tokio::select! {
            biased;
            request = signals.next() => launcher.on_signal(request),
            ready = captured.ready() => {
                ready.map_err(waiting)?;
                launcher.on_captured();
            }
            ready = logged(log.as_ref()) => {
                ready.map_err(waiting)?;
                launcher.on_logged();
            }
            Some(call) = called.recv() => launcher.on_call(call),
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                launcher.feed(Event::Tick);
            }
            _ = housekeeping.tick() => launcher.keep_house(),
        }
    };
    let result = launcher.finish(outcome);
    drop(called);
    server.close().await;
    result
}

/// The state file, which tells the next launcher what to clear away should this one be killed.
struct StateFile<'a> {
    directory: &'a RuntimeDir,
    name: Name,
}

impl<'a> StateFile<'a> {
    fn write(
        plan: &Plan,
        directory: &'a RuntimeDir,
        hierarchy: &Hierarchy,
        started_at: &str,
    ) -> Result<Self, Failure> {
        let state = State {
            pid: std::process::id(),
            cgroup: hierarchy
                .fleet_path(plan.name.as_str())
                .to_string_lossy()
                .into_owned(),
            started_at: started_at.to_owned(),
            name: plan.name.to_string(),
        };
        state
            .write(directory, &plan.name)
            .map_err(|error| failed("write the state file", &error))?;
        Ok(Self {
            directory,
            name: plan.name.clone(),
        })
    }
}

impl Drop for StateFile<'_> {
    fn drop(&mut self) {
        if let Err(error) = State::remove(self.directory, &self.name) {
            warn!("the state file could not be removed: {error}");
        }
    }
}

/// Waits until the eBPF log can be read; for ever when there is none.
async fn logged(log: Option<&Readable>) -> io::Result<()> {
    match log {
        Some(log) => log.ready().await,
        None => std::future::pending().await,
    }
}

/// What a launcher that was killed has left: its workers still run, and hold the ports.
fn clear_stale(plan: &Plan, runtime_dir: &RuntimeDir, hierarchy: &Hierarchy) {
    let state = State::read(runtime_dir, &plan.name).ok().flatten();
    let recorded = state.as_ref().map(|state| PathBuf::from(&state.cgroup));
    let own = hierarchy.fleet_path(plan.name.as_str());
    let mut paths = vec![own];
    paths.extend(recorded.filter(|path| *path != paths[0]));
    let who = state.map_or_else(String::new, |state| format!(" (pid {})", state.pid));
    let fleets: Vec<FleetCgroup> = paths
        .iter()
        .filter_map(|path| hierarchy.left_behind(path))
        .collect();
    for fleet in fleets {
        let workers = fleet.workers().unwrap_or_default();
        let running = workers.iter().filter(|worker| worker.populated()).count();
        warn!(
            "a launcher named {}{who} was killed; stopping the {running} workers it left and removing its cgroup",
            plan.name
        );
        for worker in &workers {
            worker.signal(plan.stop_signal);
        }
        let deadline = std::time::Instant::now() + plan.stop_timeout;
        for worker in &workers {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if !worker.wait_until_empty(left) {
                worker.kill();
                // Bounded: an unkillable process must not keep us from starting.
                let _ = worker.wait_until_empty(Duration::from_secs(5));
            }
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// A child has ended.
    Reap,
    /// TERM.
    Stop,
    /// INT: the second one means now.
    Interrupt,
    /// QUIT.
    StopNow,
    /// HUP.
    HangUp,
    /// A signal that other process managers act on and this one does not.
    Unused(&'static str),
}

/// The signals that the launcher handles.
struct Signals {
    all: Vec<(Signal, Request)>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let handled = [
            (SignalKind::child(), Request::Reap),
            (SignalKind::terminate(), Request::Stop),
            (SignalKind::interrupt(), Request::Interrupt),
            (SignalKind::quit(), Request::StopNow),
            (SignalKind::hangup(), Request::HangUp),
            (SignalKind::user_defined1(), Request::Unused("USR1")),
            (SignalKind::user_defined2(), Request::Unused("USR2")),
        ];
        let all = handled
            .into_iter()
            .map(|(kind, request)| Ok((signal(kind)?, request)))
            .collect::<io::Result<_>>()?;
        Ok(Self { all })
    }

    async fn next(&mut self) -> Request {
        std::future::poll_fn(|context| {
            for (signal, request) in &mut self.all {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*request);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

impl Launcher {
    fn on_signal(&mut self, request: Request) {
        match request {
            Request::Reap => self.on_children(),
            Request::Stop => self.stop(StopMode::Graceful, "TERM"),
            Request::Interrupt if self.is_stopping() => self.stop(StopMode::Now, "a second INT"),
            Request::Interrupt => self.stop(StopMode::Graceful, "INT"),
            Request::StopNow => self.stop(StopMode::Now, "QUIT"),
            // The terminal is gone, and with it whoever started us by hand.
            Request::HangUp if process::is_terminal(&io::stdin()) => {
                self.stop(StopMode::Graceful, "the terminal's hang-up");
            }
            Request::HangUp => warn!("HUP is ignored: this version has no reload"),
            Request::Unused(name) => warn!("{name} is ignored: it has no meaning in this version"),
        }
    }

    fn stop(&mut self, mode: StopMode, why: &str) {
        match mode {
            StopMode::Graceful => info!("stopping, because of {why}"),
            StopMode::Now => info!("killing the workers, because of {why}"),
        }
        self.feed(Event::Stop(mode));
    }
}
