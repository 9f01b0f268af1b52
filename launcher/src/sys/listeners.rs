//! Listening sockets as the kernel sees them: what an adopted socket is bound to, and who else
//! listens (sock_diag(7)).

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::PathBuf,
};

use netlink_packet_sock_diag::{
    constants::{IPPROTO_TCP, IPPROTO_UDP},
    inet::{StateFlags, nlas::Nla},
};
use rustix::net::{ipproto, sockopt};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::sock_diag;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Protocol {
    /// Its IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => IPPROTO_TCP,
            Self::Udp => IPPROTO_UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What the members of a group share: the kernel joins sockets that agree in all of this (and in
/// their owner's uid) into one reuseport group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The protocol.
    pub protocol: Protocol,
    /// The local address and port.
    pub address: SocketAddr,
    /// An IPv6 socket that takes no IPv4 clients. `[::]` with and without it are two groups.
    pub v6only: bool,
    /// The network interface it is bound to, if any.
    pub device: Option<String>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.address)?;
        if let Some(device) = &self.device {
            write!(f, "%{device}")?;
        }
        Ok(())
    }
}

/// What an inspection of a socket found.
#[derive(Debug, PartialEq, Eq)]
pub enum Inspected {
    /// A UDP socket, or a TCP socket that listens.
    Endpoint(Endpoint),
    /// A TCP socket that does not listen yet.
    NotListening,
    /// Nothing that can be a member.
    Other,
}

/// Reads what a socket is bound to.
///
/// # Errors
/// Those of `getsockopt` and `getsockname`.
pub fn inspect(socket: &impl AsFd) -> io::Result<Inspected> {
    let protocol = match sockopt::socket_protocol(socket)? {
        Some(ipproto::TCP) => Protocol::Tcp,
        Some(ipproto::UDP) => Protocol::Udp,
        _ => return Ok(Inspected::Other),
    };
    if protocol == Protocol::Tcp && !sockopt::socket_acceptconn(socket)? {
        return Ok(Inspected::NotListening);
    }
    let socket = SockRef::from(socket);
    let Some(address) = socket.local_addr()?.as_socket() else {
        return Ok(Inspected::Other);
    };
    Ok(Inspected::Endpoint(Endpoint {
        protocol,
        v6only: address.is_ipv6() && socket.only_v6()?,
        device: socket
            .device()?
            .map(|name| String::from_utf8_lossy(&name).into_owned()),
        address,
    }))
}

/// Whether a socket is MPTCP, whose listeners can neither have a steering program nor be members
/// (`EOPNOTSUPP`).
#[must_use]
pub fn is_mptcp(socket: &impl AsFd) -> bool {
    const MPTCP: u32 = 262;
    matches!(sockopt::socket_protocol(socket), Ok(Some(protocol)) if protocol.as_raw().get() == MPTCP)
}

/// A socket's cookie: a number no other socket has while the machine runs.
///
/// # Errors
/// Those of `getsockopt`.
pub fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// A listening (TCP) or unconnected (UDP) socket of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it is bound.
    pub address: SocketAddr,
    /// An IPv6 socket that takes no IPv4 clients.
    pub v6only: bool,
    /// Its cookie.
    pub cookie: u64,
    /// Its inode number: names it in `/proc/PID/fd`.
    pub inode: u32,
    /// The user who made it, seen from our user namespace.
    pub uid: u32,
    /// Connections that wait in its accept queue (TCP), or bytes in its receive buffer (UDP).
    pub queue: u32,
    /// How many connections may wait (TCP: the smaller of what `listen` was given and
    /// `net.core.somaxconn`, and one more gets in), or bytes in its send buffer (UDP).
    pub backlog: u32,
}

/// Lists the sockets that listen.
///
/// # Errors
/// Those of the netlink socket.
pub fn list(protocol: Protocol) -> io::Result<Vec<Listener>> {
    let states = match protocol {
        Protocol::Tcp => StateFlags::LISTEN,
        // UDP sockets borrow TCP's names: CLOSE is one that is not connected.
        Protocol::Udp => StateFlags::CLOSE,
    };
    let mut listeners = Vec::new();
    sock_diag::dump(protocol.number(), states, 0, |response| {
        let header = response.header;
        listeners.push(Listener {
            protocol,
            address: sock_diag::local(&header.socket_id),
            v6only: response
                .nlas
                .iter()
                .any(|nla| matches!(nla, Nla::SkV6Only(true))),
            cookie: u64::from_ne_bytes(header.socket_id.cookie),
            inode: header.inode,
            uid: header.uid,
            queue: header.recv_queue,
            backlog: header.send_queue,
        });
    })?;
    Ok(listeners)
}

