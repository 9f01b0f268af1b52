//! The launcher replaces its own executable: the same process goes on as another version, and takes
//! its workers over from itself.

use std::{
    env,
    ffi::{CString, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::unistd::execve;
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    handed::Handed,
    launcher::Launcher,
    news::{Ipc, Notify},
    signals::{HeldBack, Request, Signals},
    takeover::{REPLACES, are_there},
};
use crate::{
    control::{protocol::Response, server::Server},
    failure::Failure,
    fleet::Refusal,
    scrape,
    sys::{inherit, program::find_program, runtime::Lock},
};

/// The hidden first argument that makes the executable check the rest, as a later launcher would
/// understand it, and end.
pub const CHECK_VERB: &str = "__check";

/// What it says if it could go on with them: another program might end well without it.
pub const CHECKED: &str = "reuseport-launch accepts this command line";

/// How much of what it says is looked at, in bytes.
const SAID_MAX: usize = 4096;

/// How long the other version may take for that.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A failure, and the reply that it is for.
pub(super) type Refused = (Failure, Option<oneshot::Sender<Response>>);

/// An upgrade to be made.
#[derive(Debug)]
pub(super) struct Upgrade {
    executable: PathBuf,
    reply: Option<oneshot::Sender<Response>>,
    /// From before the check on: what comes meanwhile is for the other version.
    held_back: HeldBack,
}

impl Launcher {
    /// Makes sure that the other version can go on, and has the event loop go over to it. The reply
    /// is dropped, unanswered, when the launcher goes over.
    pub(super) fn prepare_upgrade(
        &mut self,
        reply: Option<oneshot::Sender<Response>>,
    ) -> Result<(), Refused> {
        let held_back = HeldBack::new();
        match self.check_upgrade() {
            Ok(executable) => {
                info!("going over to {}", executable.display());
                self.upgrade = Some(Upgrade {
                    executable,
                    reply,
                    held_back,
                });
                Ok(())
            }
            Err(failure) => Err((failure, reply)),
        }
    }

    /// Goes over to the other version. Returns only when that fails, or something else came first.
    pub(super) async fn go_over(
        &mut self,
        upgrade: Upgrade,
        signals: &mut Signals,
        lock: &Lock,
        control: &Server,
        scraping: Option<&scrape::Server>,
    ) {
        let Upgrade {
            executable,
            reply,
            held_back,
        } = upgrade;
        let mut come = signals.come().await;
        // The other version looks after children by itself.
        come.retain(|request| !matches!(request, Request::Reap | Request::Upgrade));
        let failure = if come.is_empty() {
            let failure = self.exec(&executable, lock, control, scraping);
            drop(held_back);
            // One that has ended may have been among what came.
            self.on_children();
            failure
        } else {
            // No worker may be started while they are held back: it would never see its stop signal.
            drop(held_back);
            self.on_children();
            for request in come {
                self.on_signal(request);
            }
            match self.may_upgrade() {
                Ok(()) => {
                    self.upgrade = Some(Upgrade {
                        executable,
                        reply,
                        held_back: HeldBack::new(),
                    });
                    return;
                }
                Err(failure) => failure,
            }
        };
        warn!("{}: {}", failure.what, failure.why);
        if let Some(reply) = reply {
            let _ = reply.send(failure.into());
        }
    }

    fn check_upgrade(&self) -> Result<PathBuf, Failure> {
        self.may_upgrade()?;
        self.check_name()?;
        let executable = self.executable.clone();
        match check(&executable) {
            Ok(()) => Ok(executable),
            Err(why) => Err(Failure::new(
                self.cannot_upgrade(),
                format_args!(
                    "{} does not accept this command line: {why}",
                    executable.display()
                ),
                "put a working version of reuseport-launch there; this one goes on",
            )),
        }
    }

    /// The other version finds what is passed on by the name, which the file may have changed. (What
    /// else may be wrong with the file is for the other version to say.)
    fn check_name(&self) -> Result<(), Failure> {
        let plan = self.app.reread().and_then(|app| app.plan());
        match plan {
            Ok(plan) if plan.name != self.plan.name => Err(Failure::new(
                self.cannot_upgrade(),
                format_args!("the configuration calls it {} by now", plan.name),
                format!(
                    "call it {} there, or stop it and start it anew",
                    self.plan.name
                ),
            )),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn may_upgrade(&self) -> Result<(), Failure> {
        let what = self.cannot_upgrade();
        if self.is_stopping() {
            return Err(Failure::new(what, "it is stopping", "nothing to do"));
        }
        if let Some(operation) = self.fleet.operation() {
            return Err(Failure::new(
                what,
                Refusal::Busy(operation),
                "ask again when it is done",
            ));
        }
        if self.cgroup.is_shared() {
            return Err(Failure::new(
                what,
                "its workers have no cgroups of their own, by which they would be found again",
                "stop it and start the other version",
            ));
        }
        let Some(pins) = &self.pins else {
            return Err(Failure::new(
                what,
                "no bpffs can be written to, so the programs would not outlive it",
                "mount one: mount -t bpf bpf /sys/fs/bpf",
            ));
        };
        if !are_there(pins.path(), &self.state(None).fleet) {
            return Err(Failure::new(
                what,
                format_args!(
                    "what it had pinned to the bpffs is gone from {}",
                    pins.path().display()
                ),
                "stop it and start the other version: its workers can't be kept",
            ));
        }
        Ok(())
    }

    fn cannot_upgrade(&self) -> String {
        format!("cannot upgrade the launcher {}", self.plan.name)
    }

    /// Returns only when it fails; then nothing has changed.
    fn exec(
        &mut self,
        executable: &Path,
        lock: &Lock,
        control: &Server,
        scraping: Option<&scrape::Server>,
    ) -> Failure {
        let failed = |error: &io::Error| {
            Failure::io(
                "cannot go over to another version",
                executable.display(),
                error,
                "this one goes on",
            )
        };
        // Dropping them closes them.
        let (handed, _open) = match self.hand_on(lock, control, scraping) {
            Ok(handed) => handed,
            Err(error) => return failed(&error),
        };
        let state = self.state(Some(handed));
        match self.state_file.write(state) {
            Ok(()) => failed(&execute(executable)),
            Err(failure) => failure,
        }
    }

    /// Duplicates what is passed on, so that it stays open through exec.
    fn hand_on(
        &self,
        lock: &Lock,
        control: &Server,
        scraping: Option<&scrape::Server>,
    ) -> io::Result<(Handed, Vec<OwnedFd>)> {
        let mut open = Vec::new();
        let mut pass = |fd: BorrowedFd<'_>| {
            let copy = inherit::hand_on(&fd)?;
            let number = copy.as_raw_fd();
            open.push(copy);
            io::Result::Ok(number)
        };
        let mut handed = Handed::new(
            pass(lock.as_fd())?,
            pass(self.cgroup.directory().as_fd())?,
            pass(control.as_fd())?,
            self.file_limit,
        );
        for (endpoint, socket) in self.steering.holding() {
            let fd = pass(socket.as_fd())?;
            handed.holding.push((endpoint.clone(), fd));
        }
        if let Some(scrape::Server { bound, .. }) = scraping {
            let fd = pass(bound.as_fd())?;
            handed.metrics = Some((bound.address().to_string(), fd));
        }
        for (&worker, running) in &self.running {
            if let Some(Ipc { channel, .. }) = &running.ipc {
                let fd = pass(channel.as_fd())?;
                handed
                    .channels
                    .push((worker, fd, channel.pending().clone()));
            }
            if let Some(Notify { socket, .. }) = &running.notify {
                handed.notify.push((worker, pass(socket.as_fd())?));
            }
        }
        Ok((handed, open))
    }
}

/// The executable that this process runs, by the name that it was started by: where a link in that
/// name leads to another version, or a directory that comes first in PATH has one, that one is meant.
pub(super) fn own_executable() -> io::Result<PathBuf> {
    let path = env::var_os("PATH");
    let named = env::args_os().next().and_then(|name| {
        let directory = env::current_dir().ok()?;
        let found = find_program(&name, &directory, path.as_deref()).ok()?;
        Some(directory.join(found))
    });
    let identity = |file: &Path| file.metadata().map(|file| (file.dev(), file.ino()));
    let running = identity(Path::new("/proc/self/exe"))?;
    match named {
        // Who starts us may have made up any name.
        Some(named) if identity(&named).is_ok_and(|named| named == running) => Ok(named),
        _ => env::current_exe(),
    }
}

/// Replaces the executable of this process. `Command::exec` would change what is done on SIGPIPE, also
/// when it fails.
fn execute(executable: &Path) -> io::Error {
    let replaced = || {
        let path = CString::new(executable.as_os_str().as_bytes())?;
        let arguments: Vec<CString> = env::args_os()
            .map(|word| CString::new(word.into_vec()))
            .collect::<Result<_, _>>()?;
        let mut environment: Vec<CString> = env::vars_os()
            .filter(|(name, _)| name != REPLACES)
            .map(|(mut variable, value)| {
                variable.push("=");
                variable.push(value);
                CString::new(variable.into_vec())
            })
            .collect::<Result<_, _>>()?;
        environment.push(CString::new(format!("{REPLACES}={}", std::process::id()))?);
        io::Result::Ok(execve(&path, &arguments, &environment)?)
    };
    match replaced() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// Has another version look at our command line.
fn check(executable: &Path) -> Result<(), String> {
    run_check(executable).unwrap_or_else(|error| Err(error.to_string()))
}

fn run_check(executable: &Path) -> io::Result<Result<(), String>> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    // Not a pipe, which a child of its own could hold open for ever.
    let said = File::from(memfd_create("check", MemfdFlags::CLOEXEC)?);
    let mut child = Command::new(executable)
        .arg(CHECK_VERB)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?)
        .spawn()?;
    let until = Instant::now() + CHECK_TIMEOUT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill()?;
                child.wait()?;
                let seconds = CHECK_TIMEOUT.as_secs();
                return Ok(Err(format!("no answer in {seconds} s")));
            }
        }
    };
    let mut bytes = [0; SAID_MAX];
    let length = said.read_at(&mut bytes, 0)?;
    let said = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    if status.success() && said.lines().any(|line| line == CHECKED) {
        return Ok(Ok(()));
    }
    Ok(Err(format!("{status}: {}", said.trim())))
}
