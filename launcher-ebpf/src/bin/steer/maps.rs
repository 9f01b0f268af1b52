//! The maps: one set for each group.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, ReusePortSockArray},
    macros::btf_map,
};
use launcher_common::{
    Counters, Flow, FlowState, Loads, MEMBERS_MAX, MOVED_MAX, ProbeSource, STRAYS_MAX, Table,
};

/// The group's sockets, by member index; the last one is the holding socket. An entry clears itself
/// when its socket closes.
#[btf_map]
pub static MEMBERS: ReusePortSockArray<{ MEMBERS_MAX + 1 }> = ReusePortSockArray::new();

/// The table in force. Replacing it is one store of a pointer, and the system call that does it
/// returns only when no program runs with the old one (`maybe_wait_bpf_programs`).
#[btf_map]
pub static TABLE: ArrayOfMaps<Array<Table, 1>, 1> = ArrayOfMaps::new();

/// The counters from which `round-robin` and `least-conn` take their turns: that of SYNs, and that of
/// what else gets here.
#[btf_map]
pub static CURSOR: Array<u64, 2> = Array::new();

/// By member index; the last one is the group's own.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, { MEMBERS_MAX + 1 }> = PerCpuArray::new();

/// The launcher's own connections, each meant for one member.
#[btf_map]
pub static PROBES: HashMap<ProbeSource, u32, 1024> = HashMap::new();

/// How many entries `PROBES` has: while it is 0, as almost always, nothing is looked up.
#[btf_map]
pub static PROBING: Array<u64, 1> = Array::new();

/// The fleet's own map of how busy each worker is; it is there under `least-conn`. Handshakes are counted
/// here, connections in `account`.
#[btf_map]
pub static LOADS: ArrayOfMaps<Array<Loads, 1>, 1> = ArrayOfMaps::new();

/// By the cookie of a listener: its worker's seat, or `HOLD`. Each connection in its queue is counted for
/// that, or for the one that `MOVED` tells, or is in `STRAYS`.
#[btf_map]
pub static LISTENERS: HashMap<u64, u32, { MEMBERS_MAX + 1 }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// The fleet's own map, with the seat of the worker, or `HOLD`, to which a counted connection has moved, by
/// its cookie. `account` removes it when the connection closes.
#[btf_map]
pub static MOVED: ArrayOfMaps<HashMap<u64, u32, MOVED_MAX, { BPF_F_NO_PREALLOC as usize }>, 1> =
    ArrayOfMaps::new();

/// The cookies of connections that have moved without being counted for the worker that they moved
/// to: what began before anybody counted is counted nowhere. They are known here in case that they move
/// again.
#[btf_map]
pub static STRAYS: LruHashMap<u64, u32, STRAYS_MAX> = LruHashMap::new();

/// Where flows of datagrams go. The launcher sets the size.
#[btf_map]
pub static FLOWS: LruHashMap<Flow, FlowState, 1> = LruHashMap::new();

/// When each member was last sent a datagram of a flow: ns of the monotonic clock, as coarse as its
/// tick. A member all of whose flows have been idle for a time is one whose last datagram was before.
#[btf_map]
pub static FLOWED: Array<u64, MEMBERS_MAX> = Array::new();

/// By member: the number of its socket, by which its flows know it again. 0: flows do not stay with it.
#[btf_map]
pub static SOCKETS: Array<u32, MEMBERS_MAX> = Array::new();
