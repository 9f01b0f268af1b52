//! Where the pumps of a name can be asked: a socket each, in the runtime directory. There may be
//! several, because a pump serves its workers to their end, whoever is their launcher by then.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Instant,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sys::runtime::{Name, RuntimeDir};

/// Readers that may wait for the pump to see to them.
const BACKLOG: i32 = 16;

/// The sockets of the pumps of one name.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// Where.
    pub directory: RuntimeDir,
    /// Of which launcher.
    pub name: Name,
}

impl Sockets {
    /// Opens that of the pump with this pid.
    pub(super) fn listen(&self, pid: u32) -> io::Result<(OwnedFd, PathBuf)> {
        let path = self.directory.output(&self.name, pid);
        // Of a pump that had the pid before.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux a bound socket file takes its mode from the socket: it is never open to others.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(&path)?)?;
        socket.listen(BACKLOG)?;
        Ok((socket.into(), path))
    }

    /// Those that there are. The files of pumps that have gone are no more afterwards.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.directory.outputs(&self.name)
    }

    /// Removes what killed pumps have left.
    pub(super) fn clear(&self) {
        for path in self.all() {
            if let Err(error) = connect(&path)
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                // The next launcher tries again.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Waits until no pump is left.
    pub(super) fn wait_for_all(&self, deadline: Instant) {
        let paths = self.all().into_iter();
        for stream in paths.filter_map(|path| connect(&path).ok()) {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                let mut gone = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
                match poll(&mut gone, timeout) {
                    Err(nix::Error::EINTR) => {}
                    _ => break,
                }
            }
        }
    }
}

/// Connects to the pump at `path`, but waits for none that has too much to do.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}
