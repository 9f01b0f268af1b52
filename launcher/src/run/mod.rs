//! The event loop: the only place where the fleet's state meets system calls.
//!
//! ```text
//!   signals ─┐                                    ┌─▶ spawn, signal, kill   (sys)
//!   exits   ─┤                                    ├─▶ tables                (steer)
//!   sockets ─┼─▶ Event ─▶ Fleet::step ─▶ Effects ─┼─▶ notices               (tracing)
//!   control ─┤                                    └─▶ quit
//!   deadline ┘
//! ```

mod apps;
mod children;
mod fleet_log;
mod handed;
mod launcher;
mod looks;
mod metrics;
mod news;
mod open;
mod policies;
mod probing;
mod relay;
mod reload;
mod remember;
mod requests;
mod service;
mod signals;
mod snapshot;
mod sockets;
mod stale;
mod strangers;
mod takeover;
mod upgrade;
mod worker;

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::process::Rlimit;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::warn;

pub use self::{
    apps::{follow_supervisor, supervise},
    signals::hold_back as hold_back_signals,
    upgrade::{CHECK_VERB, CHECKED},
};
use self::{
    handed::Inherited,
    launcher::{Launcher, Parts},
    probing::Probing,
    remember::{Listened, StateFile},
    signals::Signals,
    takeover::Legacy,
};
use crate::{
    capture::Capture,
    config::{App, Plan, Ready},
    control::server::Server,
    failure::{Exit, Failure},
    fleet::{Event, Fleet, Settings, placement::Pinning, restart},
    output::{LogFile, Output, Sockets},
    policy::Cpu,
    steer::{self, Object, Steering},
    sys::{
        self,
        cgroup::FleetCgroup,
        hierarchy::Hierarchy,
        identity::Identity,
        pins::Pins,
        privilege, process,
        readable::Readable,
        runtime::{Lock, RuntimeDir},
        wakeup::migration_wakes,
    },
};

/// How long a worker may run without listening before that is worth a word.
const LISTEN_WARNING: Duration = Duration::from_secs(10);

/// How often what no event tells is looked at: sockets that closed, binds that came to nothing.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// Runs a plan to its end; `app` is where it comes from, which is read again at each reload.
///
/// # Errors
/// When it can't be started, or ended otherwise than as asked.
pub fn run(plan: Plan, app: App, runtime_dir: RuntimeDir) -> Result<Exit, Failure> {
    // First of all: what runs into the limit of open files fails in many strange ways.
    let file_limit = process::raise_file_limit(plan.workers)?;
    // One thread: nothing here is worth a second one.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start the event loop", &error))?
        .block_on(serve(plan, app, runtime_dir, file_limit))
}

/// Checks what can be known of a plan only with the privileges to run it: a steering object, a log
/// file.
///
/// # Errors
/// When it can't be used.
pub fn check(plan: &Plan) -> Result<(), Failure> {
    check_log_file(plan)?;
    steering_object(plan).map(|_| ())
}

fn check_log_file(plan: &Plan) -> Result<(), Failure> {
    plan.output.file.as_ref().map_or(Ok(()), LogFile::check)
}

/// The user's own steering object, if there is one to be.
fn steering_object(plan: &Plan) -> Result<Option<Object>, Failure> {
    let Some(path) = &plan.steer_object else {
        return Ok(None);
    };
    let object = Object::open(path)?;
    if plan.recycle.max_connections.is_some() && !object.counts() {
        return Err(Failure::new(
            "cannot replace workers after --max-connections",
            "the object of --steer-object has no map COUNTERS, so nothing counts them",
            "have it count, or leave --max-connections out",
        )
        .exit(Exit::Usage));
    }
    Ok(Some(object))
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::io(
        format!("cannot {what}"),
        "it",
        error,
        "look at the limits of this process (ulimit -n, memory) and try again",
    )
}

