//! The loads of workers, as far as this object counts them: handshakes as they begin, and established
//! connections that move.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::{SkReuseportContext, SockContext},
};
use launcher_common::{HOLD, Handshakes, Load, Loads, MEMBERS_MAX, Share, Table, epoch};
use launcher_ebpf::{fetch_add, update};

use crate::maps::{LISTENERS, LOADS, MOVED, STRAYS};

/// Of bpf_sock's states (`enum` of TCP states, include/uapi/linux/bpf.h): connections that are counted.
const ESTABLISHED: u32 = 1;
const SYN_RECV: u32 = 3;
const CLOSE_WAIT: u32 = 8;

/// What `least-conn` knows when it compares members.
#[derive(Clone, Copy)]
pub struct View {
    loads: *mut Loads,
    epoch: u64,
}

impl View {
    /// The loads as they are now. (They are there under `least-conn`.)
    #[inline(always)]
    pub fn now() -> Option<Self> {
        Some(Self {
            loads: LOADS.get_value_ptr_mut(0, &0)?,
            // SAFETY: the helper only reads a clock.
            epoch: epoch(unsafe { bpf_ktime_get_coarse_ns() }),
        })
    }

    /// What this member's worker has to do.
    #[inline(always)]
    pub fn of(self, share: Share) -> u32 {
        // SAFETY: points into the map's value. Aligned loads of 8 bytes can't tear.
        let load = unsafe { *self.load(share.seat.into()) };
        load.total(self.epoch)
    }

    /// Counts a handshake that begins at this member.
    #[inline(always)]
    pub fn begin(self, table: &Table, member: u16) {
        if member == HOLD {
            return;
        }
        // SAFETY: points into the map's value.
        unsafe {
            let load = self.load(seat(table, member));
            update(&raw mut (*load).handshakes, |before| {
                Handshakes(before).begun(self.epoch).0
            });
        }
    }

    /// Counts an established connection for the member that it moves to, if it is counted at all. (One
    /// that is half open will be counted for the listener that it is established on.)
    #[inline(always)]
    pub fn moves(self, ctx: &SkReuseportContext, connection: &SockContext, table: &Table, to: u16) {
        // SAFETY: the verifier knows the type of both pointers; neither is null in a migration.
        let (state, from, connection) = unsafe {
            (
                (*connection.sock).state,
                bpf_get_socket_cookie(ctx.sk().as_ptr()),
                bpf_get_socket_cookie(connection.as_ptr()),
            )
        };
        // A socket of its own that is half open (a request for one has another state) is that of TCP
        // Fast Open, which is counted from the SYN.
        if state != ESTABLISHED && state != CLOSE_WAIT && state != SYN_RECV {
            return;
        }
        let to = seat(table, to);
        // SAFETY: both are only tested, or copied at once.
        if let Some(&from) = unsafe { LISTENERS.get(&from) }
            && unsafe { STRAYS.get(&connection) }.is_none()
            && let Some(moved) = MOVED.get(0)
            && moved.insert(&connection, &to, 0).is_ok()
        {
            // SAFETY: points into the map's value.
            unsafe { fetch_add(&raw mut (*self.loads).moved, 1) };
            self.add(from, u64::MAX);
            self.add(to, 1);
            return;
        }
        stays(connection);
    }

    /// Adds to a worker's established connections; to nobody's for the holding socket.
    #[inline(always)]
    fn add(self, seat: u32, n: u64) {
        if seat != u32::from(HOLD) {
            // SAFETY: points into the map's value.
            unsafe { fetch_add(&raw mut (*self.load(seat)).active, n) };
        }
    }

    /// Inside the map's value by the remainder.
    #[inline(always)]
    fn load(self, seat: u32) -> *mut Load {
        // SAFETY: only an address in the value is computed.
        unsafe { &raw mut (*self.loads).seats[seat as usize % MEMBERS_MAX] }
    }
}

/// The seat of a member's worker; [`HOLD`] is the holding socket's.
#[inline(always)]
fn seat(table: &Table, member: u16) -> u32 {
    if member == HOLD {
        return HOLD.into();
    }
    table.shares[usize::from(member) % MEMBERS_MAX].seat.into()
}

/// Leaves a connection that moves counted where it is, if it is, and whatever comes.
#[inline(always)]
pub fn stray(connection: &SockContext) {
    // SAFETY: the verifier knows the type of the pointer, which is not null in a migration.
    stays(unsafe { bpf_get_socket_cookie(connection.as_ptr()) });
}

#[inline(always)]
fn stays(connection: u64) {
    // Without room for it (the map evicts what is old), it would be counted once where it is not, when
    // it moves another time.
    let _ = STRAYS.insert(&connection, &0, 0);
}