/// Those of them, by their cookies; none if the kernel does not answer.
#[must_use]
pub fn by_cookie(protocol: Protocol) -> HashMap<u64, Listener> {
    let listeners = list(protocol).unwrap_or_default().into_iter();
    listeners
        .map(|listener| (listener.cookie, listener))
        .collect()
}

/// The cookies of those in which something waits.
///
/// # Errors
/// As for [`list`].
pub fn waiting(protocol: Protocol) -> io::Result<HashSet<u64>> {
    let listeners = list(protocol)?.into_iter();
    Ok(listeners
        .filter(|listener| listener.queue > 0)
        .map(|listener| listener.cookie)
        .collect())
}

impl Listener {
    /// Whether it and a socket bound to `endpoint` could be sent the same packet.
    #[must_use]
    pub fn overlaps(&self, endpoint: &Endpoint) -> bool {
        self.protocol == endpoint.protocol
            && self.address.port() == endpoint.address.port()
            && (covers((self.address.ip(), self.v6only), endpoint.address.ip())
                || covers((endpoint.address.ip(), endpoint.v6only), self.address.ip()))
    }
}

/// Whether a socket bound to the first address is sent packets for the second.
fn covers((bound, v6only): (IpAddr, bool), to: IpAddr) -> bool {
    match (bound.to_canonical(), to.to_canonical()) {
        (a, b) if a == b => true,
        (IpAddr::V4(a), IpAddr::V4(_)) => a.is_unspecified(),
        (IpAddr::V6(a), IpAddr::V6(_)) => a.is_unspecified(),
        (IpAddr::V6(a), IpAddr::V4(_)) => a.is_unspecified() && !v6only,
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

/// The inode numbers of the sockets that a process has open, as far as we may see them.
#[must_use]
pub fn sockets_of(pid: u32) -> Vec<u32> {
    let inode = |target: PathBuf| {
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    };
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|fd| inode(fs::read_link(fd.path()).ok()?))
        .collect()
}

/// For each of these sockets, a process that has it open, if we may see one. Goes through every
/// process of the machine, once.
#[must_use]
pub fn owners(inodes: impl Iterator<Item = u32>) -> HashMap<u32, u32> {
    let mut wanted: HashSet<u32> = inodes.collect();
    let mut owners = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if wanted.is_empty() {
            break;
        }
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            for inode in sockets_of(pid) {
                if wanted.remove(&inode) {
                    owners.insert(inode, pid);
                }
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_is_listed_with_its_cookie_and_owner() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let cookie = cookie(&socket).expect("SO_COOKIE");
        let listed = list(Protocol::Tcp).expect("sock_diag");
        let found = listed
            .iter()
            .find(|listener| listener.cookie == cookie)
            .expect("listed");
        assert_eq!(found.address, socket.local_addr().expect("bound"));
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        // What std asks for.
        assert_eq!(found.backlog, 128);
        assert_eq!(
            owners([found.inode].into_iter()).get(&found.inode),
            Some(&std::process::id())
        );
    }

    #[test]
    fn a_udp_socket_is_listed() {
        let socket = UdpSocket::bind("[::1]:0").expect("loopback");
        let cookie = cookie(&socket).expect("SO_COOKIE");
        let listed = list(Protocol::Udp).expect("sock_diag");
        assert!(listed.iter().any(|listener| listener.cookie == cookie));
        let Inspected::Endpoint(endpoint) = inspect(&socket).expect("getsockopt") else {
            panic!("not an endpoint");
        };
        assert_eq!(endpoint.address, socket.local_addr().expect("bound"));
        assert_eq!(endpoint.protocol, Protocol::Udp);
    }

    #[test]
    fn wildcards_overlap_with_what_they_cover() {
        let overlap = |theirs: &str, theirs_v6only, ours: &str, ours_v6only| {
            let listener = Listener {
                protocol: Protocol::Tcp,
                address: theirs.parse().expect("an address"),
                v6only: theirs_v6only,
                cookie: 1,
                inode: 1,
                uid: 0,
                queue: 0,
                backlog: 0,
            };
            listener.overlaps(&Endpoint {
                protocol: Protocol::Tcp,
                address: ours.parse().expect("an address"),
                v6only: ours_v6only,
                device: None,
            })
        };
        assert!(overlap("0.0.0.0:80", false, "127.0.0.1:80", false));
        assert!(overlap("127.0.0.1:80", false, "[::]:80", false));
        assert!(overlap("[::]:80", false, "0.0.0.0:80", false));
        assert!(!overlap("[::]:80", true, "0.0.0.0:80", false));
        assert!(!overlap("0.0.0.0:80", false, "[::]:80", true));
        assert!(!overlap("127.0.0.1:80", false, "127.0.0.2:80", false));
        assert!(!overlap("0.0.0.0:80", false, "[::1]:80", false));
        assert!(!overlap("0.0.0.0:80", false, "0.0.0.0:81", false));
    }
}
