//! Steering: a policy is compiled in user space into a [`Table`]; the kernel evaluates
//! `table[index(packet)]`. A table is built whole and never changed: user space writes a new one
//! and replaces a pointer to it.

#[cfg(feature = "user")]
use crate::Loads;
use crate::SCAN_MAX;

/// How many members a group can have: the size of the kernel's socket array.
///
/// 256 workers, each with an old and a new generation and two sockets.
pub const MEMBERS_MAX: usize = 1024;

/// The holding socket's place in the socket array: behind those of the members.
pub const HOLD: u16 = MEMBERS_MAX as u16;

/// How many entries a table's sequence can have. With Maglev this bounds the unevenness: 64
/// entries for each of 256 members.
pub const ENTRIES_MAX: usize = 16384;

const _: () = assert!(MEMBERS_MAX.is_power_of_two() && ENTRIES_MAX.is_power_of_two());

/// The index function: from which number the entry of the table follows. [`choose`](crate::choose())
/// is called with that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Policy {
    /// A counter.
    RoundRobin = 1,
    /// The 4-tuple's hash, as the kernel computed it.
    Hash = 2,
    /// A counter; the entry is what the search for the least busy member begins with.
    LeastConn = 3,
    /// The hash of the client's address; see [`source_key`](crate::source_key).
    Source = 4,
    /// The CPU that handles the packet, and the hash where it has several entries.
    Cpu = 5,
    /// A random number.
    Random = 6,
}

/// What `least-conn` compares a member by: in one word, so that the search reads little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Share {
    /// The member's share of the load, relative to the others'.
    pub weight: u16,
    /// Its worker's place in [`Loads`](crate::Loads); below [`MEMBERS_MAX`].
    pub seat: u16,
}

const _: () = assert!(size_of::<Share>() == 4);

impl Share {
    /// That of a member that is not in the table.
    pub const NONE: Self = Self { weight: 0, seat: 0 };
}

/// A compiled policy: what the kernel evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Table {
    /// A [`Policy`] as a number; any other value selects nothing.
    pub policy: u32,
    /// How many of `entries` are used; at most [`ENTRIES_MAX`].
    pub len: u32,
    /// How many members are in `live`; at most [`MEMBERS_MAX`].
    pub live_len: u32,
    /// Not 0: when no member can be selected, [`HOLD`] is tried, so that the connection waits there.
    pub hold: u32,
    /// Under `source`: how many bits of an IPv4 address make a client.
    pub source_v4: u32,
    /// Under `source`: how many bits of an IPv6 address make a client.
    pub source_v6: u32,
    /// Under `least-conn`: how many of the members in `live` are looked at for one connection: all, but
    /// at most [`SCAN_MAX`].
    pub scan_len: u32,
    /// Under `cpu`: how many entries each CPU has, one after another; see
    /// [`cpu_number`](crate::cpu_number()).
    pub rounds: u32,
    /// How long, in ns, a flow of datagrams may be idle and still stay with its member, whatever the
    /// table says by then. 0: each datagram is on its own.
    pub flow_timeout: u64,
    /// Each member of the sequence once: what `least-conn` searches, and the last resort when the
    /// tried entries have gone. Behind the last one come the first [`SCAN_MAX`] again (fewer if there
    /// are fewer), so that a search needs no wrap-around.
    pub live: [u16; MEMBERS_MAX + SCAN_MAX as usize],
    /// The share of each member in `live`, in the same place.
    pub live_shares: [Share; MEMBERS_MAX + SCAN_MAX as usize],
    /// The same by member; [`Share::NONE`] for those that are not in the table.
    pub shares: [Share; MEMBERS_MAX],
    /// The sequence of members.
    pub entries: [u16; ENTRIES_MAX],
}

const _: () = assert!(
    size_of::<Table>()
        == 40 + 6 * (MEMBERS_MAX + SCAN_MAX as usize) + 4 * MEMBERS_MAX + 2 * ENTRIES_MAX
);

impl Table {
    /// A table that chooses nobody.
    pub const EMPTY: Self = Self {
        policy: Policy::RoundRobin as u32,
        len: 0,
        live_len: 0,
        hold: 0,
        source_v4: 32,
        source_v6: 128,
        scan_len: 0,
        rounds: 0,
        flow_timeout: 0,
        live: [0; MEMBERS_MAX + SCAN_MAX as usize],
        live_shares: [Share::NONE; MEMBERS_MAX + SCAN_MAX as usize],
        shares: [Share::NONE; MEMBERS_MAX],
        entries: [0; ENTRIES_MAX],
    };
}

/// What the kernel counts for one member, or (at index [`MEMBERS_MAX`]) for the group; per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// New connections (TCP) or datagrams (UDP) sent to this member.
    pub selected: u64,
    /// Connections that moved to this member because their listener had gone.
    pub migrated: u64,
    /// Group only: selections for which the member whose turn it was had gone.
    pub missed: u64,
    /// Group only: no member could be selected, so the kernel's hash decided.
    pub fell_through: u64,
    /// Group only: the table was empty, so the connection was refused.
    pub refused: u64,
    /// Group only: no member could be selected, so the connection went to the holding socket.
    pub held: u64,
    /// Group only: flows of datagrams that were new to the flow table.
    pub flows: u64,
}

const _: () = assert!(size_of::<Counters>() == 56);

/// A flow of datagrams: those from one address and port to one address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// The bytes of the source address, then of the destination's, in network byte order: 4 each, or
    /// 16 if `v6`; the others are 0.
    pub addresses: [u64; 4],
    /// The source port in host byte order.
    pub port: u32,
    /// Not 0: IPv6.
    pub v6: u32,
}

const _: () = assert!(size_of::<Flow>() == 40);

/// Where a [`Flow`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowState {
    /// The member's index in the socket array.
    pub member: u32,
    /// The number of that member's socket when it was chosen: whoever has its place by then, a flow stays
    /// only with that one. 0 is no socket's.
    pub socket: u32,
    /// When its last datagram came: ns of the monotonic clock, as coarse as its tick.
    pub last: u64,
}

const _: () = assert!(size_of::<FlowState>() == 16);

impl FlowState {
    /// Whether the flow still stays with its member, whose place belongs to the socket with this number
    /// (0: to nobody with whom flows stay). It does not say whether that one can be selected.
    #[inline(always)]
    #[must_use]
    pub fn stays(&self, socket: u32, now: u64, timeout: u64) -> bool {
        socket != 0 && socket == self.socket && now.saturating_sub(self.last) < timeout
    }
}

/// Where a probe comes from: the launcher's own connections to one worker through the shared port
/// are told by their source, which no other connection can have as long as they last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ProbeSource {
    /// The source address in network byte order; IPv4 uses the first four bytes, the others are 0.
    pub address: [u8; 16],
    /// The source port in host byte order.
    pub port: u32,
    /// Not 0: IPv6.
    pub v6: u32,
}

const _: () = assert!(size_of::<ProbeSource>() == 24);

// SAFETY: plain integers without padding (asserted above), so every byte pattern is valid and every
// byte is initialised.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Table {}

// SAFETY: as for `Table`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}

// SAFETY: as for `Table`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for ProbeSource {}

// SAFETY: as for `Table`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Flow {}

// SAFETY: as for `Table`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FlowState {}

// SAFETY: as for `Table`.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Loads {}
