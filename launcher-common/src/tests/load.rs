//! Handshakes in flight.

use std::vec::Vec;

use proptest::{collection::vec, prelude::*};

use crate::{Handshakes, Load, epoch};

#[test]
fn an_epoch_is_two_seconds_long() {
    assert_eq!(epoch(0), 0);
    assert_eq!(epoch((1 << 31) - 1), 0);
    assert_eq!(epoch(1 << 31), 1);
    assert_eq!(
        epoch(u64::MAX),
        (1 << 20) - 1,
        "it begins again after 26 days"
    );
}

#[test]
fn a_handshake_counts_until_the_end_of_the_next_epoch() {
    let begun = Handshakes::default().begun(7).begun(7);
    assert_eq!([7, 8, 9, 10].map(|epoch| begun.count(epoch)), [2, 2, 0, 0]);
    assert_eq!(begun.begun(8).count(9), 1);
    assert_eq!(begun.begun(9).count(9), 1);
}

#[test]
fn the_oldest_is_completed_first() {
    let handshakes = Handshakes::default().begun(1).begun(2).completed(2);
    assert_eq!((handshakes.count(2), handshakes.count(3)), (1, 1));
}

#[test]
fn one_that_was_not_counted_completes_nothing() {
    assert_eq!(Handshakes::default().completed(5).count(5), 0);
    assert_eq!(Handshakes::default().begun(1).completed(9).count(9), 0);
}

#[test]
fn a_count_that_is_full_stays_full() {
    let full = (1u64 << 22) - 1;
    let handshakes = Handshakes(3 << 44 | full);
    assert_eq!(handshakes.begun(3), handshakes);
    assert_eq!(handshakes.count(4), full as u32);
}

#[test]
fn a_load_is_connections_and_handshakes() {
    let load = |active| Load {
        active,
        handshakes: Handshakes::default().begun(1).0,
    };
    assert_eq!(load(4).total(1), 5);
    assert_eq!(load(4).total(3), 4);
}

proptest! {
    #[test]
    fn counts_agree_with_a_list(steps in vec((0u64..3, any::<bool>()), 0..200), start in 0u64..1 << 20) {
        let (mut handshakes, mut list, mut now) = (Handshakes::default(), Vec::new(), 0);
        for (later, begins) in steps {
            now += later;
            list.retain(|begun| now - begun < 2);
            let epoch = (start + now) % (1 << 20);
            handshakes = if begins {
                list.push(now);
                handshakes.begun(epoch)
            } else {
                if !list.is_empty() {
                    list.remove(0);
                }
                handshakes.completed(epoch)
            };
            prop_assert_eq!(handshakes.count(epoch), list.len() as u32);
        }
    }
}
