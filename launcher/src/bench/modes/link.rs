//! The master as who has started it sees it: a child process at the other end of a socket.

use std::{
    env,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    MASTER_VERB,
    protocol::{Answer, Lines, Request, Spec, State},
};
use crate::{
    bench::{launched::called_off, words::Words},
    failure::Failure,
};

/// How long the workers may take to be ready, and the master to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it may take to end with its workers, before it is killed. They end with it then, too.
const ENDING: Duration = Duration::from_secs(3);

/// How often it is looked whether waiting was called off.
const LOOK: Duration = Duration::from_millis(50);

/// A master that was started. Dropped, it is stopped with its workers, and waited for.
#[derive(Debug)]
pub(super) struct Master {
    child: Child,
    /// What it answers through; `None` once it is to end.
    lines: Mutex<Option<Lines>>,
    words: Words,
}

impl Master {
    /// Starts a master, and waits until all its workers are ready.
    pub(super) fn start(spec: &Spec, off: &dyn Fn() -> bool) -> Result<(Self, State)> {
        let (ours, theirs) = UnixStream::pair().context("no socket to talk to a master")?;
        ours.set_read_timeout(Some(LOOK))?;
        let mut child = Command::new(env::current_exe()?)
            .arg(MASTER_VERB)
            // Ctrl-C is for us; we then end it.
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a master")?;
        let Some(stderr) = child.stderr.take() else {
            bail!("a master has no standard error");
        };
        let master = Self {
            child,
            lines: Mutex::new(Some(Lines::new(ours))),
            words: Words::of(stderr),
        };
        match master.exchange(spec, off)? {
            Answer::State(state) => Ok((master, state)),
            Answer::Failed(error) => {
                let mut master = master;
                master.end();
                // A worker that ends by itself says why.
                let failure = master.words.failure();
                Err(failure.unwrap_or_else(|| error.into()).into())
            }
            Answer::Done => bail!("a master answered without its state"),
        }
    }

    /// What it knows.
    pub(super) fn state(&self) -> Result<State> {
        match self.exchange(&Request::State, &|| false)? {
            Answer::State(state) => Ok(state),
            Answer::Failed(error) => Err(Failure::from(error).into()),
            Answer::Done => bail!("a master answered without its state"),
        }
    }

    /// Replaces a worker.
    pub(super) fn reload(&self, slot: u32) -> Result<()> {
        match self.exchange(&Request::Reload { slot }, &|| false)? {
            Answer::Done => Ok(()),
            Answer::Failed(error) => Err(Failure::from(error).into()),
            Answer::State(_) => bail!("a master answered with its state"),
        }
    }

    /// Asks, and waits for the answer.
    fn exchange(&self, request: &impl serde::Serialize, off: &dyn Fn() -> bool) -> Result<Answer> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = lines.as_mut() else {
            bail!("the master has been stopped");
        };
        let deadline = Instant::now() + PATIENCE;
        let answer = lines.write(request).and_then(|()| {
            loop {
                match lines.read() {
                    Ok(Some(answer)) => return Ok(Some(answer)),
                    Ok(None) => {}
                    // The time that one look takes is over.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                if off() {
                    return Ok(None);
                }
                if Instant::now() >= deadline {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
        });
        match answer {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(called_off().into()),
            Err(error) => Err(self.gone(&error).into()),
        }
    }

    /// Why it does not answer.
    fn gone(&self, error: &io::Error) -> Failure {
        let what = "cannot go on with a master and its workers";
        let hint = "try again; if it happens again, report it";
        match error.kind() {
            ErrorKind::TimedOut => {
                let why = format!(
                    "it has not answered for {} s{}",
                    PATIENCE.as_secs(),
                    self.words.last()
                );
                Failure::new(what, why, hint)
            }
            _ => {
                self.words.ended_within(LOOK);
                Failure::new(what, format!("it has ended{}", self.words.last()), hint)
            }
        }
    }

    /// Stops it and its workers, at once.
    fn end(&mut self) {
        // It sees the end of its standard input.
        let lines = self.lines.get_mut();
        drop(lines.unwrap_or_else(PoisonError::into_inner).take());
        if !ended_within(&self.child, ENDING) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        self.words.ended_within(ENDING);
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a child ends in this time.
fn ended_within(child: &Child, patience: Duration) -> bool {
    let Ok(pidfd) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else {
        // Reaped already.
        return true;
    };
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
            return true;
        }
        if left.is_zero() {
            return false;
        }
    }
}
