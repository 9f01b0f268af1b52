//! The loads of members, as far as this object counts them: handshakes as they begin, and established
//! connections that move.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_socket_cookie,
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::{SkReuseportContext, SockContext},
};
use launcher_common::{HOLD, Handshakes, Loads, MEMBERS_MAX, epoch};
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
    /// The loads as they are now. (The map has this value always.)
    #[inline(always)]
    pub fn now() -> Option<Self> {
        Some(Self {
            loads: LOADS.get_ptr_mut(0)?,
            // SAFETY: the helper only reads a clock.
            epoch: epoch(unsafe { bpf_ktime_get_coarse_ns() }),
        })
    }

    /// What this member has to do.
    #[inline(always)]
    pub fn of(self, member: u16) -> u32 {
        // SAFETY: points into the map's value, inside it by the remainder. Aligned loads of 8 bytes
        // can't tear.
        let load = unsafe { (*self.loads).members[usize::from(member) % MEMBERS_MAX] };
        load.total(self.epoch)
    }

    /// Counts a handshake that begins.
    #[inline(always)]
    pub fn begin(self, member: u16) {
        if member == HOLD {
            return;
        }
        // SAFETY: points into the map's value, inside it by the remainder.
        unsafe {
            let load = &raw mut (*self.loads).members[usize::from(member) % MEMBERS_MAX];
            update(&raw mut (*load).handshakes, |before| {
                Handshakes(before).begun(self.epoch).0
            });
        }
    }
}

/// Counts an established connection for the member that it moves to, if it is counted at all. (One
/// that is half open will be counted for the listener that it is established on.)
#[inline(always)]
pub fn moves(ctx: &SkReuseportContext, connection: &SockContext, to: u16) {
    // SAFETY: the verifier knows the type of both pointers; neither is null in a migration.
    let (state, from, connection) = unsafe {
        (
            (*connection.sock).state,
            bpf_get_socket_cookie(ctx.sk().as_ptr()),
            bpf_get_socket_cookie(connection.as_ptr()),
        )
    };
    // A socket of its own that is half open (a request for one has another state) is that of TCP Fast
    // Open, which is counted from the SYN.
    if state != ESTABLISHED && state != CLOSE_WAIT && state != SYN_RECV {
        return;
    }
    // SAFETY: both are only tested, or copied at once.
    if let Some(&from) = unsafe { LISTENERS.get(&from) }
        && unsafe { STRAYS.get(&connection) }.is_none()
        && let Some(loads) = LOADS.get_ptr_mut(0)
        && MOVED.insert(&connection, &u32::from(to), 0).is_ok()
    {
        // SAFETY: points into the map's value.
        unsafe {
            fetch_add(&raw mut (*loads).moved, 1);
            add(loads, from, u64::MAX);
            add(loads, u32::from(to), 1);
        }
        return;
    }
    stays(connection);
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

/// Adds to a member's established connections; to nobody's for the holding socket.
///
/// # Safety
/// `loads` must point into a map's value.
#[inline(always)]
unsafe fn add(loads: *mut Loads, member: u32, n: u64) {
    if member == u32::from(HOLD) {
        return;
    }
    // SAFETY: the caller's; inside the value by the remainder.
    unsafe {
        let active = &raw mut (*loads).members[member as usize % MEMBERS_MAX].active;
        fetch_add(active.cast(), n);
    }
}
