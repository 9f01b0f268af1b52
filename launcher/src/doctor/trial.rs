//! A trial run: one worker in a fleet of its own, in a network namespace of its own where that is
//! allowed.

use std::{
    env,
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{
    Pid, PidfdGetfdFlags, Resource, WaitOptions, getrlimit, pidfd_getfd, waitpid,
};

use super::{Area, Check, Rung, State, WORKER_VERB};
use crate::{
    capture::{self, Capture, Ports, Sighting},
    failure::{Exit, Failure},
    steer,
    sys::{
        cgroup::{FleetCgroup, WorkerCgroup, open_pidfd},
        hierarchy::Hierarchy,
        netns,
        pins::Pins,
        process::{Launch, spawn},
    },
    worker::WorkerId,
};

/// How long anything in here may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The worker.
const WORKER: WorkerId = WorkerId {
    slot: 0,
    generation: 1,
};

/// Where it listens in a network namespace of its own.
const PORT: u16 = 8080;

const OLDER: &str = "Linux 5.14 or later with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF is needed";

/// What was tried with the worker, and how it went.
struct Trial {
    capture: Result<(), Failure>,
    /// Whether connections move when their listener goes.
    steering: Result<bool, Failure>,
    kill: Option<io::Result<()>>,
}

/// Tries it, adds what was found, and says which rung of the ladder that comes to. Without the
/// privileges for it (`lacking`) eBPF is not tried.
pub(super) fn run(checks: &mut Vec<Check>, lacking: bool) -> Rung {
    let fleet = cgroup(checks);
    pidfd(checks);
    if lacking {
        let not = Check::new(Area::Kernel, "ebpf", "eBPF", State::Unknown, "not tried");
        checks.push(not.advise("get the privileges first that are missing"));
        return Rung::None;
    }
    for (id, supported) in capture::features::tried()
        .into_iter()
        .chain(steer::features::tried())
    {
        checks.push(feature(id, supported));
    }
    let Some(fleet) = fleet else {
        let why = "not tried, without a cgroup for the worker";
        let trial = Check::new(Area::Kernel, "capture", CAPTURE, State::Unknown, why);
        checks.push(trial.advise("see what is said of the cgroup"));
        return Rung::None;
    };
    let trial = apart(|own_network| attempt(&fleet, own_network));
    let rung = match (&trial.capture, &trial.steering) {
        (Err(_), _) => Rung::None,
        (Ok(()), Err(_)) => Rung::KernelHash,
        (Ok(()), Ok(false)) => Rung::Ebpf,
        (Ok(()), Ok(true)) => Rung::EbpfWithMigration,
    };
    show(checks, &trial);
    if trial.capture.is_ok() && !fleet.is_shared() {
        pins(checks, &fleet);
    }
    rung
}

const CAPTURE: &str = "a worker's socket is captured";

fn show(checks: &mut Vec<Check>, trial: &Trial) {
    let done = |()| "tried with a worker".to_owned();
    checks.push(Check::of(
        Area::Kernel,
        "capture",
        CAPTURE,
        trial.capture.clone().map(done),
    ));
    let steering = "a worker's socket is steered to";
    let migration = "waiting connections move when a worker goes";
    if trial.capture.is_ok() {
        let steered = trial.steering.clone().map(|_| done(()));
        checks.push(Check::of(Area::Kernel, "steering", steering, steered));
    }
    match trial.steering {
        Ok(true) => {
            let found = "as the program decides";
            let check = Check::new(Area::Kernel, "migration", migration, State::Ok, found);
            checks.push(check);
        }
        Ok(false) => {
            let found = "they are reset, and none can be held";
            let check = Check::new(Area::Kernel, "migration", migration, State::Failed, found);
            checks.push(check.advise("Linux 5.14 or later"));
        }
        Err(_) => {}
    }
    if let Some(kill) = &trial.kill {
        let (state, found) = match kill {
            Ok(()) => (State::Ok, "tried with a worker".to_owned()),
            Err(error) => (State::Warn, format!("{error}: process by process instead")),
        };
        let title = "workers are killed as a whole (cgroup.kill)";
        let check = Check::new(Area::Kernel, "cgroup-kill", title, state, found);
        checks.push(check.advise("Linux 5.14 or later"));
    }
}

fn feature(id: &'static str, supported: Result<bool, Failure>) -> Check {
    let title = match id {
        "ring-buffer" => "eBPF ring buffer",
        "socket-storage" => "eBPF socket storage",
        "bind-hooks" => "eBPF programs at bind, of a cgroup",
        "sock-ops" => "eBPF programs at listen, of a cgroup (sock_ops)",
        "array-of-maps" => "eBPF array of maps",
        "socket-array" => "eBPF array of reuseport sockets",
        _ => "eBPF programs that select sockets (sk_reuseport)",
    };
    let found = supported.and_then(|has| match has {
        true => Ok("there".to_owned()),
        false => Err(Failure::new(
            "cannot use it",
            "this kernel does not have it",
            OLDER,
        )),
    });
    Check::of(Area::Kernel, id, title, found)
}

/// Where the fleet would be, and whether it can be.
fn cgroup(checks: &mut Vec<Check>) -> Option<FleetCgroup> {
    let title = "cgroup v2";
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(failure) => {
            checks.push(Check::of(Area::Cgroup, "cgroup-mount", title, Err(failure)));
            return None;
        }
    };
    let own = hierarchy.own_directory();
    let mounted = match hierarchy.is_private() {
        true => "mounted for this process alone".to_owned(),
        false => format!("this process is in {}", own.display()),
    };
    checks.push(Check::of(Area::Cgroup, "cgroup-mount", title, Ok(mounted)));
    let name = format!("doctor-{}", process::id());
    let fleet = hierarchy.create_fleet(&name);
    let title = "cgroups can be made there";
    if fleet.as_ref().is_ok_and(FleetCgroup::is_shared) {
        let found =
            "the file system is read-only, so workers are told apart by whose children they are";
        let check = Check::new(Area::Cgroup, "cgroup-writable", title, State::Warn, found);
        checks.push(check.advise(
            "mount it writable, if one worker's processes must not be mistaken, and workers outlive a \
             killed launcher",
        ));
        return fleet.ok();
    }
    let made = fleet
        .as_ref()
        .map(|_| "a fleet's was made".to_owned())
        .map_err(Failure::clone);
    checks.push(Check::of(Area::Cgroup, "cgroup-writable", title, made));
    let fleet = fleet.ok()?;
    let directory = own.join(format!("reuseport-launch.{name}"));
    let controllers = fs::read_to_string(directory.join("cgroup.controllers"));
    let controllers = controllers.unwrap_or_default();
    let (state, found) = match controllers.trim() {
        list if list.split(' ').any(|one| one == "memory") => (State::Ok, list.to_owned()),
        "" => (State::Warn, "none".to_owned()),
        list => (State::Warn, list.to_owned()),
    };
    let title = "controllers delegated to the fleet";
    let check = Check::new(Area::Cgroup, "cgroup-controllers", title, state, found);
    checks.push(check.advise(
        "without that of memory, --max-memory goes by what the processes have resident, looked at \
         again and again: Delegate=yes, or enable it in cgroup.subtree_control above",
    ));
    Some(fleet)
}

