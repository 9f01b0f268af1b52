//! Steering: a policy is compiled in user space into a [`Table`]; the kernel evaluates
//! `table[index(packet)]`. A table is built whole and never changed: user space writes a new one
//! and replaces a pointer to it.

/// How many members a group can have: the size of the kernel's socket array.
///
/// 256 workers, each with an old and a new generation and two sockets.
pub const MEMBERS_MAX: usize = 1024;

/// The holding socket's place in the socket array: behind those of the members.
pub const HOLD: u16 = MEMBERS_MAX as u16;

/// How many entries a table's sequence can have. With Maglev this bounds the unevenness: 64
/// entries for each of 256 members.
pub const ENTRIES_MAX: usize = 16384;

/// How many entries of the sequence are tried before the list of live members is gone through.
const PROBES: u32 = 4;

const _: () = assert!(MEMBERS_MAX.is_power_of_two() && ENTRIES_MAX.is_power_of_two());

/// The index function: which entry of the table a packet is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Policy {
    /// A counter.
    RoundRobin = 1,
    /// The 4-tuple's hash, as the kernel computed it.
    Hash = 2,
}

/// A compiled policy: what the kernel evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Table {
    /// A [`Policy`] as a number; any other value selects nothing.
    pub policy: u32,
    /// How many of `entries` are used; at most [`ENTRIES_MAX`].
    pub len: u32,
    /// How many of `live` are used; at most [`MEMBERS_MAX`].
    pub live_len: u32,
    /// Not 0: when no member can be selected, [`HOLD`] is tried, so that the connection waits there.
    pub hold: u32,
    /// Each member of the sequence once: the last resort when the probed entries have gone.
    pub live: [u16; MEMBERS_MAX],
    /// The sequence of members.
    pub entries: [u16; ENTRIES_MAX],
}

const _: () = assert!(size_of::<Table>() == 16 + 2 * MEMBERS_MAX + 2 * ENTRIES_MAX);

impl Table {
    /// A table that chooses nobody.
    pub const EMPTY: Self = Self {
        policy: Policy::RoundRobin as u32,
        len: 0,
        live_len: 0,
        hold: 0,
        live: [0; MEMBERS_MAX],
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
}

const _: () = assert!(size_of::<Counters>() == 48);

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

/// What an index function sees of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The hash of the 4-tuple.
    pub hash: u32,
    /// The value of the group's counter, for round-robin; under another policy, any number. It also
    /// says where the search through all live members starts.
    pub turn: u32,
}

/// A selected member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its index in the socket array; [`HOLD`] is the holding socket's.
    pub member: u16,
    /// Whether another one was tried first and had gone.
    pub after_miss: bool,
}

/// Selects a member for `packet`: `select` is called with one candidate after another until it
/// returns true.
///
/// The candidates are the table's entry for the packet, the next few entries, then every live
/// member, so the only member left is always found, and last the holding socket, if the table has
/// one.
#[inline(always)]
pub fn choose(
    table: &Table,
    packet: Packet,
    mut select: impl FnMut(u16) -> bool,
) -> Option<Chosen> {
    let mut after_miss = false;
    if let Some(start) = start(table, packet) {
        // The remainders by the arrays' sizes change nothing in a well-formed table. They are masks
        // (both sizes are powers of two), and what proves to the verifier that every access is in
        // bounds. The index is computed anew in each step, not advanced with a wrap-around, because
        // the verifier would follow both outcomes of the wrap in each step.
        for step in 0..PROBES {
            let index = if step == 0 {
                start
            } else {
                start.wrapping_add(step.wrapping_mul(stride(table, packet))) % table.len
            };
            let member = table.entries[index as usize % ENTRIES_MAX];
            if select(member) {
                return Some(Chosen { member, after_miss });
            }
            after_miss = true;
        }
        let live_len = table.live_len;
        for step in 0..MEMBERS_MAX as u32 {
            if step >= live_len {
                break;
            }
            let index = packet.turn.wrapping_add(step) % live_len;
            let member = table.live[index as usize % MEMBERS_MAX];
            if select(member) {
                return Some(Chosen { member, after_miss });
            }
        }
    }
    if table.hold != 0 && select(HOLD) {
        return Some(Chosen {
            member: HOLD,
            after_miss,
        });
    }
    None
}

/// How far it is from a tried entry to the next: another number each time the same entry is met, so
/// that the turns of a member that has gone are dealt out among all others, not given to a neighbour.
#[inline(always)]
fn stride(table: &Table, packet: Packet) -> u32 {
    let len = table.len;
    if len < 2 {
        return 0;
    }
    let round = if table.policy == Policy::RoundRobin as u32 {
        packet.turn / len
    } else {
        packet.hash
    };
    1 + round % (len - 1)
}

/// The entry whose turn it is; `None` where the table has none, or its policy is unknown.
#[inline(always)]
fn start(table: &Table, packet: Packet) -> Option<u32> {
    let len = table.len;
    if len == 0 || table.live_len == 0 {
        return None;
    }
    if table.policy == Policy::RoundRobin as u32 {
        Some(packet.turn % len)
    } else if table.policy == Policy::Hash as u32 {
        // The high bits of hash × len: a division-free map of 0..2^32 onto 0..len.
        Some(((u64::from(packet.hash) * u64::from(len)) >> 32) as u32)
    } else {
        None
    }
}
