//! Steering: selects a member of a group for each connection. One instance of this object, with
//! its own maps, is loaded for each group.
#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        bpf_hdr_start_off::BPF_HDR_START_NET,
        sk_action::{SK_DROP, SK_PASS},
    },
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray, ReusePortSockArray},
    helpers::generated::bpf_skb_load_bytes_relative,
    macros::{btf_map, sk_reuseport},
    programs::SkReuseportContext,
};
use launcher_common::{Counters, HOLD, MEMBERS_MAX, Packet, Policy, ProbeSource, Table, choose};
use launcher_ebpf::fetch_add;

/// The group's sockets, by member index; the last one is the holding socket. An entry clears itself
/// when its socket closes.
#[btf_map]
static MEMBERS: ReusePortSockArray<{ MEMBERS_MAX + 1 }> = ReusePortSockArray::new();

/// The table in force. Replacing it is one store of a pointer, and the system call that does it
/// returns only when no program runs with the old one (`maybe_wait_bpf_programs`).
#[btf_map]
static TABLE: ArrayOfMaps<Array<Table, 1>, 1> = ArrayOfMaps::new();

/// Round-robin's counter.
#[btf_map]
static CURSOR: Array<u64, 1> = Array::new();

/// By member index; the last one is the group's own.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, { MEMBERS_MAX + 1 }> = PerCpuArray::new();

/// The launcher's own connections, each meant for one member.
#[btf_map]
static PROBES: HashMap<ProbeSource, u32, 1024> = HashMap::new();

/// How many entries `PROBES` has: while it is 0, as almost always, nothing is looked up.
#[btf_map]
static PROBING: Array<u64, 1> = Array::new();

/// `IPPROTO_TCP`.
const TCP: u32 = 6;
/// `ETH_P_IPV6`.
const IPV6: u16 = 0x86dd;

/// The program where the kernel can move connections whose listener has gone (Linux 5.14).
#[sk_reuseport(migrate)]
pub fn steer(ctx: SkReuseportContext) -> u32 {
    let migrating = ctx.migrating_sk().is_some();
    decide(&ctx, migrating)
}

/// The program where it can't.
#[sk_reuseport]
pub fn steer_plain(ctx: SkReuseportContext) -> u32 {
    decide(&ctx, false)
}

#[inline(always)]
fn decide(ctx: &SkReuseportContext, migrating: bool) -> u32 {
    let Some(table) = TABLE.get_value(0, &0) else {
        return fall_through();
    };
    if !migrating
        && PROBING.get(0).is_some_and(|&probing| probing != 0)
        && let Some(member) = probed(ctx)
    {
        // Not counted: no client sent it. Nobody else may answer for the member.
        return match MEMBERS.select_reuseport(ctx, member) {
            Ok(()) => SK_PASS,
            Err(_) => SK_DROP,
        };
    }
    if table.len == 0 && table.hold == 0 {
        // Nobody takes new connections, as in a shutdown: refuse them at once instead of letting
        // them wait in a queue that will be reset. What waits already may still be served.
        return if migrating { fall_through() } else { refuse() };
    }
    let packet = Packet {
        hash: ctx.hash(),
        // Only round-robin takes turns: every CPU writes to the counter.
        turn: if table.policy == Policy::RoundRobin as u32 {
            turn(opens(ctx, migrating))
        } else {
            ctx.hash()
        },
    };
    // Nothing is counted during the search: the verifier goes through every step of it.
    let chosen = choose(table, packet, |member| {
        MEMBERS.select_reuseport(ctx, u32::from(member)).is_ok()
    });
    match chosen {
        Some(chosen) => {
            if chosen.after_miss {
                count(MEMBERS_MAX as u32, |c| c.missed += 1);
            }
            // Once for each connection, not for each packet that comes here; asked again, because what
            // is known before the search multiplies the ways through it. The group's own counters
            // stand where the holding socket's would.
            if opens(ctx, migrating) {
                count(u32::from(chosen.member), |c| {
                    if chosen.member == HOLD {
                        c.held += 1;
                    } else if migrating {
                        c.migrated += 1;
                    } else {
                        c.selected += 1;
                    }
                });
            }
            SK_PASS
        }
        None => fall_through(),
    }
}

/// Whether this packet takes a turn, and counts: a SYN, a datagram, or a connection that moves.
/// Under SYN cookies the program runs again for the handshake's ACK, and stray ACKs reach it too:
/// they must not skip a member.
#[inline(always)]
fn opens(ctx: &SkReuseportContext, migrating: bool) -> bool {
    if migrating || ctx.ip_protocol() != TCP {
        return true;
    }
    let header = ctx.data();
    if header + 14 > ctx.data_end() {
        return true;
    }
    // SAFETY: byte 13 of the TCP header, inside the packet by the check above.
    let flags = unsafe { *((header + 13) as *const u8) };
    const SYN: u8 = 0x02;
    flags & SYN != 0
}

/// The member that a probe is meant for; `None` for any other packet.
#[inline(always)]
fn probed(ctx: &SkReuseportContext) -> Option<u32> {
    let header = ctx.data();
    if header + 2 > ctx.data_end() {
        return None;
    }
    // SAFETY: the first two bytes of the transport header (TCP and UDP alike: the source port), inside
    // the packet by the check above.
    let port = unsafe { [*(header as *const u8), *((header + 1) as *const u8)] };
    let v6 = u16::from_be(ctx.eth_protocol() as u16) == IPV6;
    let mut source = ProbeSource {
        address: [0; 16],
        port: u32::from(u16::from_be_bytes(port)),
        v6: u32::from(v6),
    };
    // Where the source address is in the IP header, and how long.
    let (offset, length) = if v6 { (8, 16) } else { (12, 4) };
    // SAFETY: the helper writes at most `length` bytes, which `address` has.
    let error = unsafe {
        bpf_skb_load_bytes_relative(
            ctx.as_ptr(),
            offset,
            (&raw mut source.address).cast(),
            length,
            BPF_HDR_START_NET,
        )
    };
    if error != 0 {
        return None;
    }
    // SAFETY: the value is copied at once.
    unsafe { PROBES.get(&source) }.copied()
}

#[inline(always)]
fn turn(advance: bool) -> u32 {
    match CURSOR.get_ptr_mut(0) {
        // SAFETY: points into the map's value.
        Some(cursor) if advance => unsafe { fetch_add(cursor, 1) as u32 },
        // SAFETY: points into the map's value; an aligned load of 8 bytes can't tear.
        Some(cursor) => unsafe { *cursor as u32 },
        None => 0,
    }
}

#[inline(always)]
fn count(index: u32, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own copy; programs of this type run with migration disabled and are
        // not re-entered on a CPU.
        change(unsafe { &mut *counters });
    }
}

#[inline(always)]
fn fall_through() -> u32 {
    count(MEMBERS_MAX as u32, |c| c.fell_through += 1);
    SK_PASS
}

#[inline(always)]
fn refuse() -> u32 {
    count(MEMBERS_MAX as u32, |c| c.refused += 1);
    SK_DROP
}

launcher_ebpf::license!();
