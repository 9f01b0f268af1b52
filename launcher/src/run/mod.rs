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
mod looks;
mod news;
mod probing;
mod remember;
mod requests;
mod signals;
mod snapshot;
mod sockets;
mod stale;
mod strangers;
mod takeover;
mod upgrade;

use std::{
    env, io,
    time::{Duration, SystemTime},
};

use rustix::process::Rlimit;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

pub use self::upgrade::CHECK_VERB;
use self::{
    launcher::{Launcher, Parts},
    probing::Probing,
    remember::{Listened, StateFile},
    signals::Signals,
};
use crate::{
    capture::Capture,
    config::{Plan, Ready},
    control::server::Server,
    failure::{Exit, Failure},
    fleet::{Event, Fleet, Settings, restart},
    output::Output,
    steer::{self, Steering},
    sys::{
        cgroup::FleetCgroup,
        hierarchy::Hierarchy,
        identity::Identity,
        inherit,
        pins::Pins,
        privilege, process,
        readable::Readable,
        runtime::{Lock, RuntimeDir, State},
        wakeup::migration_wakes,
    },
};

/// How long a worker may run without listening before that is worth a word.
const LISTEN_WARNING: Duration = Duration::from_secs(10);

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
    process::become_subreaper().map_err(|error| failed("become the reaper of orphans", &error))?;
    let hierarchy = Hierarchy::find()?;
    let before = State::<remember::Fleet>::read(&runtime_dir, &plan.name)
        .ok()
        .flatten();
    let (lock, cgroup) = lock(&plan, &runtime_dir, &hierarchy, before.as_ref())?;
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();

    let pins = Pins::prepare(plan.name.as_str(), cgroup.id());
    let workers = match &pins {
        Ok(pins) => takeover::workers_of(before.as_ref(), &plan, &hierarchy, &cgroup, pins.path()),
        Err(_) => Vec::new(),
    };
    // What can't be gone on with must not be in the way: its pins neither.
    let mut pins = pins;
    stale::clear(&plan, before.as_ref(), &hierarchy, &cgroup, &workers);
    if workers.is_empty() {
        pins = pins.and_then(|pins| {
            pins.remove()?;
            Pins::prepare(plan.name.as_str(), cgroup.id())
        });
    }
    let pins = pins
        .inspect_err(|error| {
            warn!(
                "no bpffs can be used ({error}): should this launcher be killed, the next one \
                 will stop its workers instead of taking them over"
            );
        })
        .ok();
    let directory = pins.as_ref().map(|pins| pins.path().to_owned());

    let capture = Capture::start(&cgroup, &plan.ports, plan.ebpf_log, directory.as_deref())?;
    let slots = match &before {
        // It may have been scaled since it was started, and replaces itself.
        Some(before) if !workers.is_empty() && before.pid == std::process::id() => {
            before.fleet.slots
        }
        _ => plan.workers,
    };
    let settings = steer::Settings {
        policy: plan.policy,
        slots,
        hold: plan.hold,
        early: plan.ready != Ready::Listen,
        pins: directory,
    };
    let handed = before
        .as_ref()
        .filter(|before| before.pid == std::process::id())
        .and_then(|before| before.fleet.handed.as_ref());
    let mut steering = Steering::new(settings, capture.marker())?;
    match &before {
        Some(before) if !workers.is_empty() => {
            let ready = workers
                .iter()
                .filter(|was| was.ready && !was.parked && !was.leaving)
                .map(|was| was.worker);
            let holding = handed.into_iter().flat_map(|handed| &handed.holding);
            let holding = holding
                .filter_map(|(endpoint, fd)| Some((endpoint.clone(), inherit::take(*fd).ok()?)));
            steering.resume(&before.fleet.steering, ready.collect(), holding.collect())?;
        }
        _ => {
            for (endpoint, uid) in Listened::read(&runtime_dir, &plan.name).to_hold(&plan) {
                steering.hold_early(endpoint, *uid)?;
            }
        }
    }
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
    let (news, mut told) = mpsc::channel(64);
    let (probing, mut probed) = Probing::new();
    let socket = runtime_dir.socket(&plan.name);
    let server = match handed.and_then(|handed| inherit::take(handed.control).ok()) {
        Some(kept) => Server::resume(&socket, kept, calls),
        None => Server::bind(&socket, calls),
    };
    let server = server.map_err(|error| {
        Failure::io(
            format!("cannot open the control socket {}", socket.display()),
            "it",
            &error,
            "choose another directory (--runtime-dir) or a shorter name (--name)",
        )
    })?;
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let settings = fleet_settings(&plan, slots);
    let fleet = match &before {
        Some(before) if !workers.is_empty() => Fleet::resume(
            settings,
            takeover::resumed(&workers),
            before.fleet.generations.iter().copied(),
        ),
        _ => Fleet::new(settings),
    };
    let name = plan.name.clone();
    let mut launcher = Launcher::new(Parts {
        fleet,
        cgroup_path: hierarchy
            .fleet_path(plan.name.as_str())
            .to_string_lossy()
            .into_owned(),
        cgroup,
        pins,
        capture,
        steering,
        output,
        state_file: StateFile::new(&runtime_dir, &plan.name),
        probing,
        news,
        started_at,
        file_limit,
        // Where that can't be found out it is taken for lacking: a superfluous wake-up does no harm.
        migration_wakes: migration_wakes().unwrap_or(false),
        executable: env::current_exe().map_err(|error| failed("find this executable", &error))?,
        runtime_dir,
        plan,
    });
    match &before {
        Some(before) if !workers.is_empty() => {
            let count = workers.len();
            if before.pid == std::process::id() {
                info!(
                    "upgraded to version {}: went on with {count} workers",
                    env!("CARGO_PKG_VERSION")
                );
            } else {
                warn!(
                    "took over {count} workers of a launcher that was killed (pid {})",
                    before.pid
                );
            }
            launcher.take_over(&workers, before);
        }
        _ => launcher.feed(Event::Start),
    }
    // Children may have ended before there was somebody to tell.
    launcher.on_children();
    let (outcome, server) = loop {
        launcher.settle_down();
        if let Some(outcome) = launcher.take_outcome() {
            break (outcome, server);
        }
        if let Some((executable, reply)) = launcher.take_upgrade() {
            let failure = launcher.exec(&executable, &lock, &server);
            warn!("{}: {}", failure.what, failure.why);
            if let Some(reply) = reply {
                let _ = reply.send(failure.into());
            }
        }
        let deadline = launcher.next_deadline();
        tokio::select! {
            biased;
            request = signals.next() => launcher.on_signal(request),
            Some(call) = called.recv() => launcher.on_call(call),
            Some(news) = told.recv() => launcher.on_news(news),
            Some(news) = probed.recv() => launcher.on_probed(news),
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
    drop((lock, name));
    result
}

/// The lock of the name and the fleet's cgroup, which is locked too: taken, or kept by a launcher
/// that has replaced itself.
fn lock(
    plan: &Plan,
    runtime_dir: &RuntimeDir,
    hierarchy: &Hierarchy,
    before: Option<&State<remember::Fleet>>,
) -> Result<(Lock, FleetCgroup), Failure> {
    let own = before.filter(|before| before.pid == std::process::id());
    if let Some(handed) = own.and_then(|before| before.fleet.handed.as_ref()) {
        let kept = inherit::take(handed.lock).and_then(|lock| {
            let cgroup = inherit::take(handed.cgroup)?;
            let cgroup = hierarchy.resume_fleet(plan.name.as_str(), cgroup)?;
            Ok((Lock::from(lock), cgroup))
        });
        if let Ok(kept) = kept {
            return Ok(kept);
        }
    }
    Ok((
        Lock::acquire(runtime_dir, &plan.name)?,
        hierarchy.create_fleet(plan.name.as_str())?,
    ))
}

fn fleet_settings(plan: &Plan, workers: u32) -> Settings {
    Settings {
        workers,
        stop_timeout: plan.stop_timeout,
        drain_timeout: plan.drain_timeout,
        ready_timeout: plan.ready_timeout,
        ready_required: plan.ready != Ready::Listen,
        listen_warning: LISTEN_WARNING,
        max_surge: plan.max_surge,
        max_age: plan.recycle.max_age,
        restart: restart::Settings::default(),
        seed: u64::from(std::process::id()),
    }
}

/// Waits until the eBPF log can be read; for ever when there is none.
async fn logged(log: Option<&Readable>) -> io::Result<()> {
    match log {
        Some(log) => log.ready().await,
        None => std::future::pending().await,
    }
}
