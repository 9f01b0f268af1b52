//! One blocking connection to a launcher's control socket, and what can be wrong with it.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, pidfd_open, test_kill_process},
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::protocol::{REQUEST_MAX, Request, Response, to_line};
use crate::{
    failure::Failure,
    sys::runtime::{Name, RuntimeDir, State},
};

/// The longest answer, in bytes: far more than a full fleet's status.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;
/// How long it may take until a launcher has a place for a client and reads its request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a running launcher.
#[derive(Debug)]
pub(super) struct Connection {
    name: Name,
    stream: BufReader<UnixStream>,
    /// The launcher's pid; `None` where it is in a PID namespace out of sight.
    peer: Option<Pid>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The launcher closed the connection: it ended.
    Closed,
    /// Anything else.
    Failed(Failure),
}

impl Connection {
    /// Connects to the launcher called `name`.
    pub(super) fn open(directory: &RuntimeDir, name: &Name) -> Result<Self, Failure> {
        let stream =
            connect(directory, name).map_err(|error| unreachable(directory, name, &error))?;
        let peer = getsockopt(&stream, PeerCredentials)
            .ok()
            .and_then(|peer| Pid::from_raw(peer.pid()));
        Ok(Self {
            name: name.clone(),
            stream: BufReader::new(stream),
            peer,
        })
    }

    /// Sends `request` and waits for the answer, at most for `timeout`.
    pub(super) fn ask(
        &mut self,
        request: &Request,
        timeout: Option<Duration>,
    ) -> Result<Response, NoAnswer> {
        let answer = self
            .exchange(request, timeout)
            .map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => NoAnswer::Closed,
                io::ErrorKind::WouldBlock => self.failed(
                    "it does not answer",
                    "try again; `kill -TERM` its pid stops it as well",
                ),
                io::ErrorKind::FileTooLarge => self.failed(error, "send a shorter message"),
                _ => self.failed(error, "try again"),
            })?;
        if !answer.ends_with(b"\n") {
            return Err(NoAnswer::Closed);
        }
        serde_json::from_slice(&answer).map_err(|error| {
            self.failed(
                format!("its answer makes no sense: {error}"),
                "is it of another version? use the `reuseport-launch` it was started with",
            )
        })
    }

    fn exchange(&mut self, request: &Request, timeout: Option<Duration>) -> io::Result<Vec<u8>> {
        let line = to_line(request)?;
        if line.len() > REQUEST_MAX {
            // It would not read it to its end.
            let why = format!("the request is longer than {REQUEST_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        self.stream.get_mut().set_read_timeout(timeout)?;
        self.stream.get_mut().write_all(&line)?;
        let mut answer = Vec::new();
        self.stream
            .by_ref()
            .take(ANSWER_MAX)
            .read_until(b'\n', &mut answer)?;
        Ok(answer)
    }

    fn failed(&self, why: impl std::fmt::Display, hint: &str) -> NoAnswer {
        NoAnswer::Failed(Failure::new(
            format!("cannot talk to the launcher {}", self.name),
            why,
            hint,
        ))
    }

    /// A handle on the launcher's process, for [`wait`](Self::wait).
    pub(super) fn process(&self) -> Option<OwnedFd> {
        self.peer
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    }

    /// Waits until the launcher's process has ended, and with it its lock; without a handle on
    /// it, until it has closed the connection.
    pub(super) fn wait(&mut self, process: Option<OwnedFd>) {
        let Some(process) = process else {
            // Whatever error it is, the connection is over.
            let _ = io::copy(&mut self.stream, &mut io::sink());
            return;
        };
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    }

    /// Whether the launcher's process, from [`process`](Self::process), ends within `time`;
    /// without a handle on it, never.
    pub(super) fn ends_within(process: Option<&OwnedFd>, time: PollTimeout) -> bool {
        let mut fds: Vec<PollFd> = process
            .map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN))
            .into_iter()
            .collect();
        // Interrupted, it has just waited for less.
        poll(&mut fds, time).is_ok_and(|ended| ended > 0)
    }

    /// Whether the launcher, which has ended, left its state behind: it was killed.
    pub(super) fn was_killed(&self, directory: &RuntimeDir) -> bool {
        let state = <State>::read(directory, &self.name).ok().flatten();
        // The state of another pid is that of the next launcher of this name.
        state.is_some_and(|state| {
            self.peer
                .is_none_or(|peer| peer.as_raw_nonzero().get().cast_unsigned() == state.pid)
        })
    }
}

fn connect(directory: &RuntimeDir, name: &Name) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A launcher that is stuck accepts nobody, and its queue is full some day: the send timeout
    // holds for connecting, too.
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    socket.connect(&SockAddr::unix(directory.socket(name))?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Whether the error of [`connect`] says that no launcher listens. Where the path is too long for
/// a socket (`InvalidInput`), none can.
fn nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidInput
    )
}

/// Whether the launcher that wrote `state` is gone; one that starts or ends has no socket either.
fn dead(state: &State) -> bool {
    let pid = i32::try_from(state.pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// The names of the launchers that run, sorted; those this user may not talk to as well.
pub(super) fn running(directory: &RuntimeDir) -> Result<Vec<Name>, Failure> {
    let mut names = directory.names()?;
    names.retain(|name| !connect(directory, name).is_err_and(|error| nobody(&error)));
    Ok(names)
}

/// What the error of [`connect`] means to a person.
pub(super) fn unreachable(directory: &RuntimeDir, name: &Name, error: &io::Error) -> Failure {
    let failed = |why: String, hint: String| {
        Failure::new(format!("cannot reach the launcher {name}"), why, hint)
    };
    if error.kind() == io::ErrorKind::PermissionDenied {
        return failed(
            format!("permission denied on {}", directory.socket(name).display()),
            "ask as the user that started it, or as root".to_owned(),
        );
    }
    if !nobody(error) {
        let hint = "is it stuck? `kill -TERM` its pid stops it as well";
        return failed(error.to_string(), hint.to_owned());
    }
    if let Ok(Some(state)) = <State>::read(directory, name)
        && dead(&state)
    {
        return failed(
            format!(
                "it was killed (pid {}); its workers may still run",
                state.pid
            ),
            "start it again under the same name: it takes care of what is left".to_owned(),
        );
    }
    let others: Vec<String> = running(directory)
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    let hint = match others.as_slice() {
        [] => nobody_runs(directory),
        others => format!("these run: {}", others.join(", ")),
    };
    failed(format!("no launcher named {name} runs"), hint)
}

/// What to do where no launcher runs at all.
pub(super) fn nobody_runs(directory: &RuntimeDir) -> String {
    format!(
        "none runs in {}; those of root are seen by root, those elsewhere with --runtime-dir DIR",
        directory.path().display()
    )
}
