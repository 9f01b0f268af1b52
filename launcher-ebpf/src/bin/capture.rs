//! Capture: makes `bind` shareable and reports the fleet's sockets.
//!
//! `bind4`, `bind6` and `post_bind4`, `post_bind6` are attached to the fleet's cgroup and run once
//! per `bind`. `listening` is attached to a worker's cgroup only while one of its TCP sockets is
//! bound and not yet listening, because a `sock_ops` program costs several calls on every
//! connection.
#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock, bpf_sock_tuple},
    btf_maps::{Array, HashMap, RingBuf, SkStorage},
    helpers::{
        bpf_get_current_cgroup_id,
        generated::{
            bpf_get_socket_cookie, bpf_setsockopt, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
            bpf_sk_release, bpf_sk_storage_get,
        },
    },
    macros::{btf_map, cgroup_sock, cgroup_sock_addr, sock_ops},
    programs::{SockAddrContext, SockContext, SockOpsContext},
};
use aya_log_ebpf::debug;
use launcher_common::{CaptureEvent, EventKind};
use launcher_ebpf::fetch_add;

/// What happened, for the launcher. 1 MiB: about 20 000 events that it has not yet read.
#[btf_map]
static EVENTS: RingBuf<CaptureEvent, { 1 << 20 }> = RingBuf::new();

/// How many events did not fit.
#[btf_map]
static EVENTS_LOST: Array<u64, 1> = Array::new();

/// The ports to capture, as `protocol << 16 | port`; not consulted when [`CAPTURE_ALL`] is set.
#[btf_map]
static PORTS: HashMap<u32, u8, 1024> = HashMap::new();

/// Marks the sockets of this fleet with the cgroup of the process that bound them. The kernel drops
/// the mark with the socket.
#[btf_map]
static OURS: SkStorage<u64> = SkStorage::new();

/// 1: capture every explicit port. Set before the programs are loaded.
#[unsafe(no_mangle)]
static CAPTURE_ALL: Global<u8> = Global::new(1);

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const TCP: u32 = 6;
const UDP: u32 = 17;
const SOL_SOCKET: i32 = 1;
const SO_REUSEPORT: i32 = 15;
/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;
/// A cgroup bind program's "go on".
const ALLOW: i32 = 1;

/// Runs before `bind` on an IPv4 socket.
#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel passes a valid context; the verifier checks each access.
    let addr = unsafe { &*ctx.sock_addr };
    let port = addr.user_port as u16;
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    tuple.__bindgen_anon_1.ipv4.daddr = addr.user_ip4;
    tuple.__bindgen_anon_1.ipv4.dport = port;
    let mut address = [0u32; 4];
    address[0] = addr.user_ip4;
    claim(&ctx, AF_INET, address, &mut tuple, 12)
}

/// Runs before `bind` on an IPv6 socket.
#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as in `bind4`.
    let addr = unsafe { &*ctx.sock_addr };
    let port = addr.user_port as u16;
    // SAFETY: as in `bind4`.
    let address = unsafe { words(&raw const addr.user_ip6) };
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    tuple.__bindgen_anon_1.ipv6.daddr = address;
    tuple.__bindgen_anon_1.ipv6.dport = port;
    claim(&ctx, AF_INET6, address, &mut tuple, 36)
}

/// Sets `SO_REUSEPORT` on a socket that is about to be bound to an explicit port, unless a socket
/// that is not of this fleet has that address: then `bind` must fail, because with `SO_REUSEPORT`
/// on both sides the kernel would share the connections between strangers.
#[inline(always)]
fn claim(
    ctx: &SockAddrContext,
    family: u32,
    address: [u32; 4],
    tuple: &mut bpf_sock_tuple,
    tuple_size: u32,
) -> i32 {
    // SAFETY: as in `bind4`.
    let addr = unsafe { &*ctx.sock_addr };
    let port = u16::from_be(addr.user_port as u16);
    let protocol = match addr.type_ {
        SOCK_STREAM => TCP,
        SOCK_DGRAM => UDP,
        _ => return ALLOW,
    };
    if port == 0 || !captured(protocol, port) {
        return ALLOW;
    }
    // SAFETY: a union field of the context; null is checked below.
    let sk = unsafe { addr.__bindgen_anon_1.sk };
    if sk.is_null() {
        return ALLOW;
    }
    let foreign = belongs_to_stranger(ctx, protocol, tuple, tuple_size);
    let mut reuse = i32::from(!foreign);
    // SAFETY: the value and its length match; the kernel copies it.
    let error = unsafe {
        bpf_setsockopt(
            ctx.as_ptr(),
            SOL_SOCKET,
            SO_REUSEPORT,
            (&raw mut reuse).cast(),
            4,
        )
    };
    debug!(
        ctx,
        "bind protocol {} port {}: SO_REUSEPORT={} returned {}", protocol, port, reuse, error
    );
    // SAFETY: no arguments, no effects.
    let mut cgroup = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the helper takes this program type's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let kind = if foreign {
        EventKind::Taken
    } else if error != 0 {
        EventKind::Refused
    } else {
        EventKind::Binding
    };
    emit(CaptureEvent {
        kind: kind as u32,
        errno: error.unsigned_abs() as u32,
        cgroup,
        cookie,
        address: bytes(address),
        family: family as u16,
        protocol: protocol as u16,
        port,
        reserved: 0,
    });
    if !foreign {
        // SAFETY: `sk` is the context's socket; the kernel copies the initial value.
        unsafe {
            bpf_sk_storage_get(
                (&raw const OURS).cast_mut().cast(),
                sk.cast(),
                (&raw mut cgroup).cast(),
                BPF_SK_STORAGE_GET_F_CREATE.into(),
            )
        };
    }
    ALLOW
}

