//! The socket.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt as _,
    },
    path::Path,
};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};

use super::Address;
use crate::failure::{Exit, Failure};

const BACKLOG: i32 = 128;

/// A socket that listens; a file of it is removed on drop.
#[derive(Debug)]
pub struct Bound {
    address: Address,
    socket: OwnedFd,
}

impl Bound {
    /// Listens there. A socket file in whose socket nobody listens was left by a launcher that was
    /// killed, and is replaced.
    ///
    /// # Errors
    /// When the address is taken or isn't this machine's, something else is at the path, or the
    /// socket can't be made.
    pub fn bind(address: &Address) -> Result<Self, Failure> {
        let bound = match address {
            Address::Tcp(to) => bind_tcp((*to).into()),
            Address::Unix(path) => bind_unix(path),
        };
        let socket = bound.map_err(|error| refused(address, &error))?;
        let address = address.clone();
        Ok(Self {
            address,
            socket: socket.into(),
        })
    }

    /// Goes on with a socket that was passed on through exec: clients that came meanwhile wait in
    /// its queue.
    #[must_use]
    pub fn resume(address: Address, socket: OwnedFd) -> Self {
        Self { address, socket }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// A duplicate for tokio.
    pub(super) fn duplicate(&self) -> io::Result<Socket> {
        let socket = Socket::from(self.socket.try_clone()?);
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // A file left behind is replaced by the next launcher.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind_tcp(to: SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(to.domain(), Type::STREAM, None)?;
    // Connections of an earlier launcher may still be in TIME-WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&to)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Open to the launcher's user and group.
fn bind_unix(path: &Path) -> io::Result<Socket> {
    let to = SockAddr::unix(path)?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // With a full queue it must not wait.
            client.set_nonblocking(true)?;
            match client.connect(&to) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path)?;
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                Ok(()) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
            }
        }
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&to)?;
    // Whatever the umask says; nobody can connect before it listens.
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn refused(address: &Address, error: &io::Error) -> Failure {
    let what = format!("cannot serve metrics on {address}");
    let unix = matches!(address, Address::Unix(_));
    let (why, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "somebody else listens there".to_owned(),
            match unix {
                true => "choose another path: --metrics unix:PATH".to_owned(),
                false => "choose another port (--metrics), or see who has it: ss -ltnp".to_owned(),
            },
        ),
        io::ErrorKind::AlreadyExists => (
            "something is there that is not a socket".to_owned(),
            "remove it, or choose another path: --metrics unix:PATH".to_owned(),
        ),
        io::ErrorKind::AddrNotAvailable => (
            "the address is none of this machine's".to_owned(),
            "name one of its addresses, or only a port: --metrics PORT".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => (
            "it is not permitted".to_owned(),
            match unix {
                true => "choose a directory that the launcher may write to".to_owned(),
                false => "choose a port from 1024, or add CAP_NET_BIND_SERVICE".to_owned(),
            },
        ),
        io::ErrorKind::NotFound => (
            "its directory does not exist".to_owned(),
            "make it, or choose another path: --metrics unix:PATH".to_owned(),
        ),
        _ => {
            let hint = "choose another address (--metrics)";
            return Failure::io(what, "opening it", error, hint);
        }
    };
    Failure::new(what, why, hint).exit(Exit::Failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    };

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.sock");
        let address = Address::Unix(path.clone());
        let first = Bound::bind(&address).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        UnixStream::connect(&path).unwrap();
        let failure = Bound::bind(&address).unwrap_err();
        assert_eq!(failure.why, "somebody else listens there", "{failure}");
        UnixStream::connect(&path).unwrap();

        drop(first);
        assert!(!path.exists());

        // Its file stays, as that of a launcher that was killed.
        drop(UnixListener::bind(&path).unwrap());
        let second = Bound::bind(&address).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let unix = |name: &str| Address::Unix(dir.path().join(name));
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (address, why) in [
            (unix("file"), "something is there that is not a socket"),
            (unix("none/m.sock"), "its directory does not exist"),
            (
                Address::Tcp("192.0.2.1:9100".parse().unwrap()),
                "the address is none of this machine's",
            ),
            (
                Address::Tcp(holder.local_addr().unwrap()),
                "somebody else listens there",
            ),
        ] {
            let failure = Bound::bind(&address).unwrap_err();
            assert_eq!(failure.why, why, "{address}");
            assert!(!failure.hint.is_empty());
        }
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"");
        let long = Bound::bind(&unix(&"x".repeat(200))).unwrap_err();
        assert!(long.why.starts_with("opening it failed"), "{long}");
    }
}
