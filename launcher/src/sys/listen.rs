//! A listening socket that may join the workers' groups.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, Uid, fork, setfsuid},
};
use rustix::{
    fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat},
    io::Errno,
    process::{PidfdGetfdFlags, pidfd_getfd},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{cgroup::open_pidfd, listeners::Endpoint};

/// The backlog asked for; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// The cgroup in which a socket is made. It exists for that moment only.
const BIRTHPLACE: &str = "holding";

/// Does something to a socket before it is bound.
pub type Mark = dyn Fn(&OwnedFd) -> io::Result<()>;

/// Where a socket is made: in a cgroup of its own, because programs that are attached to that are called
/// for the socket and for its connections, whoever has it, and after the cgroup has been removed.
pub struct Birthplace<'a> {
    /// The directory of the cgroup in which it is made, for that moment.
    pub above: &'a File,
    /// Attaches what is to be attached, given the directory.
    pub prepare: &'a dyn Fn(&File) -> io::Result<()>,
}

/// Listens on `endpoint` with a socket that belongs to `uid`: the kernel lets only sockets of one
/// owner share an address (`sk_reuseport_match` compares `sk_uid`, which is the file-system uid at
/// the time of socket(2)). It is marked before it is bound.
///
/// # Errors
/// Those of the system calls: `EADDRINUSE` when the address belongs to somebody else.
pub fn listen_as(
    endpoint: &Endpoint,
    uid: u32,
    birthplace: Option<&Birthplace<'_>>,
    mark: &dyn Fn(&OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let make = || {
        let own = setfsuid(Uid::from_raw(uid));
        let socket = Socket::new(
            Domain::for_address(endpoint.address),
            Type::STREAM,
            Some(Protocol::TCP),
        );
        setfsuid(own);
        Ok(OwnedFd::from(socket?))
    };
    let socket = match birthplace {
        None => make()?,
        Some(birthplace) => make_in(birthplace, make)?,
    };
    mark(&socket)?;
    let socket = Socket::from(socket);
    socket.set_reuse_port(true)?;
    // The connections that it holds inherit this. Without it, each keeps any other program from binding
    // the port for the minute that it waits after its end.
    socket.set_reuse_address(true)?;
    if endpoint.address.is_ipv6() {
        socket.set_only_v6(endpoint.v6only)?;
    }
    if let Some(device) = &endpoint.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.bind(&SockAddr::from(endpoint.address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes a socket in a cgroup below this one, which may have none of its own processes.
fn make_in(
    birthplace: &Birthplace<'_>,
    make: impl Fn() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let cgroup = birthplace.above;
    match mkdirat(cgroup, BIRTHPLACE, Mode::RWXU) {
        // One that was killed may have left it.
        Ok(()) | Err(Errno::EXIST) => {}
        // Where no cgroup can be made, it is our own.
        Err(Errno::ROFS) => return make(),
        Err(error) => return Err(error.into()),
    }
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let made = openat(cgroup, BIRTHPLACE, directory, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|opened| (birthplace.prepare)(&File::from(opened)))
        .and_then(|()| make_at_birthplace(cgroup, make));
    // The socket keeps what it needs of it. At worst the next one finds it.
    let _ = unlinkat(cgroup, BIRTHPLACE, AtFlags::REMOVEDIR);
    made
}

/// A process belongs to a cgroup, not a thread, so it is another process that makes the socket, and shows
/// it to us until we have a copy.
fn make_at_birthplace(
    cgroup: &File,
    make: impl Fn() -> io::Result<OwnedFd>,
) -> io::Result<OwnedFd> {
    let procs = format!("{BIRTHPLACE}/cgroup.procs");
    let mut procs = File::from(openat(
        cgroup,
        &*procs,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let (mut answer, mut tell) = io::pipe()?;
    let (mut until, hold) = io::pipe()?;
    // SAFETY: another thread may hold a lock, of the allocator for one, so the child makes system calls
    // only: none of what it calls allocates.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(hold);
            let made = procs.write_all(b"0").and_then(|()| make());
            let told = match &made {
                Ok(socket) => socket.as_raw_fd(),
                Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
            };
            // If nobody listens any more there is nobody to tell it to.
            let _ = tell.write_all(&told.to_ne_bytes());
            // Until the other side is closed.
            let _ = until.read(&mut [0]);
            // SAFETY: ends this process without running what is the parent's to run.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((tell, until));
            let mut told = [0; 4];
            let copied =
                answer
                    .read_exact(&mut told)
                    .and_then(|()| match i32::from_ne_bytes(told) {
                        error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
                        fd => {
                            let child = open_pidfd(child.as_raw().cast_unsigned())?;
                            Ok(pidfd_getfd(&child, fd, PidfdGetfdFlags::empty())?)
                        }
                    });
            drop(hold);
            // Its end is awaited here, or it would seem to be a worker's.
            waitpid(child, None)?;
            copied
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rustix::fs::fstat;

    use super::*;
    use crate::sys::listeners::{Inspected, Protocol, inspect};

    #[test]
    fn two_share_an_address_and_belong_to_their_owner() {
        let uid = nix::unistd::geteuid().as_raw();
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let mut endpoint = Endpoint {
            protocol: Protocol::Tcp,
            address: any,
            v6only: false,
            device: None,
        };
        let first = listen_as(&endpoint, uid, None, &|_| Ok(())).expect("a free port");
        let Ok(Inspected::Endpoint(bound)) = inspect(&first) else {
            panic!("it does not listen");
        };
        endpoint.address = bound.address;
        let second = listen_as(&endpoint, uid, None, &|_| Ok(())).expect("a shared port");
        for socket in [first, second] {
            assert_eq!(fstat(&socket).expect("a socket").st_uid, uid);
        }
    }
}