/// Whether a file can be copied out of a process: out of this one.
fn pidfd(checks: &mut Vec<Check>) {
    let copied = File::open("/dev/null").and_then(|file| {
        let own = open_pidfd(process::id())?;
        Ok(pidfd_getfd(
            &own,
            file.as_raw_fd(),
            PidfdGetfdFlags::empty(),
        )?)
    });
    let copied = copied.map(|_| "tried with this process".to_owned());
    let copied = copied.map_err(|error| {
        let hint = "Linux 5.6 or later, and no seccomp filter that forbids it";
        Failure::new("cannot copy sockets", error, hint)
    });
    let title = "sockets are copied out of workers (pidfd_getfd)";
    let check = Check::of(Area::Kernel, "pidfd-getfd", title, copied);
    checks.push(check);
}

/// Whether what is to outlive the launcher can be pinned.
fn pins(checks: &mut Vec<Check>, fleet: &FleetCgroup) {
    let tried = match Pins::can_be_had() {
        Ok(false) => Err("none is mounted at /sys/fs/bpf".to_owned()),
        Err(error) => Err(format!("/sys/fs/bpf: {error}")),
        Ok(true) => Pins::prepare(&format!("doctor-{}", process::id()), fleet.id())
            .map_err(|error| error.to_string())
            .and_then(|pins| {
                let pinned = Capture::start(fleet, &Ports::All, false, Some(pins.path()));
                let pinned = pinned.map(drop).map_err(|failure| failure.why);
                pins.remove().map_err(|error| error.to_string()).and(pinned)
            }),
    };
    let (state, found) = match tried {
        Ok(()) => (State::Ok, "programs were pinned".to_owned()),
        Err(why) => (State::Warn, why),
    };
    let title = "workers outlive a killed launcher (bpffs)";
    let check = Check::new(Area::Kernel, "bpffs", title, state, found);
    checks.push(check.advise("mount -t bpf bpf /sys/fs/bpf, and let this user write there"));
}

