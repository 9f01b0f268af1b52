//! A listening socket that may join the workers' groups.

use std::{io, os::fd::OwnedFd};

use nix::unistd::{Uid, setfsuid};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::listeners::Endpoint;

/// The backlog asked for; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// Marks a socket as one of the fleet, so that the workers may share its address.
pub type Mark = dyn Fn(&OwnedFd) -> io::Result<()>;

/// Listens on `endpoint` with a socket that belongs to `uid`: the kernel lets only sockets of one
/// owner share an address (`sk_reuseport_match` compares `sk_uid`, which is the file-system uid at
/// the time of socket(2)). It is marked before it is bound.
///
/// # Errors
/// Those of the system calls: `EADDRINUSE` when the address belongs to somebody else.
pub fn listen_as(endpoint: &Endpoint, uid: u32, mark: &Mark) -> io::Result<OwnedFd> {
    let own = setfsuid(Uid::from_raw(uid));
    let socket = Socket::new(
        Domain::for_address(endpoint.address),
        Type::STREAM,
        Some(Protocol::TCP),
    );
    setfsuid(own);
    let socket = OwnedFd::from(socket?);
    mark(&socket)?;
    let socket = Socket::from(socket);
    socket.set_reuse_port(true)?;
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
        let first = listen_as(&endpoint, uid, &|_| Ok(())).expect("a free port");
        let Ok(Inspected::Endpoint(bound)) = inspect(&first) else {
            panic!("it does not listen");
        };
        endpoint.address = bound.address;
        let second = listen_as(&endpoint, uid, &|_| Ok(())).expect("a shared port");
        for socket in [first, second] {
            assert_eq!(fstat(&socket).expect("a socket").st_uid, uid);
        }
    }
}