/// Whether a socket outside this fleet already receives what is sent to this address.
#[inline(always)]
fn belongs_to_stranger(
    ctx: &SockAddrContext,
    protocol: u32,
    tuple: &mut bpf_sock_tuple,
    tuple_size: u32,
) -> bool {
    // SAFETY: the size is that of the union's member which the caller filled; a non-null result is
    // released below, on the only path.
    unsafe {
        let found = if protocol == TCP {
            bpf_sk_lookup_tcp(ctx.as_ptr(), tuple, tuple_size, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx.as_ptr(), tuple, tuple_size, CURRENT_NETNS, 0)
        };
        if found.is_null() {
            return false;
        }
        let owner = owner(found);
        bpf_sk_release(found.cast());
        owner == 0
    }
}

/// Runs after a successful `bind` on an IPv4 socket.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: as in `bind4`.
    let address = [unsafe { (*ctx.sock).src_ip4 }, 0, 0, 0];
    bound(&ctx, AF_INET, address)
}

/// Runs after a successful `bind` on an IPv6 socket.
#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    // SAFETY: as in `bind4`.
    let address = unsafe { words(&raw const (*ctx.sock).src_ip6) };
    bound(&ctx, AF_INET6, address)
}

/// Reads an IPv6 address out of a context, word by word: the verifier allows only loads at fixed
/// offsets from the context, and a copy would become a loop over a moving pointer.
///
/// # Safety
/// `from` must point into the context.
#[inline(always)]
unsafe fn words(from: *const [u32; 4]) -> [u32; 4] {
    let word = from.cast::<u32>();
    // SAFETY: the caller's.
    unsafe {
        [
            word.read_volatile(),
            word.add(1).read_volatile(),
            word.add(2).read_volatile(),
            word.add(3).read_volatile(),
        ]
    }
}

#[inline(always)]
fn bound(ctx: &SockContext, family: u32, address: [u32; 4]) -> i32 {
    let sk = ctx.sock;
    // SAFETY: the context is the socket.
    let cgroup = unsafe { owner(sk) };
    if cgroup != 0 {
        // SAFETY: as above.
        let (cookie, protocol, port) = unsafe {
            (
                bpf_get_socket_cookie(ctx.as_ptr()),
                (*sk).protocol,
                (*sk).src_port,
            )
        };
        emit(CaptureEvent {
            kind: EventKind::Bound as u32,
            errno: 0,
            cgroup,
            cookie,
            address: bytes(address),
            family: family as u16,
            protocol: protocol as u16,
            port: port as u16,
            reserved: 0,
        });
    }
    ALLOW
}

/// Runs when a TCP socket starts to listen (and, uselessly, on every connection's events).
#[sock_ops]
pub fn listening(ctx: SockOpsContext) -> u32 {
    if ctx.op() == BPF_SOCK_OPS_TCP_LISTEN_CB {
        // SAFETY: the verifier checks the access; null is checked.
        let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
        if !sk.is_null() {
            // SAFETY: non-null socket of the context.
            let cgroup = unsafe { owner(sk) };
            if cgroup != 0 {
                // SAFETY: the helper takes this program type's context.
                let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
                emit(CaptureEvent {
                    kind: EventKind::Listening as u32,
                    errno: 0,
                    cgroup,
                    cookie,
                    address: [0; 16],
                    family: ctx.family() as u16,
                    protocol: TCP as u16,
                    port: ctx.local_port() as u16,
                    reserved: 0,
                });
                debug!(&ctx, "listen port {}", ctx.local_port());
            }
        }
    }
    1
}

/// The cgroup in a socket's mark; 0 (no cgroup's id) for a socket that is not of this fleet.
///
/// # Safety
/// `sk` must be a socket pointer the verifier knows.
#[inline(always)]
unsafe fn owner(sk: *mut bpf_sock) -> u64 {
    // SAFETY: the caller's; a lookup without creation, whose result is null or the mark.
    unsafe {
        let mark = bpf_sk_storage_get(
            (&raw const OURS).cast_mut().cast(),
            sk.cast(),
            core::ptr::null_mut(),
            0,
        )
        .cast::<u64>();
        if mark.is_null() { 0 } else { *mark }
    }
}

#[inline(always)]
fn captured(protocol: u32, port: u16) -> bool {
    let key = protocol << 16 | u32::from(port);
    // SAFETY: the value is only tested for presence.
    CAPTURE_ALL.load() != 0 || unsafe { PORTS.get(&key) }.is_some()
}

/// Tells the launcher. It must not call a helper that `listening` lacks: a sock_ops program can't
/// ask for the current process before Linux 6.10, nor for its cgroup before 6.4.
#[inline(always)]
fn emit(event: CaptureEvent) {
    match EVENTS.reserve(0) {
        Some(mut record) => {
            record.write(event);
            record.submit(0);
        }
        None => {
            if let Some(lost) = EVENTS_LOST.get_ptr_mut(0) {
                // SAFETY: points into the map's value.
                unsafe { fetch_add(lost, 1) };
            }
        }
    }
}

/// Four words of network byte order as sixteen bytes of it.
#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: the same size, and any bytes are valid.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

launcher_ebpf::license!();