async fn serve(
    plan: Plan,
    app: App,
    runtime_dir: RuntimeDir,
    file_limit: Rlimit,
) -> Result<Exit, Failure> {
    // The first of all: until they are handled, each of them would end us.
    let mut signals = Signals::new().map_err(|error| failed("handle signals", &error))?;
    privilege::check(plan.identity.as_ref().is_some_and(Identity::is_other_user))?;
    // Before anything is touched: another launcher's workers are none of its errors' business.
    let object = steering_object(&plan)?;
    check_log_file(&plan)?;
    runtime_dir.prepare()?;
    process::become_subreaper().map_err(|error| failed("become the reaper of orphans", &error))?;
    let mut legacy = Legacy::read(&runtime_dir, &plan.name);
    let mut inherited = legacy.as_mut().map(Legacy::inherit).unwrap_or_default();
    let file_limit = inherited.file_limit().unwrap_or(file_limit);
    let hierarchy = Hierarchy::find()?;
    let (lock, cgroup) = lock(&plan, &runtime_dir, &hierarchy, &mut inherited)?;
    // Before any worker is started, or stopped: the port may be taken.
    let is_own = legacy.as_ref().is_some_and(|legacy| legacy.is_own);
    let bound = metrics::open(plan.metrics.as_ref(), &mut inherited, is_own)?;
    if plan.recycle.max_memory.is_some() {
        cgroup.enable_memory();
    }
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut pins = pins(&plan, &hierarchy, &cgroup, &mut legacy);
    let listened = match &legacy {
        // It was killed, and could not write it down.
        Some(legacy) => Listened::new(&plan, &legacy.state.fleet.steering),
        None => Listened::read(&runtime_dir, &plan.name),
    };
    let legacy = legacy.filter(Legacy::goes_on);
    let directory = pins.as_ref().map(|pins| pins.path().to_owned());

    let capture = Capture::start(
        &cgroup,
        &plan.ports,
        plan.verbose >= 2,
        directory.as_deref(),
    )?;
    let slots = match &legacy {
        // It may have been scaled since it was started.
        Some(legacy) if legacy.is_own && legacy.was_given(plan.workers) => legacy.state.fleet.slots,
        _ => plan.workers,
    };
    let settings = steer::Settings {
        policies: legacy
            .as_ref()
            .map_or(plan.policies, |legacy| legacy.policies(plan.policies)),
        object,
        slots,
        weights: legacy.as_ref().map(Legacy::weights).unwrap_or_default(),
        cpus: cpus(&plan),
        hold: plan.hold,
        early: plan.ready != Ready::Listen,
        flow_timeout: plan.udp_flow_timeout,
        flows: plan.udp_flows,
        pins: directory,
    };
    let remembered = legacy.as_ref().map(|legacy| &legacy.state.fleet.steering);
    let place = cgroup.directory().try_clone();
    let place = place.map_err(|error| failed("keep the fleet's cgroup open", &error))?;
    let mut steering = Steering::new(settings, place, capture.marker(), remembered)?;
    let holding = inherited.holding();
    match &legacy {
        Some(legacy) => {
            steering.resume(&legacy.state.fleet.steering, legacy.ready(), holding)?;
        }
        None => {
            // Where they are, somebody would seem to listen.
            drop(holding);
            listened.hold(&plan, &mut steering)?;
        }
    }
    let sockets = Sockets {
        directory: runtime_dir.clone(),
        name: plan.name.clone(),
    };
    let output = Output::start(plan.output.clone(), sockets);
    let output = output.map_err(|error| failed("start the output process", &error))?;

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
    let server = match inherited.control.take() {
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
    let (scrapes, mut scraped) = mpsc::channel(32);
    let scraping = metrics::serve(bound, scrapes);
    let scraping = scraping.map_err(|error| failed("serve metrics", &error))?;
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let settings = fleet_settings(&plan, slots);
    let fleet = match &legacy {
        Some(legacy) => legacy.fleet(settings),
        None => Fleet::new(settings),
    };
    let executable =
        upgrade::own_executable().map_err(|error| failed("find this executable", &error))?;
    // Nothing fails any more before there are workers.
    if let Some(pins) = &mut pins {
        pins.stay();
    }
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
        executable,
        runtime_dir,
        plan,
        app,
    });
    match &legacy {
        Some(legacy) => launcher.take_over(legacy, inherited),
        None => {
            drop(inherited);
            launcher.feed(Event::Start);
        }
    }
    launcher.tell_of_policies();
    // Children may have ended before there was somebody to tell.
    launcher.on_children();
    let outcome = loop {
        launcher.go_on();
        launcher.settle_down();
        if let Some(outcome) = launcher.take_outcome() {
            break outcome;
        }
        if let Some(upgrade) = launcher.take_upgrade() {
            launcher
                .go_over(upgrade, &mut signals, &lock, &server, scraping.as_ref())
                .await;
            continue;
        }
        let deadline = launcher.next_deadline();
        // In no fixed order: who always has something to say keeps nobody else waiting.
        tokio::select! {
            request = signals.next() => launcher.on_signal(request),
            Some(call) = called.recv() => launcher.on_call(call),
            Some(call) = scraped.recv() => launcher.on_scrape(call),
            Some(news) = told.recv() => launcher.on_news(news),
            Some(news) = probed.recv() => launcher.on_probed(news),
            ready = captured.ready() => {
                ready.map_err(waiting)?;
                launcher.on_captured();
            }
            ready = logged(log.as_ref()) => {
                ready.map_err(waiting)?;
                launcher.on_logged();
            }
            // Both are for the next turn to see to.
            () = tokio::task::yield_now(), if launcher.has_more() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            _ = housekeeping.tick() => launcher.keep_house(),
        }
    };
    let result = launcher.finish(outcome);
    drop((called, scraped, scraping));
    server.close().await;
    drop(lock);
    result
}

