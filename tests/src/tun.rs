//! A remote host that the test plays itself, at the far end of a TUN device. It speaks TCP packet by
//! packet, so a test decides what each client sends and when: it can hold a handshake half open,
//! reset it, or send data in the SYN.
//!
//! Two things are answered by themselves, and only on connections that the test has established:
//! data and the server's FIN. Nothing is ever sent again: the device loses nothing as long as fewer
//! than [`QUEUE`] packets wait to be read, and they are read during each [`Remote::wait_until`].

mod connection;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    process::Command,
    time::Instant,
};

use etherparse::{IpSlice, TcpSlice, ip_number};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{PATIENCE, gate};

use connection::{Connection, Flags};

pub use connection::Received;

/// This host's addresses on the device; the remote host's are next to them. From the ranges for
/// documentation (RFC 5737, RFC 3849), which are nobody's.
pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// As [`HOST_V4`].
pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// How many packets the device keeps for the remote host; it drops what comes beyond.
pub const QUEUE: usize = 16_384;

/// A client's number is its port's distance from this one.
const FIRST_PORT: u16 = 1024;

const DEVICE: &str = "tun0";

/// Larger than any packet of the device, whose MTU is 1500.
const PACKET_MAX: usize = 2048;

/// The remote host. Dropping it removes the device. A test has one for its whole duration: another
/// one would begin with the same ports, which this host has not forgotten yet (TIME-WAIT).
#[derive(Debug)]
pub struct Remote {
    device: File,
    connections: Vec<Connection>,
}

/// One of the remote host's clients, which has one connection. It means nothing to another [`Remote`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(u16);

impl Remote {
    /// Makes the device in the calling thread's network namespace. `None`: the test is skipped, and
    /// should return.
    ///
    /// # Panics
    /// When the device can't be made or set up.
    #[must_use]
    pub fn attach() -> Option<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let device = match options.custom_flags(libc::O_NONBLOCK).open("/dev/net/tun") {
            Ok(device) => device,
            Err(error) => {
                gate::skip(&format!("needs /dev/net/tun: {error}"));
                return None;
            }
        };
        name(&device).unwrap_or_else(|error| panic!("{DEVICE}: {error}"));
        let [v4, v6] = [format!("{HOST_V4}/24"), format!("{HOST_V6}/64")];
        ip(&["addr", "add", &v4, "dev", DEVICE]);
        // Nobody else is there to have the address, and looking for them takes a second.
        ip(&["addr", "add", &v6, "dev", DEVICE, "nodad"]);
        let queue = QUEUE.to_string();
        ip(&["link", "set", DEVICE, "up", "txqueuelen", &queue]);
        Some(Self {
            device,
            connections: Vec::new(),
        })
    }

    /// Sends the SYN of a new client, with data in it if there is any (TCP Fast Open, without a
    /// cookie).
    ///
    /// # Panics
    /// When there is no port left, or the device does not take the packet.
    #[track_caller]
    pub fn syn(&mut self, server: SocketAddr, data: &[u8]) -> Client {
        let number = u16::try_from(self.connections.len()).ok();
        let port = number.and_then(|number| number.checked_add(FIRST_PORT));
        let (Some(number), Some(port)) = (number, port) else {
            panic!("no port is left for a client of {server}");
        };
        let address: IpAddr = match server {
            SocketAddr::V4(_) => REMOTE_V4.into(),
            SocketAddr::V6(_) => REMOTE_V6.into(),
        };
        let own = SocketAddr::new(address, port);
        self.connections.push(Connection::new(own, server));
        let client = Client(number);
        self.transmit(client, Flags::SYN, data);
        client
    }

    /// Answers the SYN-ACK, and so completes the handshake.
    ///
    /// # Panics
    /// When the device does not take the packet.
    #[track_caller]
    pub fn ack(&mut self, client: Client) {
        self.send(client, &[]);
    }

    /// Sends data, at most what fits into one packet. Completes the handshake, too, if that has not
    /// been done.
    ///
    /// # Panics
    /// When there was no SYN-ACK, or the device does not take the packet.
    #[track_caller]
    pub fn send(&mut self, client: Client, data: &[u8]) {
        let flags = self.connection(client).establish();
        self.transmit(client, flags, data);
    }

    /// Resets the connection, in whatever state it is.
    ///
    /// # Panics
    /// When the device does not take the packet.
    #[track_caller]
    pub fn reset(&mut self, client: Client) {
        self.transmit(client, Flags::RST, &[]);
    }

    /// What has come to a client, as of the last [`Remote::wait_until`].
    #[must_use]
    pub fn received(&self, client: Client) -> &Received {
        &self.connections[usize::from(client.0)].received
    }

    /// Reads packets until `wanted`.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read_all();
            if wanted(self) {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}:\n{self}");
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// Waits until `wanted` is true of what each of these clients has received.
    ///
    /// # Panics
    /// As [`Remote::wait_until`].
    #[track_caller]
    pub fn wait_for_each(
        &mut self,
        clients: &[Client],
        what: &str,
        wanted: impl Fn(&Received) -> bool,
    ) {
        self.wait_until(what, |remote| {
            let mut clients = clients.iter();
            clients.all(|&client| wanted(remote.received(client)))
        });
    }

    fn connection(&mut self, client: Client) -> &mut Connection {
        &mut self.connections[usize::from(client.0)]
    }

    #[track_caller]
    fn read_all(&mut self) {
        let mut buffer = [0; PACKET_MAX];
        loop {
            match self.device.read(&mut buffer) {
                Ok(len) => self.take(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{DEVICE}: {error}"),
            }
        }
    }

    /// Takes a packet in. What is not TCP is the kernel's own: it looks for IPv6 routers.
    fn take(&mut self, packet: &[u8]) {
        let ip = IpSlice::from_slice(packet).expect("the kernel sends IP packets");
        if ip.payload_ip_number() != ip_number::TCP {
            return;
        }
        let tcp = TcpSlice::from_slice(ip.payload().payload).expect("the kernel sends valid TCP");
        let server = SocketAddr::new(ip.source_addr(), tcp.source_port());
        let number = tcp.destination_port().checked_sub(FIRST_PORT);
        let Some(client) = number.map(Client).filter(|client| {
            let connection = self.connections.get(usize::from(client.0));
            connection.is_some_and(|connection| connection.server == server)
        }) else {
            return;
        };
        if let Some(answer) = self.connection(client).take(&tcp) {
            self.transmit(client, answer, &[]);
        }
    }

    #[track_caller]
    fn transmit(&mut self, client: Client, flags: Flags, data: &[u8]) {
        let packet = self.connection(client).packet(flags, data);
        let written = self.device.write(&packet);
        let whole = written.unwrap_or_else(|error| panic!("{DEVICE}: {error}"));
        assert_eq!(whole, packet.len(), "a packet is taken whole");
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Connection { own, received, .. } in &self.connections {
            writeln!(f, "  {own}: {received:?}")?;
        }
        Ok(())
    }
}

/// Makes the device behind this file, which the kernel removes when the file is closed.
fn name(device: &File) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(DEVICE.bytes()) {
        *to = from.cast_signed();
    }
    // Packets of IP, with nothing before them.
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: flags.try_into().expect("two of 16 bits"),
        },
    };
    // SAFETY: TUNSETIFF reads an `ifreq` and writes one back, both before it returns.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result).map(drop).map_err(Into::into)
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let status = Command::new(gate::path_of("ip")).args(arguments).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "ip {arguments:?}"
    );
}
