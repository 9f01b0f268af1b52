//! Whether a kernel wakes the listener that a waiting connection moves to.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use rustix::net::{Shutdown, shutdown};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::netns;

/// How long anything in here may take that takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether a listener is woken by a connection that moves to it when another listener of its group
/// closes. Without commit "tcp: call sk_data_ready() after listener migration" (CVE-2026-46015) it
/// is not, and the connection waits until the next one comes.
///
/// Tries it, in a network namespace that ends with the call.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOENT` before Linux 5.14, which moves nothing; `EROFS` where
/// `/proc/sys` can't be written.
pub fn migration_wakes() -> io::Result<bool> {
    // In a thread of its own: the namespace of a thread can't be left again.
    thread::Builder::new()
        .name("wakeup probe".to_owned())
        .spawn(|| {
            netns::enter_new()?;
            probe()
        })?
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
}

fn probe() -> io::Result<bool> {
    // Files below /proc/sys/net are those of the network namespace of who opens them. The setting
    // moves connections without a program.
    fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1")?;
    let first = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = first.local_addr()?;
    let second = listen(address)?;
    let _client = TcpStream::connect_timeout(&address, PATIENCE)?;
    let (holder, other) = match waiting(&first, &second)? {
        (true, _) => (first, second),
        (false, true) => (second, first),
        (false, false) => return Err(io::Error::other("the connection arrived nowhere")),
    };

    // Level-triggered or not, epoll looks at a socket itself when it is added (nothing waits there)
    // and when it has been put on the list of ready ones; and only the socket's wake-up puts it
    // there (`ep_insert`, `ep_poll_callback`). So without a wake-up there is no event, although
    // poll, which looks at the socket, sees the connection.
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&other, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    // Not closed but shut down, which moves its connections as well (`inet_csk_listen_stop`): a
    // child that another thread is just starting shares the socket until it runs its program.
    shutdown(&holder, Shutdown::Both)?;
    let woken = epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO)? > 0;
    if !woken && !waiting(&other, &other)?.0 {
        return Err(io::Error::other("the connection did not move"));
    }
    Ok(woken)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(8)?;
    Ok(socket.into())
}

/// Waits until a connection waits at one of these listeners, and tells at which.
fn waiting(first: &TcpListener, second: &TcpListener) -> io::Result<(bool, bool)> {
    let mut fds = [first, second].map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN));
    poll(
        &mut fds,
        PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX),
    )?;
    let [first, second] = fds.map(|fd| fd.any().unwrap_or(false));
    Ok((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_is_known_to_wake_is_told() {
        let wakes = match migration_wakes() {
            Ok(wakes) => wakes,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                return;
            }
        };
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let patch = release
            .strip_prefix("6.18.")
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        // Of other series it is not known which of them have the fix.
        if patch.is_some_and(|patch| patch >= 44) {
            assert!(wakes, "{release}");
        }
    }
}
