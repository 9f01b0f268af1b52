//! UDP: flows of datagrams stay with their workers, whatever happens to the other ones, and no datagram
//! is lost when tables change; with servers that nobody here wrote.

mod dns;
mod flows;
mod leaving;
mod quic;

use std::{net::SocketAddr, time::Duration};

use kernel_tests::{client, flow::Flow, launcher::Launcher};

/// Where every server here has its UDP socket.
fn v4() -> SocketAddr {
    client::address("127.0.0.1:5353")
}

/// As [`v4`], for servers that have one of IPv6, too.
fn v6() -> SocketAddr {
    client::address("[::1]:5353")
}

/// What a server needs to have both.
const BOTH: [&str; 2] = ["udp,0.0.0.0,5353", "udp,::1,5353"];

/// A flow that this worker has, by its answer.
#[track_caller]
fn flow_of(to: SocketAddr, worker: &str) -> Flow {
    let mut flows = (0..1_000).map(|_| Flow::to(to));
    flows
        .find(|flow| flow.ask() == worker)
        .unwrap_or_else(|| panic!("of 1000 flows {worker} has none"))
}

/// What a flow's entry may be idle in tests that wait for that. Longer than any pause that a client's
/// thread makes for want of a CPU.
const IDLE: Duration = Duration::from_secs(3);

/// The sum of a counter of all groups.
#[track_caller]
fn sum(launcher: &Launcher, counter: &str) -> u64 {
    let status = launcher.status();
    let groups = status.groups().iter();
    groups
        .map(|group| {
            let value = &group[counter];
            value
                .as_u64()
                .unwrap_or_else(|| panic!("{counter} is {value}"))
        })
        .sum()
}
