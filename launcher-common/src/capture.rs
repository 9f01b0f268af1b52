//! What the capture programs report to user space through their ring buffer.

/// What happened to a captured socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// `bind` succeeded. A UDP socket is a member of its group from here on; a TCP socket becomes
    /// one when it listens.
    Bound = 1,
    /// `listen` succeeded on a TCP socket.
    Listening = 2,
    /// The address belongs to a socket that is not of this fleet: `SO_REUSEPORT` was withheld, so
    /// `bind` fails with `EADDRINUSE`, as it would without the launcher.
    Taken = 3,
    /// `bind` is about to be tried, shareable. If no [`EventKind::Bound`] follows, it failed.
    Binding = 4,
    /// The kernel refused to set `SO_REUSEPORT`: nothing can be shared.
    Refused = 5,
}

impl EventKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Bound),
            2 => Some(Self::Listening),
            3 => Some(Self::Taken),
            4 => Some(Self::Binding),
            5 => Some(Self::Refused),
            _ => None,
        }
    }
}

/// One record of the `EVENTS` ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct CaptureEvent {
    /// An [`EventKind`] as a number.
    pub kind: u32,
    /// The errno of [`EventKind::Refused`]; else 0.
    pub errno: u32,
    /// The cgroup v2 id of the process that bound the socket: tells the worker. (Its pid would not:
    /// here it is that of the initial pid namespace, whatever namespace the launcher is in.)
    pub cgroup: u64,
    /// The socket's cookie (`SO_COOKIE`): unique while the machine runs.
    pub cookie: u64,
    /// The local address in network byte order; IPv4 uses the first four bytes.
    pub address: [u8; 16],
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// `IPPROTO_TCP` (6) or `IPPROTO_UDP` (17).
    pub protocol: u16,
    /// The local port in host byte order.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
}

const _: () = assert!(size_of::<CaptureEvent>() == 48);
