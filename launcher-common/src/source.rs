//! `source`: which clients are the same.

use crate::mix;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An IPv4 address.
    V4(u32),
    /// The two halves of an IPv6 address.
    V6(u64, u64),
}

/// The number that all clients have in common whose addresses agree in their first bits: `v4` of the
/// 32, or `v6` of the 128. More bits than there are mean all. An IPv4-mapped address (RFC 4291,
/// 2.5.5.2) is the IPv4 address.
#[inline(always)]
#[must_use]
pub fn source_key(source: Source, v4: u32, v6: u32) -> u32 {
    /// Before an IPv4 address in an IPv6 one.
    const MAPPED: u64 = 0xffff;
    let (high, low) = match source {
        Source::V4(address) => (1, first_bits(u64::from(address) << 32, v4) >> 32),
        Source::V6(0, low) if low >> 32 == MAPPED => (1, first_bits(low << 32, v4) >> 32),
        Source::V6(high, low) => (first_bits(high, v6), first_bits(low, v6.saturating_sub(64))),
    };
    (mix(mix(high) ^ low) >> 32) as u32
}

/// `value` with all but its first `bits` cleared.
#[inline(always)]
fn first_bits(value: u64, bits: u32) -> u64 {
    if bits == 0 {
        0
    } else if bits >= 64 {
        value
    } else {
        value & (u64::MAX << (64 - bits))
    }
}
