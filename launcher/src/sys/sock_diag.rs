//! Asking the kernel for the sockets of this network namespace (sock_diag(7)).

use std::{io, net::SocketAddr, ops::ControlFlow};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

/// Goes through the IPv4 and IPv6 sockets of an IP protocol that are in one of `states` and, unless
/// `port` is 0, have this local port, which the kernel compares (`inet_diag_dump_icsk`).
///
/// # Errors
/// Those of the netlink socket.
pub(super) fn dump(
    protocol: u8,
    states: StateFlags,
    port: u16,
    mut each: impl FnMut(InetResponse),
) -> io::Result<()> {
    let each = |response| {
        each(response);
        ControlFlow::Continue(())
    };
    dump_while(protocol, states, port, each).map(drop)
}

/// The same, until `each` has enough.
///
/// # Errors
/// Those of the netlink socket.
pub(super) fn dump_while(
    protocol: u8,
    states: StateFlags,
    port: u16,
    mut each: impl FnMut(InetResponse) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    for (family, id) in [
        (AF_INET, SocketId::new_v4()),
        (AF_INET6, SocketId::new_v6()),
    ] {
        let request = InetRequest {
            family,
            protocol,
            extensions: ExtensionFlags::empty(),
            states: states.clone(),
            socket_id: SocketId {
                source_port: port,
                ..id
            },
        };
        if exchange(request, &mut each)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn exchange(
    request: InetRequest,
    each: &mut impl FnMut(InetResponse) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let next = each(*response);
                    if next.is_break() {
                        // The rest is dropped with the socket.
                        return Ok(next);
                    }
                }
                NetlinkPayload::Done(_) => return Ok(ControlFlow::Continue(())),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are aligned to four bytes (netlink(7)).
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

/// The local address of a socket in a dump.
pub(super) fn local(id: &SocketId) -> SocketAddr {
    SocketAddr::new(id.source_address, id.source_port)
}
