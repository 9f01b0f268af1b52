//! What `choose` promises, whatever the table and whoever has just gone.

use std::{boxed::Box, vec, vec::Vec};

use proptest::{collection::vec, prelude::*};

use crate::{Chosen, ENTRIES_MAX, HOLD, MEMBERS_MAX, Policy, SCAN_MAX, Table, choose_least};

/// A table as user space builds it: each of the sequence's members is in `live` once, with the number
/// of its entries as its weight, and a seat of another number.
pub(super) fn table(policy: u32, entries: &[u16]) -> Box<Table> {
    let mut table = Box::new(Table::EMPTY);
    table.policy = policy;
    table.len = entries.len() as u32;
    table.entries[..entries.len()].copy_from_slice(entries);
    let mut members = entries.to_vec();
    members.sort_unstable();
    members.dedup();
    table.live_len = members.len() as u32;
    for &entry in entries {
        let share = &mut table.shares[usize::from(entry)];
        share.weight += 1;
        share.seat = seat(entry);
    }
    for (place, &member) in members.iter().enumerate() {
        table.live[place] = member;
        table.live_shares[place] = table.shares[usize::from(member)];
    }
    let first = members.len().min(SCAN_MAX as usize);
    table.live.copy_within(..first, members.len());
    table.live_shares.copy_within(..first, members.len());
    table.scan_len = first as u32;
    table
}

/// The seat that [`table`] gives to a member's worker.
pub(super) fn seat(member: u16) -> u16 {
    MEMBERS_MAX as u16 - 1 - member
}

/// The choice where all members are equally busy.
fn choose(table: &Table, number: u32, select: impl FnMut(u16) -> bool) -> Option<Chosen> {
    if table.policy == Policy::LeastConn as u32 {
        choose_least(table, number, |_, _| 1, select)
    } else {
        crate::choose(table, number, select)
    }
}

/// The member that is chosen while all are there.
fn first(table: &Table, number: u32) -> Option<u16> {
    choose(table, number, |_| true).map(|chosen| chosen.member)
}

/// Every index function.
const POLICIES: [u32; 6] = [
    Policy::RoundRobin as u32,
    Policy::Hash as u32,
    Policy::LeastConn as u32,
    Policy::Source as u32,
    Policy::Cpu as u32,
    Policy::Random as u32,
];

fn policies() -> impl Strategy<Value = u32> {
    prop::sample::select(&POLICIES)
}

fn sequences() -> impl Strategy<Value = Vec<u16>> {
    vec(0..MEMBERS_MAX as u16, 1..300)
}

/// Numbers around each limit, and any other.
fn numbers() -> impl Strategy<Value = u32> {
    let limits = vec![0, MEMBERS_MAX as u32, ENTRIES_MAX as u32];
    prop_oneof![
        (prop::sample::select(limits), -4i32..=4)
            .prop_map(|(limit, off)| limit.wrapping_add_signed(off)),
        any::<u32>(),
    ]
}

#[test]
fn an_empty_table_chooses_nobody() {
    for policy in POLICIES {
        let table = Box::new(Table {
            policy,
            ..Table::EMPTY
        });
        assert_eq!(choose(&table, 7, |_| panic!("nobody can be tried")), None);
    }
}

#[test]
fn an_empty_table_holds_if_it_can() {
    let table = Box::new(Table {
        hold: 1,
        ..Table::EMPTY
    });
    let chosen = choose(&table, 7, |_| true).expect("the holding socket is there");
    assert_eq!((chosen.member, chosen.after_miss), (HOLD, false));
    assert_eq!(choose(&table, 7, |_| false), None);
}

#[test]
fn a_full_table_reaches_its_last_entry() {
    let mut entries = vec![1; ENTRIES_MAX];
    entries[ENTRIES_MAX - 1] = 2;
    let round_robin = table(Policy::RoundRobin as u32, &entries);
    assert_eq!(first(&round_robin, ENTRIES_MAX as u32 - 1), Some(2));
    let hash = table(Policy::Hash as u32, &entries);
    assert_eq!(first(&hash, u32::MAX), Some(2));
    assert_eq!(first(&hash, 0), Some(1));
}

#[test]
fn the_hash_reaches_every_entry_equally_often() {
    let entries: Vec<u16> = (0..8).collect();
    let table = table(Policy::Hash as u32, &entries);
    let mut counts = [0u32; 8];
    for hash in (0..=u32::MAX).step_by(1 << 20) {
        let member = first(&table, hash).expect("all are there");
        counts[usize::from(member)] += 1;
    }
    assert_eq!(counts, [512; 8]);
}

#[test]
fn the_next_entry_follows_one_that_has_gone() {
    let table = table(Policy::RoundRobin as u32, &[5, 6, 7]);
    let chosen = choose(&table, 2, |member| member != 7).expect("two are there");
    assert_eq!((chosen.member, chosen.after_miss), (5, true));
    let chosen = choose(&table, 0, |member| member != 7).expect("two are there");
    assert_eq!((chosen.member, chosen.after_miss), (5, false));
}