/// The lock of the name and the fleet's cgroup, which is locked too: taken, or kept by a launcher
/// that has replaced itself.
fn lock(
    plan: &Plan,
    runtime_dir: &RuntimeDir,
    hierarchy: &Hierarchy,
    inherited: &mut Inherited,
) -> Result<(Lock, FleetCgroup), Failure> {
    if let (Some(lock), Some(cgroup)) = (inherited.lock.take(), inherited.cgroup.take())
        && let Ok(cgroup) = hierarchy.resume_fleet(plan.name.as_str(), cgroup)
    {
        return Ok((Lock::from(lock), cgroup));
    }
    Ok((
        Lock::acquire(runtime_dir, &plan.name)?,
        hierarchy.create_fleet(plan.name.as_str())?,
    ))
}

/// Where this launcher pins, unless nothing of it could be gone on with; and clears away what can't be gone on with.
fn pins(
    plan: &Plan,
    hierarchy: &Hierarchy,
    cgroup: &FleetCgroup,
    legacy: &mut Option<Legacy>,
) -> Option<Pins> {
    if cgroup.is_shared() {
        warn!(
            "no cgroup can be made here (the file system is read-only): the workers are told apart \
             by whose children they are, and end with this launcher"
        );
        return None;
    }
    let mut pins = Pins::prepare(plan.name.as_str(), cgroup.id());
    if let (Ok(pins), Some(legacy)) = (&pins, legacy.as_mut()) {
        legacy.find_workers(plan, hierarchy, cgroup, pins.path());
    }
    stale::clear(plan, legacy.as_ref(), hierarchy, cgroup);
    let left = legacy
        .as_ref()
        .and_then(|legacy| legacy.state.fleet.pins.as_deref());
    let own = pins.as_ref().ok().map(Pins::path);
    if let Some(left) = left
        .filter(|left| Some(*left) != own)
        .and_then(Pins::left_behind)
        && let Err(error) = left.remove()
    {
        warn!("what an earlier launcher had pinned could not be removed: {error}");
    }
    if legacy.as_ref().is_some_and(Legacy::goes_on) {
        if let Ok(pins) = &mut pins {
            pins.stay();
        }
    } else {
        pins = pins.and_then(|pins| {
            pins.remove()?;
            Pins::prepare(plan.name.as_str(), cgroup.id())
        });
    }
    pins.inspect_err(|error| {
        warn!(
            "no bpffs can be used ({error}): should this launcher be killed, the next one will \
             stop its workers instead of taking them over"
        );
    })
    .ok()
}

/// The CPUs of the machine, and those that the slots are pinned to.
fn cpus(plan: &Plan) -> steer::Cpus {
    let machine = sys::cpus::topology(Path::new("/")).into_iter();
    let pinned = match &plan.pinning {
        Pinning::None => Vec::new(),
        Pinning::Auto => plan.cpus.clone(),
        Pinning::List(list) => list.clone(),
    };
    steer::Cpus {
        machine: machine
            .map(|(id, node, package, core)| Cpu {
                id,
                node,
                package,
                core,
            })
            .collect(),
        pinned,
    }
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
