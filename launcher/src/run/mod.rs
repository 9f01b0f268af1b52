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
mod signals;
mod snapshot;
mod sockets;
mod stale;
mod strangers;

use std::{
    io,
    time::{Duration, SystemTime},
};

use rustix::process::Rlimit;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{launcher::Launcher, signals::Signals, stale::StateFile};
use crate::{
    capture::Capture,
    config::Plan,
    control::server::Server,
    failure::{Exit, Failure},
    fleet::Event,
    output::Output,
    steer::Steering,
    sys::{
        hierarchy::Hierarchy,
        identity::Identity,
        privilege, process,
        readable::Readable,
        runtime::{Lock, RuntimeDir, State},
    },
};

/// How often what no event tells is looked at: sockets that closed, binds that came to nothing.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Runs a plan to its end.
///
/// # Errors
/// When it can't be started, or ended otherwise than as asked.
pub fn run(plan: Plan, runtime_dir: RuntimeDir) -> Result<Exit, Failure> {
    // First of all: what runs into the limit of open files fails in many strange ways.
    let file_limit = process::raise_file_limit(plan.workers)?;
    // One thread: nothing here is worth a second one.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start the event loop", &error))?
        .block_on(serve(plan, runtime_dir, file_limit))
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::io(
        format!("cannot {what}"),
        "it",
        error,
        "look at the limits of this process (ulimit -n, memory) and try again",
    )
}

async fn serve(plan: Plan, runtime_dir: RuntimeDir, file_limit: Rlimit) -> Result<Exit, Failure> {
    privilege::check(plan.identity.as_ref().is_some_and(Identity::is_other_user))?;
    runtime_dir.prepare()?;
    let _lock = Lock::acquire(&runtime_dir, &plan.name)?;
    process::become_subreaper().map_err(|error| failed("become the reaper of orphans", &error))?;
    let hierarchy = Hierarchy::find()?;
    let before = State::read(&runtime_dir, &plan.name).ok().flatten();
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let _state = StateFile::write(&plan, &runtime_dir, &hierarchy, &started_at)?;
    let cgroup = hierarchy.create_fleet(plan.name.as_str())?;
    stale::clear(&plan, before.as_ref(), &hierarchy, &cgroup);
    let capture = Capture::start(&cgroup, &plan.ports, plan.ebpf_log)?;
    let steering = Steering::new(plan.policy, plan.workers)?;
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
    let socket = runtime_dir.socket(&plan.name);
    let server = Server::bind(&socket, calls).map_err(|error| {
        Failure::io(
            format!("cannot open the control socket {}", socket.display()),
            "it",
            &error,
            "choose another directory (--runtime-dir) or a shorter name (--name)",
        )
    })?;
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut launcher = Launcher::new(
        plan, cgroup, capture, steering, output, started_at, file_limit,
    );
    launcher.feed(Event::Start);
    let outcome = loop {
        if let Some(outcome) = launcher.take_outcome() {
            break outcome;
        }
        let deadline = launcher.next_deadline();
        tokio::select! {
            biased;
            request = signals.next() => launcher.on_signal(request),
            Some(call) = called.recv() => launcher.on_call(call),
            () = std::future::ready(()), if launcher.behind => launcher.on_captured(),
            ready = captured.ready() => {
                ready.map_err(waiting)?;
                launcher.on_captured();
            }
            ready = logged(log.as_ref()) => {
                ready.map_err(waiting)?;
                launcher.on_logged();
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                launcher.on_deadline();
            }
            _ = housekeeping.tick() => launcher.keep_house(),
        }
    };
    let result = launcher.finish(outcome);
    drop(called);
    server.close().await;
    result
}

/// Waits until the eBPF log can be read; for ever when there is none.
async fn logged(log: Option<&Readable>) -> io::Result<()> {
    match log {
        Some(log) => log.ready().await,
        None => std::future::pending().await,
    }
}
