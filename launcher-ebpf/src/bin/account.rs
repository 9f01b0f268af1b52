//! Accounting: counts the established connections of each worker, from the moment that they are
//! established until either side is done. Attached to the workers' cgroups, and to those of the holding
//! sockets, while `least-conn` needs it.
//!
//! A connection has its listener's cgroup, also when its worker is gone, and what is attached to that
//! knows whose it is: nothing has to be stored with the connection. What moves to another worker when
//! its listener goes keeps the cgroup, so `steer` notes it in `MOVED`.
#![no_std]
#![no_main]
#![expect(
    deprecated,
    reason = "programs of this type can't ask for the newer kind of cgroup storage"
)]

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_NO_PREALLOC, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED,
        BPF_TCP_FIN_WAIT1, BPF_TCP_LAST_ACK, BPF_TCP_SYN_RECV,
    },
    btf_maps::{Array, CgroupStorage, HashMap},
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_coarse_ns},
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use launcher_common::{HOLD, Handshakes, Load, Loads, MEMBERS_MAX, MOVED_MAX, epoch};
use launcher_ebpf::{fetch_add, update};

/// One more than the seat of the worker whose cgroup it is, or than [`HOLD`]; 0 until the launcher has
/// told.
#[btf_map]
static SEATS: CgroupStorage<u64> = CgroupStorage::new();

/// How busy each worker is. Connections are counted here, handshakes in `steer`.
#[btf_map]
static LOADS: Array<Loads, 1> = Array::new();

/// By the cookie of a counted connection that has moved to another worker: that one's seat, or [`HOLD`].
#[btf_map]
static MOVED: HashMap<u64, u32, MOVED_MAX, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Not 0: connections that begin are counted. If not, only the ends of those that were.
#[btf_map]
static COUNTING: Array<u64, 1> = Array::new();

/// Runs on every connection's events in a worker's cgroup.
#[sock_ops]
pub fn account(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(&ctx),
        BPF_SOCK_OPS_STATE_CB if ends(ctx.arg(0), ctx.arg(1)) => closed(&ctx),
        _ => {}
    }
    1
}

/// Whether a connection ends with this change of its state: it does so once. Not with CLOSE-WAIT, in
/// which the worker may still send. One that has not been established for long, by TCP Fast Open, is
/// in SYN-RECEIVED yet.
#[inline(always)]
fn ends(before: u32, after: u32) -> bool {
    matches!(after, BPF_TCP_FIN_WAIT1 | BPF_TCP_LAST_ACK | BPF_TCP_CLOSE)
        && matches!(
            before,
            BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT | BPF_TCP_SYN_RECV
        )
}

#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let Some(seat) = seat() else {
        return;
    };
    if COUNTING.get(0).is_none_or(|&counting| counting == 0) {
        return;
    }
    // Its end is told of only if it is asked for. So what began before anybody counted isn't counted
    // when it ends. Others may have asked to be told of other things.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    if ctx.set_cb_flags(flags as i32).is_err() {
        return;
    }
    let Some(load) = load(seat) else {
        return;
    };
    // SAFETY: points into the map's value.
    unsafe {
        fetch_add(&raw mut (*load).active, 1);
        let epoch = epoch(bpf_ktime_get_coarse_ns());
        update(&raw mut (*load).handshakes, |before| {
            Handshakes(before).completed(epoch).0
        });
    }
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let Some(mut seat) = seat() else {
        return;
    };
    // SAFETY: points into the map's value; an aligned load of 8 bytes can't tear. Nobody else removes
    // this connection's entry, because its socket is locked here and when it moves, and what it says
    // is copied at once.
    unsafe {
        if LOADS.get_ptr(0).is_some_and(|loads| (*loads).moved != 0) {
            let connection = bpf_get_socket_cookie(ctx.as_ptr());
            if let Some(&to) = MOVED.get(&connection) {
                seat = to;
                let _ = MOVED.remove(&connection);
            }
        }
    }
    let Some(load) = load(seat) else {
        return;
    };
    // SAFETY: points into the map's value.
    unsafe {
        let active = &raw mut (*load).active;
        // Somebody else may have asked to be told of a connection that was never counted.
        if fetch_add(active, u64::MAX) == 0 {
            fetch_add(active, 1);
        }
    }
}

/// Whose the connections of this cgroup are.
#[inline(always)]
fn seat() -> Option<u32> {
    // SAFETY: points to the cgroup's value, which the launcher replaces whole.
    let told = unsafe { *SEATS.get_ptr_mut() };
    (told != 0).then(|| told as u32 - 1)
}

/// The load of a seat; `None` for that of the holding sockets.
#[inline(always)]
fn load(seat: u32) -> Option<*mut Load> {
    if seat == u32::from(HOLD) {
        return None;
    }
    let loads = LOADS.get_ptr_mut(0)?;
    // SAFETY: inside the map's value by the remainder.
    Some(unsafe { &raw mut (*loads).seats[seat as usize % MEMBERS_MAX] })
}

launcher_ebpf::license!();
