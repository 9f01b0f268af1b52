//! Which clients are the same.

use proptest::prelude::*;

use crate::{Source, source_key};

const MAPPED: u64 = 0xffff << 32;

proptest! {
    #[test]
    fn the_prefix_alone_decides(address: u32, other: u32, v4 in 0u32..=32) {
        let same = v4 == 0 || (address ^ other) >> (32 - v4) == 0;
        let [one, two] = [address, other].map(|address| source_key(Source::V4(address), v4, 64));
        prop_assert_eq!(one == two, same);
        // The last bit of the prefix counts, and the first after it does not.
        if v4 > 0 {
            let flipped = Source::V4(address ^ 1 << (32 - v4));
            prop_assert_ne!(source_key(flipped, v4, 64), one);
        }
        if v4 < 32 {
            let flipped = Source::V4(address ^ 1 << (31 - v4));
            prop_assert_eq!(source_key(flipped, v4, 64), one);
        }
    }

    #[test]
    fn the_prefix_of_v6_goes_through_both_halves(high: u64, low: u64, v6 in 1u32..=128) {
        prop_assume!(high != 0);
        let key = |high, low| source_key(Source::V6(high, low), 32, v6);
        let flip = |bit: u32| if bit < 64 {
            key(high ^ 1 << (63 - bit), low)
        } else {
            key(high, low ^ 1 << (127 - bit))
        };
        prop_assert_ne!(flip(v6 - 1), key(high, low));
        if v6 < 128 {
            prop_assert_eq!(flip(v6), key(high, low));
        }
    }

    #[test]
    fn a_mapped_address_is_the_v4_address(address: u32, v4 in 0u32..=32, v6 in 0u32..=128) {
        let mapped = Source::V6(0, MAPPED | u64::from(address));
        prop_assert_eq!(source_key(mapped, v4, v6), source_key(Source::V4(address), v4, v6));
    }

    #[test]
    fn more_bits_than_there_are_mean_all(address: u32, high: u64, low: u64, more: u32) {
        let (v4, v6) = (32u32.saturating_add(more), 128u32.saturating_add(more));
        for source in [Source::V4(address), Source::V6(high, low)] {
            prop_assert_eq!(source_key(source, v4, v6), source_key(source, 32, 128));
        }
    }
}

#[test]
fn consecutive_addresses_are_spread() {
    let mut counts = [0; 8];
    for address in 0x0a00_0000..0x0a00_2000 {
        counts[(source_key(Source::V4(address), 32, 64) >> 29) as usize] += 1;
    }
    assert!(
        counts.iter().all(|count| (900..1150).contains(count)),
        "{counts:?}"
    );
}
