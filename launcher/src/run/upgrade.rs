//! The launcher replaces its own executable: the same process goes on as another version, and takes
//! its workers over from itself.

use std::{
    env,
    ffi::OsString,
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::info;

use super::{launcher::Launcher, news::Ipc, remember::Handed, signals};
use crate::{
    control::{protocol::Response, server::Server},
    failure::Failure,
    ipc::Channel,
    sys::{inherit, runtime::Lock},
};

/// The hidden first argument that makes the executable check the rest, as a later launcher would
/// understand it, and end.
pub const CHECK_VERB: &str = "__check";

/// How long the other version may take for that.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// A failure, and the reply that it is for.
pub(super) type Refused = (Failure, Option<oneshot::Sender<Response>>);

impl Launcher {
    /// Makes sure that the other version can go on, and has the event loop end for it. The reply is
    /// dropped, unanswered, when the launcher goes over.
    pub(super) fn prepare_upgrade(
        &mut self,
        reply: Option<oneshot::Sender<Response>>,
    ) -> Result<(), Refused> {
        match self.check_upgrade() {
            Ok(executable) => {
                info!("going over to {}", executable.display());
                self.upgrade = Some((executable, reply));
                Ok(())
            }
            Err(failure) => Err((failure, reply)),
        }
    }

    fn check_upgrade(&self) -> Result<PathBuf, Failure> {
        let what = format!("cannot upgrade the launcher {}", self.plan.name);
        if self.is_stopping() {
            let hint = "nothing to do";
            return Err(Failure::new(what, "it is stopping", hint));
        }
        if let Some(operation) = self.fleet.operation() {
            return Err(Failure::new(
                what,
                format_args!("a {operation} is under way"),
                "ask again when it is done",
            ));
        }
        if self.pins.is_none() {
            return Err(Failure::new(
                what,
                "no bpffs can be written to, so the programs would not outlive it",
                "mount one: mount -t bpf bpf /sys/fs/bpf",
            ));
        }
        let executable = self.executable.clone();
        match check(&executable) {
            Ok(()) => Ok(executable),
            Err(why) => Err(Failure::new(
                what,
                format_args!(
                    "{} does not accept this command line: {why}",
                    executable.display()
                ),
                "put a working version of reuseport-launch there; this one goes on",
            )),
        }
    }

    /// Goes over. Returns only when that fails; then nothing has changed.
    pub(super) fn exec(&mut self, executable: &Path, lock: &Lock, control: &Server) -> Failure {
        let failed = |error: &io::Error| {
            Failure::io(
                "cannot go over to another version",
                executable.display(),
                error,
                "this one goes on",
            )
        };
        let handed = match self.hand_on(lock, control) {
            Ok(handed) => handed,
            Err(error) => return failed(&error),
        };
        let state = self.state(Some(handed.clone()));
        let failure = match self.state_file.write(state) {
            Ok(()) => {
                let signals = signals::hold_back();
                let error = Command::new(executable)
                    .arg0(
                        env::args_os()
                            .next()
                            .unwrap_or_else(|| "reuseport-launch".into()),
                    )
                    .args(env::args_os().skip(1))
                    .exec();
                signals::let_through(signals.as_ref());
                failed(&error)
            }
            Err(failure) => failure,
        };
        self.take_back(handed);
        failure
    }

    fn hand_on(&mut self, lock: &Lock, control: &Server) -> io::Result<Handed> {
        let mut handed = Handed {
            lock: inherit::hand_on(lock)?,
            cgroup: inherit::hand_on(self.cgroup.directory())?,
            control: inherit::hand_on(control)?,
            channels: Vec::new(),
            holding: Vec::new(),
        };
        for (endpoint, socket) in self.steering.holding() {
            handed
                .holding
                .push((endpoint.clone(), inherit::hand_on(socket)?));
        }
        for (&worker, running) in &mut self.running {
            if let Some(ipc) = running.ipc.take() {
                let (socket, pending) = ipc.channel.into_parts();
                let channel = inherit::hand_on(&socket)?;
                handed.channels.push((worker, channel, pending));
            }
        }
        Ok(handed)
    }

    fn take_back(&mut self, handed: Handed) {
        let holding = handed.holding.into_iter().map(|(_, fd)| fd);
        for fd in [handed.lock, handed.cgroup, handed.control]
            .into_iter()
            .chain(holding)
        {
            drop(inherit::take(fd));
        }
        for (worker, fd, pending) in handed.channels {
            let channel = inherit::take(fd).map(|socket| Channel::from_fd(socket, pending));
            let ipc = channel.and_then(|channel| Ipc::new(&self.news, worker, channel));
            if let Some(running) = self.running.get_mut(&worker) {
                running.ipc = ipc.ok();
            }
        }
    }
}

/// Has another version look at our command line.
fn check(executable: &Path) -> Result<(), String> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let mut child = Command::new(executable)
        .arg(CHECK_VERB)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let until = Instant::now() + CHECK_TIMEOUT;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let mut said = String::new();
                if let Some(stderr) = child.stderr.take() {
                    let _ = stderr.take(4096).read_to_string(&mut said);
                }
                return Err(format!("{status}: {}", said.trim()));
            }
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer in {} s", CHECK_TIMEOUT.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
