//! The TCP connections of a port, in whatever state: what a worker that is to go still has to do.

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use netlink_packet_sock_diag::{
    constants::{
        IPPROTO_TCP, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
        TCP_LAST_ACK, TCP_SYN_RECV,
    },
    inet::{InetResponse, StateFlags, Timer},
};

use super::sock_diag;

/// For how many ports the kernel is asked one by one.
const DUMPS: usize = 8;

/// Where a connection to a port of ours is in TCP's life (RFC 9293, 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client's last word in the handshake is missing.
    HalfOpen,
    /// Both sides may send.
    Established,
    /// The client has finished; our side may still send.
    CloseWait,
    /// Our side has finished (FIN-WAIT-1 and -2, CLOSING, LAST-ACK).
    Closing,
}

/// A connection, or a request for one, to a local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Our side.
    pub local: SocketAddr,
    /// The client.
    pub peer: SocketAddr,
    /// The inode number of its socket, which names it in `/proc/PID/fd`; 0 while no process has it:
    /// not accepted yet, or closed already.
    pub inode: u32,
    /// Its state.
    pub state: State,
    /// Bytes that have arrived and were not read.
    pub receive_queue: u32,
    /// Bytes that were written and that the client has not acknowledged.
    pub send_queue: u32,
    /// For how long it has been half open, by its timer. Exact while the client is silent, as in a
    /// SYN flood; too long when the client has repeated its SYN, because each answer is counted
    /// as if the timer had run out. `None` where that can't be told.
    pub half_open_for: Option<Duration>,
}

impl Connection {
    /// Whether it waits in the accept queue of a listener.
    ///
    /// A socket that its process has closed has no inode either, but is never in these two states:
    /// `close` sends a FIN or an RST.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.inode == 0 && matches!(self.state, State::Established | State::CloseWait)
    }
}

/// Lists the connections to these local ports, over IPv4 and IPv6. IPv4 clients of an IPv6 socket
/// have mapped addresses (`::ffff:…`), on both sides.
///
/// Not listed: listeners, TIME-WAIT, what the kernel keeps of a FIN-WAIT-2 whose socket is gone (it
/// calls that TIME-WAIT too, `inet_timewait_sock`), and what waits in an accept queue although the
/// client has reset it (that still counts in [`Listener::queue`](super::listeners::Listener::queue)).
///
/// The kernel copies its tables in pieces, so a connection that comes, goes or changes its state
/// meanwhile may be missing: that there is none is sure only when asked twice.
///
/// # Errors
/// Those of the netlink socket.
pub fn connections(ports: &BTreeSet<u16>) -> io::Result<Vec<Connection>> {
    let states = StateFlags::SYN_RECV
        | StateFlags::ESTABLISHED
        | StateFlags::CLOSE_WAIT
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSING
        | StateFlags::LAST_ACK;
    let mut found = Vec::new();
    for port in asked(ports) {
        sock_diag::dump(IPPROTO_TCP, states.clone(), port, |response| {
            let here = |connection: &Connection| ports.contains(&connection.local.port());
            found.extend(connection(&response).filter(here));
        })?;
    }
    Ok(found)
}

/// For which ports to ask: the kernel compares a single one itself, to which 0 is any; each dump goes
/// through all its tables, though.
pub(super) fn asked(ports: &BTreeSet<u16>) -> Vec<u16> {
    if ports.len() > DUMPS {
        vec![0]
    } else {
        ports.iter().copied().filter(|&port| port != 0).collect()
    }
}

fn connection(response: &InetResponse) -> Option<Connection> {
    let header = &response.header;
    let state = match header.state {
        TCP_SYN_RECV => State::HalfOpen,
        TCP_ESTABLISHED => State::Established,
        TCP_CLOSE_WAIT => State::CloseWait,
        TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSING | TCP_LAST_ACK
            if header.timer != Some(Timer::TimeWait) =>
        {
            State::Closing
        }
        _ => return None,
    };
    let half_open_for = match header.timer {
        Some(Timer::Retransmit(expires, times)) if state == State::HalfOpen => {
            half_open_for(expires, times)
        }
        _ => None,
    };
    let id = &header.socket_id;
    Some(Connection {
        local: sock_diag::local(id),
        peer: SocketAddr::new(id.destination_address, id.destination_port),
        inode: header.inode,
        state,
        receive_queue: header.recv_queue,
        send_queue: header.send_queue,
        half_open_for,
    })
}

