//! What is read of a packet.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::bpf_skb_load_bytes_relative, programs::SkReuseportContext,
};
use launcher_common::{Flow, ProbeSource, Source};

/// `ETH_P_IPV6`.
const IPV6: u16 = 0x86dd;

/// Whether it is a SYN. Under SYN cookies the program runs again for the handshake's ACK, and stray
/// ACKs reach it too.
#[inline(always)]
pub fn is_syn(ctx: &SkReuseportContext) -> bool {
    const SYN: u8 = 0x02;
    let header = ctx.data();
    if header + 14 > ctx.data_end() {
        return true;
    }
    // SAFETY: byte 13 of the TCP header, inside the packet by the check above.
    let flags = unsafe { *((header + 13) as *const u8) };
    flags & SYN != 0
}

/// Whether it came by IPv6. (A socket of IPv6 gets IPv4 packets as such.)
#[inline(always)]
fn is_v6(ctx: &SkReuseportContext) -> bool {
    u16::from_be(ctx.eth_protocol() as u16) == IPV6
}

/// The source port, in host byte order.
#[inline(always)]
fn source_port(ctx: &SkReuseportContext) -> Option<u32> {
    let header = ctx.data();
    if header + 2 > ctx.data_end() {
        return None;
    }
    // SAFETY: the first two bytes of the transport header (TCP and UDP alike), inside the packet by
    // the check above.
    let port = unsafe { [*(header as *const u8), *((header + 1) as *const u8)] };
    Some(u32::from(u16::from_be_bytes(port)))
}

/// Copies `N` bytes of the network header to the beginning of a value of integers.
#[inline(always)]
fn load<const N: usize, T: Copy>(ctx: &SkReuseportContext, offset: u32, to: &mut T) -> bool {
    const { assert!(N <= size_of::<T>()) };
    // SAFETY: the helper writes `N` bytes, which `to` has.
    let error = unsafe {
        bpf_skb_load_bytes_relative(
            ctx.as_ptr(),
            offset,
            core::ptr::from_mut(to).cast(),
            N as u32,
            BPF_HDR_START_NET,
        )
    };
    error == 0
}

/// The client's address and port, as probes are told by.
#[inline(always)]
pub fn probe_source(ctx: &SkReuseportContext) -> Option<ProbeSource> {
    let v6 = is_v6(ctx);
    let mut source = ProbeSource {
        address: [0; 16],
        port: source_port(ctx)?,
        v6: u32::from(v6),
    };
    // Where the source address is in the IP header, and how long.
    let loaded = if v6 {
        load::<16, _>(ctx, 8, &mut source.address)
    } else {
        load::<4, _>(ctx, 12, &mut source.address)
    };
    loaded.then_some(source)
}

/// The client's address.
#[inline(always)]
pub fn source(ctx: &SkReuseportContext) -> Option<Source> {
    if is_v6(ctx) {
        let mut halves = [0; 2];
        load::<16, _>(ctx, 8, &mut halves)
            .then_some(Source::V6(u64::from_be(halves[0]), u64::from_be(halves[1])))
    } else {
        let mut address = 0;
        load::<4, _>(ctx, 12, &mut address).then_some(Source::V4(u32::from_be(address)))
    }
}

/// The flow of a datagram.
#[inline(always)]
pub fn flow(ctx: &SkReuseportContext) -> Option<Flow> {
    let v6 = is_v6(ctx);
    let mut flow = Flow {
        addresses: [0; 4],
        port: source_port(ctx)?,
        v6: u32::from(v6),
    };
    // The destination follows the source in both headers.
    let loaded = if v6 {
        load::<32, _>(ctx, 8, &mut flow.addresses)
    } else {
        load::<8, _>(ctx, 12, &mut flow.addresses)
    };
    loaded.then_some(flow)
}
