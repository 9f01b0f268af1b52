//! Accounting: counts the established connections of each member, from the moment that they are
//! established until either side is done. Attached to the fleet's cgroup while `least-conn` needs it.
//!
//! A listener's tag says whose its connections are: the kernel copies it to each of them. What moves to
//! another member when its listener goes keeps the tag, so `steer` notes it in `MOVED`.
#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE, BPF_TCP_FIN_WAIT1, BPF_TCP_LAST_ACK,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    btf_maps::{Array, HashMap, HashOfMaps},
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_coarse_ns, bpf_sk_storage_get},
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use launcher_common::{HOLD, Handshakes, Loads, MEMBERS_MAX, MOVED_MAX, Tag, epoch};
use launcher_ebpf::{fetch_add, update};

/// Socket storage whose values are copied from a listener to its connections. (aya's own has neither
/// the flag, nor a way to it from this type of program.)
#[repr(C)]
struct Inherited<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are never followed: their types are what the loader reads.
unsafe impl<T> Sync for Inherited<T> {}

/// Whose a listener is, and a connection; see [`Tag`].
#[btf_map]
static TAGS: Inherited<Tag> = Inherited {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// How many groups can be counted at a time: ports of the workers, and addresses.
const GROUPS_MAX: usize = 4096;

/// The groups' `LOADS`, each by its own id.
#[btf_map]
static LOADS_OF: HashOfMaps<u32, Array<Loads, 1>, GROUPS_MAX, { BPF_F_NO_PREALLOC as usize }> =
    HashOfMaps::new();

/// The groups' `MOVED`, by the same id.
#[btf_map]
static MOVED_OF: HashOfMaps<
    u32,
    HashMap<u64, u32, MOVED_MAX, { BPF_F_NO_PREALLOC as usize }>,
    GROUPS_MAX,
    { BPF_F_NO_PREALLOC as usize },
> = HashOfMaps::new();

/// Runs on every connection's events in the fleet's cgroup.
#[sock_ops]
pub fn account(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(&ctx),
        // Not CLOSE-WAIT, in which the worker may still send. The first change that is told of is the
        // one to ESTABLISHED.
        BPF_SOCK_OPS_STATE_CB
            if matches!(
                ctx.arg(1),
                BPF_TCP_FIN_WAIT1 | BPF_TCP_LAST_ACK | BPF_TCP_CLOSE
            ) =>
        {
            closed(&ctx);
        }
        _ => {}
    }
    1
}

#[inline(always)]
fn established(ctx: &SockOpsContext) {
    let Some(tag) = tag(ctx) else {
        return;
    };
    // SAFETY: points to this connection's own tag, and its socket is locked, so nobody else writes it.
    let Tag {
        loads,
        member,
        counted,
        ..
    } = unsafe { *tag };
    // Two of us run on each event for a moment, when a launcher takes over from another.
    if counted != 0 {
        return;
    }
    let Some(loads) = loads_of(loads) else {
        return;
    };
    // Others may have asked to be told of other things.
    let flags = ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG;
    if ctx.set_cb_flags(flags as i32).is_err() {
        return;
    }
    // SAFETY: as above.
    unsafe { (*tag).counted = 1 };
    if member == u32::from(HOLD) {
        return;
    }
    // SAFETY: points into the map's value, inside it by the remainder.
    unsafe {
        let load = &raw mut (*loads).members[member as usize % MEMBERS_MAX];
        fetch_add(&raw mut (*load).active, 1);
        let epoch = epoch(bpf_ktime_get_coarse_ns());
        update(&raw mut (*load).handshakes, |before| {
            Handshakes(before).completed(epoch).0
        });
    }
}

#[inline(always)]
fn closed(ctx: &SockOpsContext) {
    let Some(tag) = tag(ctx) else {
        return;
    };
    // SAFETY: as in `established`.
    let Tag {
        loads: id,
        mut member,
        counted,
        ..
    } = unsafe { *tag };
    if counted == 0 {
        return;
    }
    // SAFETY: as in `established`.
    unsafe { (*tag).counted = 0 };
    let Some(loads) = loads_of(id) else {
        return;
    };
    // SAFETY: points into the map's value; nobody else removes this connection's entry, because its
    // socket is locked here and when it moves, and what it says is copied at once.
    unsafe {
        if (*loads).moved != 0
            && let Some(moved) = MOVED_OF.get(&id)
        {
            let connection = bpf_get_socket_cookie(ctx.as_ptr());
            if let Some(&to) = moved.get(&connection) {
                member = to;
                let _ = moved.remove(&connection);
            }
        }
    }
    if member == u32::from(HOLD) {
        return;
    }
    // SAFETY: points into the map's value, inside it by the remainder.
    unsafe {
        let load = &raw mut (*loads).members[member as usize % MEMBERS_MAX];
        fetch_add(&raw mut (*load).active, u64::MAX);
    }
}

/// The tag of the context's socket.
#[inline(always)]
fn tag(ctx: &SockOpsContext) -> Option<*mut Tag> {
    // SAFETY: the verifier checks the access; null is checked.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: a lookup without creation, whose result is null or the tag.
    let tag = unsafe {
        bpf_sk_storage_get(
            (&raw const TAGS).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    (!tag.is_null()).then_some(tag.cast())
}

/// A group's loads; `None`: it has been forgotten, or is not counted any more.
#[inline(always)]
fn loads_of(id: u32) -> Option<*mut Loads> {
    // SAFETY: without preallocation an entry that is removed is not reused while this program runs.
    unsafe { LOADS_OF.get_value_ptr_mut(&id, &0) }
}

launcher_ebpf::license!();
