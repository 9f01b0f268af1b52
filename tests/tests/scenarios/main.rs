//! Steering in the circumstances that the kernel's own selftests try, with real servers: what
//! `select_reuseport` (each member over each protocol and family; one that is missing; SYN cookies;
//! the program outlives who attached it), `reuseport_bpf` (10 and 20 members, and another program) and
//! `reuseport_addr_any` (wildcard against specific addresses) look at; and many of everything.

mod addresses;
mod cookies;
mod many;
mod members;

use std::net::SocketAddr;

use kernel_tests::{
    client::address,
    dns::Transport::{self, Tcp, Udp},
};

/// The groups of a [`kernel_tests::servers::dnsmasq`] on port 53: what they are bound to, and where
/// a client finds them.
const GROUPS: [(Transport, &str, &str); 4] = [
    (Tcp, "0.0.0.0:53", "127.0.0.1:53"),
    (Tcp, "[::]:53", "[::1]:53"),
    (Udp, "0.0.0.0:53", "127.0.0.1:53"),
    (Udp, "[::]:53", "[::1]:53"),
];

/// Each of the [`GROUPS`].
fn groups() -> impl Iterator<Item = (Transport, SocketAddr, SocketAddr)> {
    let parse = |(transport, bound, reached)| (transport, address(bound), address(reached));
    GROUPS.into_iter().map(parse)
}