/// Runs this in a thread in a network namespace of its own, if one may be made, and tells it whether.
fn apart(work: impl FnOnce(bool) -> Trial + Send) -> Trial {
    thread::scope(|scope| {
        let trial = scope.spawn(|| work(netns::enter_new().is_ok())).join();
        trial.unwrap_or_else(|_| Trial::failed(&broken("it panicked")))
    })
}

fn attempt(fleet: &FleetCgroup, own_network: bool) -> Trial {
    let cgroup = match fleet.create_worker(WORKER) {
        Ok(cgroup) => cgroup,
        Err(error) => return Trial::failed(&broken(error)),
    };
    let started = Capture::start(fleet, &Ports::All, false, None).and_then(|mut capture| {
        capture.watch(WORKER, &cgroup);
        let port = if own_network { Ok(PORT) } else { free_port() };
        let child = port.and_then(|port| start(&cgroup, port)).map_err(broken)?;
        cgroup.started(child).map_err(broken)?;
        Ok((capture, child))
    });
    let (mut capture, child) = match started {
        Ok(started) => started,
        Err(failure) => {
            // At worst the directory stays, empty.
            let _ = cgroup.remove();
            return Trial::failed(&failure);
        }
    };
    let sighted = sighted(&mut capture, &cgroup);
    let steering = match &sighted {
        Ok(socket) => steer::features::try_on(socket),
        Err(failure) => Err(failure.clone()),
    };
    let kill = cgroup.kill_at_once();
    if kill.is_err() {
        cgroup.kill();
    }
    // It was killed, so both end at once.
    let _ = waitpid(Pid::from_raw(child.cast_signed()), WaitOptions::empty());
    let _ = cgroup.wait_until_empty(PATIENCE);
    let _ = cgroup.remove();
    Trial {
        capture: sighted.map(drop),
        steering,
        // Where it has no cgroup of its own there is none to kill.
        kill: (!cgroup.is_shared()).then_some(kill),
    }
}

impl Trial {
    fn failed(failure: &Failure) -> Self {
        Self {
            capture: Err(failure.clone()),
            steering: Err(failure.clone()),
            kill: None,
        }
    }
}

fn broken(why: impl std::fmt::Display) -> Failure {
    let hint = "look at the limits of this process (ulimit -n, ulimit -u, memory) and try again";
    Failure::new("cannot try with a worker", why, hint).exit(Exit::Unavailable)
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn start(cgroup: &WorkerCgroup, port: u16) -> io::Result<u32> {
    let nowhere = || File::options().write(true).open("/dev/null");
    let program = env::current_exe()?;
    spawn(Launch {
        program: &program,
        arguments: &["reuseport-launch", WORKER_VERB, &port.to_string()].map(Into::into),
        environment: &[],
        directory: Path::new("/"),
        cgroup,
        cpus: None,
        identity: None,
        file_limit: getrlimit(Resource::Nofile),
        stdout: nowhere()?.into(),
        stderr: nowhere()?.into(),
        ipc: None,
    })
}

/// Waits until the worker's socket is seen, and returns a copy.
fn sighted(capture: &mut Capture, cgroup: &WorkerCgroup) -> Result<OwnedFd, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let (sightings, more) = capture.read(|worker| (worker == WORKER).then_some(cgroup));
        if let Some(sighting) = sightings.into_iter().next() {
            return match sighting {
                Sighting::Member { socket, .. } => Ok(socket),
                Sighting::Refused { error } => Err(unseen(format!(
                    "an eBPF program may not make a socket shareable: {error}"
                ))),
                Sighting::Unwatched { error, .. } => Err(unseen(format!(
                    "the sock_ops program can't be attached: {error}"
                ))),
                Sighting::Forbidden { .. } => Err(unseen("it may not be copied")),
                Sighting::Taken { address, .. } => {
                    Err(unseen(format!("somebody else has {address}")))
                }
                Sighting::Mptcp { .. } => Err(unseen("it is an MPTCP socket")),
            };
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(unseen("no event has told of it"));
        }
        if !more {
            let mut fds = [PollFd::new(capture.events(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            // When it fails, or was interrupted, the next look finds what there is.
            let _ = poll(&mut fds, timeout);
        }
    }
}

fn unseen(why: impl std::fmt::Display) -> Failure {
    Failure::new("cannot capture a worker's socket", why, OLDER).exit(Exit::Unavailable)
}
