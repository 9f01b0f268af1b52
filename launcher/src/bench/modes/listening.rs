//! The socket that built-in workers, or their master, listen on.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Socket, Type};

use crate::{
    failure::Failure,
    sys::{
        listeners::{self, Protocol},
        process::describe,
    },
};

/// Connections that may wait; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;

/// A socket that listens on this port of the loopback interface.
pub(super) fn listen(port: u16) -> Result<TcpListener, Failure> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // What the connections of an earlier one have left is no hindrance.
        socket.set_reuse_address(true)?;
        socket.bind(&to.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    listen().map_err(|error: io::Error| {
        let what = format!("cannot listen on {to}");
        let hint = "stop that process, or choose another port";
        match error.kind() {
            io::ErrorKind::AddrInUse => Failure::new(what, taken(to), hint),
            _ => Failure::io(what, "binding the port", &error, hint),
        }
    })
}

/// Who has the port.
fn taken(to: SocketAddr) -> String {
    let listeners = listeners::list(Protocol::Tcp).unwrap_or_default();
    let mut there = listeners
        .iter()
        .filter(|listener| listener.address.port() == to.port());
    let owners = listeners::owners(there.by_ref().map(|listener| listener.inode));
    owners.values().next().map_or_else(
        || "somebody else has the port".to_owned(),
        |&pid| format!("the port belongs to {}", describe(pid)),
    )
}
