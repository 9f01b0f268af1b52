//! A process of a test: its output line by line, bounded waits, and killed at the end.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::PATIENCE;

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line of output, without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it was written.
    pub stream: Stream,
    /// What it says; what is not UTF-8 is replaced.
    pub text: String,
}

/// How a process ended, and all it wrote.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Its exit code; 128 and more: killed by that signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts that it succeeded without a word on standard error. Returns its standard output.
    ///
    /// # Panics
    /// When it did not.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!((self.code(), self.stderr.as_str()), (0, ""));
        self.stdout
    }

    /// Asserts that it ended with this code and with an error in three parts that says `what`.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn assert_error(&self, code: i32, what: &str) {
        let stderr = &self.stderr;
        assert_eq!(self.code(), code, "{stderr}");
        let error = stderr.find("error: ").map(|at| &stderr[at..]);
        let error = error.unwrap_or_else(|| panic!("no error: {stderr}"));
        assert!(error.contains("\n  → "), "no way out is named: {error}");
        assert!(error.contains(what), "nothing about {what}: {error}");
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    log: Arc<Log>,
}

impl Process {
    /// Starts a process with nothing to read and its output collected.
    ///
    /// # Panics
    /// When it can't be started.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).expect("a child that was not reaped has a pidfd");
        let log = Arc::new(Log::default());
        log.collect(Stream::Out, child.stdout.take().expect("piped"));
        log.collect(Stream::Err, child.stderr.take().expect("piped"));
        Self { child, pidfd, log }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.log.state().lines.clone()
    }

    /// Waits for the first line that is `wanted`, from its start on, and returns it.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait_until(what, |lines| {
            lines
                .iter()
                .find(|line| wanted(&line.text))
                .map(|line| line.text.clone())
        })
    }

    /// Waits until `look` finds something in the lines so far.
    ///
    /// # Panics
    /// When it does not, within [`PATIENCE`] or before the output ends.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, look: impl Fn(&[Line]) -> Option<T>) -> T {
        match self.log.wait(look) {
            Ok(found) => found,
            Err(why) => panic!("waited in vain for {what} ({why}) in:\n{}", self.log),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // Once it was reaped its pid may be another's; before, it is there, as a zombie at least.
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        assert!(self.ended(), "{} does not end:\n{}", self.pid(), self.log);
        self.child
            .wait()
            .expect("our child, and waited for only here")
    }

    /// Waits until it ends and its output ends.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let status = self.wait();
        if !self.log.wait_closed() {
            panic!(
                "{} ended, but its output is held open:\n{}",
                self.pid(),
                self.log
            );
        }
        let text = |stream| {
            let lines = self
                .lines()
                .into_iter()
                .filter(|line| line.stream == stream);
            lines.map(|line| line.text + "\n").collect()
        };
        Finished {
            status,
            stdout: text(Stream::Out),
            stderr: text(Stream::Err),
        }
    }

    fn ended(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(ready) => return ready > 0,
                Err(Errno::EINTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

#[derive(Debug, Default)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    /// Streams that have not ended.
    open: usize,
}

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Collects the lines of a stream in a thread of its own, until the stream ends.
    fn collect(self: &Arc<Self>, stream: Stream, from: impl Read + Send + 'static) {
        self.state().open += 1;
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                let text = String::from_utf8_lossy(&line).into_owned();
                log.state().lines.push(Line { stream, text });
                log.changed.notify_all();
            }
            log.state().open -= 1;
            log.changed.notify_all();
        });
    }

    fn wait<T>(&self, look: impl Fn(&[Line]) -> Option<T>) -> Result<T, &'static str> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state.lines) {
                return Ok(found);
            }
            if state.open == 0 {
                return Err("the output has ended");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("it takes too long");
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(state, _)| state);
        }
    }

    fn wait_closed(&self) -> bool {
        let open = |state: &mut State| state.open > 0;
        let waited = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE, open);
        waited.is_ok_and(|(_, result)| !result.timed_out())
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Line { stream, text } in &self.state().lines {
            writeln!(f, "  {stream:?}: {text}")?;
        }
        Ok(())
    }
}
