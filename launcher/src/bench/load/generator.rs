//! The generator as its parent sees it.

#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::LOAD_VERB;
use crate::{
    bench::model::{LoadResult, LoadSpec},
    failure::Failure,
};

/// How often the parent looks whether it is to go on, in ms.
const LOOK: u16 = 50;

/// What can't be done.
const WHAT: &str = "cannot generate the load";

/// A running generator. Dropped, it is killed. It also ends when its parent does.
#[derive(Debug)]
pub(crate) struct Generator {
    child: Child,
    /// When this is closed, the generator ends.
    _stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Generator {
    /// Starts our own executable as a generator of this load, in the calling thread's network
    /// namespace.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn start(spec: &LoadSpec) -> Result<Self, Failure> {
        let executable = env::current_exe().map_err(|error| failure(&error))?;
        let mut command = Command::new(executable);
        command.arg(LOAD_VERB);
        Self::spawn(command, spec)
    }

    fn spawn(mut command: Command, spec: &LoadSpec) -> Result<Self, Failure> {
        let mut line = serde_json::to_string(spec).map_err(|error| failure(&error))?;
        line.push('\n');
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The terminal's Ctrl-C is for the parent.
            .process_group(0)
            .spawn()
            .map_err(|error| failure(&error))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(failure(&"it has no pipes"));
        };
        let mut generator = Self {
            child,
            _stdin: stdin,
            stdout,
        };
        let written = generator._stdin.write_all(line.as_bytes());
        match written {
            Ok(()) => Ok(generator),
            // It has ended already: what it says about that is better than what we know.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(generator),
            Err(error) => Err(failure(&error)),
        }
    }

    /// Waits until the load has been sent and answered. `check` is asked every 50 ms whether to go on.
    ///
    /// # Errors
    /// The one of `check`, and then the generator is killed; or when it has failed.
    pub(crate) fn wait(
        mut self,
        check: impl Fn() -> Result<(), Failure>,
    ) -> Result<LoadResult, Failure> {
        let mut said = Vec::new();
        let mut buffer = [0; 16 * 1024];
        loop {
            check()?;
            let mut fds = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(LOOK)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(failure(&error)),
            }
            match self.stdout.read(&mut buffer) {
                Ok(0) => break,
                Ok(came) => said.extend_from_slice(buffer.get(..came).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        serde_json::from_slice(&said).map_err(|error| match self.complaint() {
            complaint if complaint.is_empty() => failure(&error),
            // It has three parts, of which the last is worth more than ours.
            complaint => match complaint.split_once("\n  → ") {
                Some((why, hint)) => Failure::new(WHAT, why, hint),
                None => failure(&complaint),
            },
        })
    }

    /// What it has written to standard error. It has closed its standard output, so it has ended or
    /// is about to.
    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            // What is no text is not for reading.
            let _ = stderr.take(16 * 1024).read_to_string(&mut text);
        }
        let text = text.trim();
        text.strip_prefix("error: ").unwrap_or(text).to_owned()
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // It may have ended, and can't be waited for in vain when it has not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn failure(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(WHAT, why, "correct the cause and start again")
}