#[test]
fn the_turns_of_one_that_has_gone_are_dealt_out_among_all_others() {
    let entries: Vec<u16> = (0..5).collect();
    let count = |table: &Table, numbers: &mut dyn Iterator<Item = u32>| {
        let mut counts = [0u32; 5];
        for number in numbers {
            let chosen = choose(table, number, |member| member != 2).expect("four are there");
            counts[usize::from(chosen.member)] += 1;
        }
        counts
    };
    let round_robin = table(Policy::RoundRobin as u32, &entries);
    let counts = count(&round_robin, &mut (0..400));
    assert_eq!(counts, [100, 100, 0, 100, 100]);
    let hash = table(Policy::Hash as u32, &entries);
    let hashes = (0..40_000u32).map(|n| n.wrapping_mul(0x9e37_79b9));
    let counts = count(&hash, &mut hashes.into_iter());
    let others = counts
        .iter()
        .filter(|&&count| (9_000..11_000).contains(&count));
    assert_eq!(others.count(), 4, "{counts:?}");
}

#[test]
fn the_only_one_left_is_found_at_the_greatest_numbers() {
    // With so many gone, the list of live members is gone through, from a place near its end or not.
    let entries: Vec<u16> = (0..60).collect();
    for policy in POLICIES {
        let table = table(policy, &entries);
        for number in u32::MAX - 60..=u32::MAX {
            for survivor in 0..60 {
                let chosen = choose(&table, number, |member| member == survivor);
                assert_eq!(chosen.map(|chosen| chosen.member), Some(survivor));
            }
        }
    }
}

#[test]
fn the_greatest_lengths_do_not_overflow() {
    for policy in POLICIES {
        let mut table = table(policy, &[1]);
        (table.len, table.live_len) = (u32::MAX, u32::MAX);
        for number in [u32::MAX, u32::MAX - 1] {
            assert_eq!(choose(&table, number, |_| false), None);
        }
    }
}

proptest! {
    #[test]
    fn only_members_of_the_table_are_tried(
        policy in policies(),
        entries in sequences(),
        number: u32,
        refused in 0usize..2000,
    ) {
        let table = table(policy, &entries);
        let mut tried = Vec::new();
        let chosen = choose(&table, number, |member| {
            tried.push(member);
            tried.len() > refused
        });
        prop_assert!(tried.iter().all(|member| entries.contains(member)));
        // The last one tried is the one chosen, unless all were refused.
        prop_assert_eq!(
            chosen.map(|chosen| (chosen.member, chosen.after_miss)),
            (tried.len() > refused).then(|| (tried[tried.len() - 1], refused > 0))
        );
    }

    #[test]
    fn the_only_one_left_is_always_found(
        policy in policies(),
        entries in sequences(),
        number: u32,
        survivor in any::<prop::sample::Index>(),
    ) {
        let table = table(policy, &entries);
        let survivor = *survivor.get(&entries);
        let chosen = choose(&table, number, |member| member == survivor);
        prop_assert_eq!(chosen.map(|chosen| chosen.member), Some(survivor));
    }

    #[test]
    fn when_all_have_gone_each_was_tried(
        policy in policies(),
        entries in sequences(),
        number: u32,
    ) {
        let mut left = entries.clone();
        let chosen = choose(&table(policy, &entries), number, |member| {
            left.retain(|&other| other != member);
            false
        });
        prop_assert_eq!(chosen, None);
        prop_assert_eq!(left, Vec::new());
    }

    #[test]
    fn the_holding_socket_comes_when_all_have_gone(
        policy in policies(),
        entries in sequences(),
        number: u32,
        left in any::<prop::sample::Index>(),
        gone: bool,
    ) {
        let mut table = table(policy, &entries);
        table.hold = 1;
        let left = *left.get(&entries);
        let mut tried = Vec::new();
        let chosen = choose(&table, number, |member| {
            tried.push(member);
            member == HOLD || (!gone && member == left)
        });
        let expected = if gone { HOLD } else { left };
        prop_assert_eq!(chosen.map(|chosen| chosen.member), Some(expected));
        prop_assert!(!gone || entries.iter().all(|member| tried.contains(member)));
    }

    #[test]
    fn consecutive_turns_walk_the_sequence(
        entries in sequences(),
        // The counter's own overflow, once in 2^32 turns, may cut a period short.
        start in 0..u32::MAX - 300,
    ) {
        let table = table(Policy::RoundRobin as u32, &entries);
        let mut expected = entries.clone();
        expected.rotate_left(start as usize % entries.len());
        let walked: Vec<u16> = (start..start + table.len)
            .map(|turn| first(&table, turn).expect("all are there"))
            .collect();
        prop_assert_eq!(walked, expected);
    }

    #[test]
    fn an_unknown_policy_chooses_nobody(
        policy in prop_oneof![Just(0), 7u32..],
        entries in sequences(),
        number: u32,
    ) {
        prop_assert_eq!(first(&table(policy, &entries), number), None);
    }

    #[test]
    fn a_malformed_table_is_survived(
        policy in any::<u32>(),
        known in policies(),
        len in numbers(),
        live_len in numbers(),
        number in numbers(),
        hold in numbers(),
        load: u32,
        accept: bool,
    ) {
        let mut table = Box::new(Table::EMPTY);
        (table.len, table.live_len, table.scan_len, table.hold) = (len, live_len, len, hold);
        for policy in [policy, known] {
            table.policy = policy;
            let mut tries = 0;
            let chosen = choose_least(&table, number, |_, _| load, |_| {
                tries += 1;
                accept
            });
            prop_assert!(tries <= 4 + MEMBERS_MAX + 1);
            prop_assert_eq!(chosen.is_some(), accept && tries > 0);
        }
    }
}