/// How old a request for a connection is, from when its timer `expires` and how many times our
/// SYN-ACK was sent again: the timer starts with one second and doubles each time, up to two
/// minutes (`TCP_TIMEOUT_INIT`, `tcp_reqsk_timeout`, `TCP_RTO_MAX`). `None` where the kernel counts
/// otherwise (`TCP_DEFER_ACCEPT`; a first timeout that a program has set).
fn half_open_for(expires: Duration, times: u8) -> Option<Duration> {
    let interval = |number: u8| {
        Duration::from_secs(
            1_u64
                .checked_shl(number.into())
                .unwrap_or(u64::MAX)
                .min(120),
        )
    };
    let passed = interval(times).checked_sub(expires)?;
    Some((0..times).map(interval).sum::<Duration>() + passed)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpListener, TcpStream},
        os::fd::AsRawFd as _,
        time::Instant,
    };

    use socket2::{Domain, Protocol, SockAddr, Socket, Type};

    use super::*;
    use crate::sys::listeners::sockets_of;

    fn to(listener: &TcpListener) -> SocketAddr {
        listener.local_addr().expect("bound")
    }

    fn list(listener: &TcpListener) -> Vec<Connection> {
        connections(&BTreeSet::from([to(listener).port()])).expect("sock_diag")
    }

    /// The list once it is as it must become: the other side's segments take a moment, and so does a
    /// close, when another test is starting a child, which shares our sockets until it runs its program.
    fn await_list(
        listener: &TcpListener,
        expected: impl Fn(&[Connection]) -> bool,
    ) -> Vec<Connection> {
        let started = Instant::now();
        loop {
            let found = list(listener);
            if expected(&found) {
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{found:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_connection_is_seen_from_its_queue_to_its_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("loopback");
            assert_eq!(list(&listener), []);

            let mut client = TcpStream::connect(to(&listener)).expect("connected");
            client.write_all(b"hello").expect("sent");
            let [waiting] = &await_list(&listener, |all| {
                all.iter().any(|one| one.receive_queue == 5)
            })[..] else {
                panic!("one connection");
            };
            assert!(waiting.waits());
            assert_eq!(waiting.state, State::Established);
            assert_eq!(waiting.local, to(&listener));
            assert_eq!(waiting.peer, client.local_addr().expect("bound"));
            assert_eq!(waiting.half_open_for, None);

            let (mut accepted, _) = listener.accept().expect("accepted");
            accepted.read_exact(&mut [0; 5]).expect("received");
            let [open] = &list(&listener)[..] else {
                panic!("one connection");
            };
            assert!(!open.waits() && open.state == State::Established && open.receive_queue == 0);
            assert!(sockets_of(std::process::id()).contains(&open.inode));

            client.shutdown(Shutdown::Write).expect("shut down");
            await_list(&listener, |all| {
                all.iter().any(|one| one.state == State::CloseWait)
            });
            // The kernel has received all of it, so that closing sends a FIN and no RST.
            drop(accepted);
            assert_eq!(client.read(&mut [0]).expect("the end"), 0);
            await_list(&listener, <[_]>::is_empty);
        }
    }

    #[test]
    fn many_ports_are_asked_for_like_few() {
        let [listener, other] =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("loopback"));
        let client = TcpStream::connect(to(&listener)).expect("connected");
        let _beside = TcpStream::connect(to(&other)).expect("connected");
        let port = to(&listener).port();
        // Ports on which nothing listens that this test knows of, and the one.
        let mut ports: BTreeSet<u16> = (1..).take(DUMPS).collect();
        ports.insert(port);
        let found = connections(&ports).expect("sock_diag");
        let peers = found.iter().filter(|one| one.local.port() == port);
        let peers: Vec<SocketAddr> = peers.map(|one| one.peer).collect();
        assert_eq!(peers, [client.local_addr().expect("bound")]);
        assert!(found.iter().all(|one| ports.contains(&one.local.port())));
    }

    #[test]
    fn a_client_that_has_finished_still_waits_to_be_accepted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let client = TcpStream::connect(to(&listener)).expect("connected");
        client.shutdown(Shutdown::Write).expect("shut down");
        let found = await_list(&listener, |all| {
            all.iter().any(|one| one.state == State::CloseWait)
        });
        assert!(found.len() == 1 && found[0].waits(), "{found:?}");
    }

    #[test]
    fn a_socket_that_its_process_has_closed_is_closing_until_the_client_has_all() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut client = TcpStream::connect(to(&listener)).expect("connected");
        let (mut accepted, _) = listener.accept().expect("accepted");
        accepted.set_nonblocking(true).expect("non-blocking");
        // More than the client's kernel takes.
        while accepted.write(&[0; 65536]).is_ok() {}
        drop(accepted);
        let found = await_list(&listener, |all| all.iter().any(|one| one.inode == 0));
        let [closing] = &found[..] else {
            panic!("one connection");
        };
        assert!(closing.state == State::Closing && !closing.waits());
        assert!(closing.send_queue > 0);
        // Once the client has all and its FIN is missing only, there is nothing left to do here.
        client.read_to_end(&mut Vec::new()).expect("received");
        await_list(&listener, <[_]>::is_empty);
    }

    #[test]
    fn a_handshake_without_its_last_word_is_half_open() {
        let listener =
            Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&SockAddr::from(loopback)).expect("bound");
        // The kernel passes over an acknowledgement without data and waits for the data.
        let seconds: libc::c_int = 10;
        // SAFETY: the option's value is an int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_DEFER_ACCEPT,
                (&raw const seconds).cast(),
                size_of_val(&seconds) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0);
        listener.listen(8).expect("listening");
        let listener = TcpListener::from(listener);

        let started = Instant::now();
        let client = TcpStream::connect(to(&listener)).expect("connected");
        let [half] = &list(&listener)[..] else {
            panic!("one connection");
        };
        assert!(half.state == State::HalfOpen && !half.waits() && half.inode == 0);
        assert_eq!(half.peer, client.local_addr().expect("bound"));
        let age = half.half_open_for.expect("known");
        // The kernel's clock ticks at least every 10 ms.
        assert!(
            age <= started.elapsed() + Duration::from_millis(20),
            "{age:?}"
        );
    }

    #[test]
    fn a_request_ages_with_its_timer() {
        let age = |expires, times| half_open_for(Duration::from_millis(expires), times);
        assert_eq!(age(1000, 0), Some(Duration::ZERO));
        assert_eq!(age(400, 0), Some(Duration::from_millis(600)));
        assert_eq!(age(2000, 1), Some(Duration::from_secs(1)));
        assert_eq!(age(500, 2), Some(Duration::from_millis(6500)));
        assert_eq!(age(120_000, 7), Some(Duration::from_secs(127)));
        assert_eq!(age(0, 255), Some(Duration::from_secs(127 + 249 * 120)));
        assert_eq!(age(1001, 0), None);
        assert_eq!(age(200_000, 9), None);
    }
}
