//! What the policies promise: shares, smoothness, stability.

use std::collections::BTreeMap;

use launcher_common::{ENTRIES_MAX, MEMBERS_MAX, SCAN_MAX, Share, Table};
use proptest::{collection::vec, prelude::*};

use super::{InvalidPolicy, Policies, Policy, Prefixes, Site, Weighted, maglev};

/// A fleet of the most slots has the longest tables.
const SLOTS: u32 = 256;

/// Every policy that has a table.
const STEERED: [Policy; 6] = [
    Policy::RoundRobin,
    Policy::LeastConn,
    Policy::Hash,
    Policy::Source(Prefixes { v4: 32, v6: 64 }),
    Policy::Cpu,
    Policy::Random,
];

fn site(slots: u32) -> Site<'static> {
    Site { slots, cpus: &[] }
}

fn compile(policy: Policy, members: &[Weighted]) -> Box<Table> {
    super::compile(policy, members, site(SLOTS))
}

fn entries(table: &Table) -> &[u16] {
    &table.entries[..table.len as usize]
}

fn live(table: &Table) -> Vec<u16> {
    table.live[..table.live_len as usize].to_vec()
}

fn counts(table: &Table) -> BTreeMap<u16, u32> {
    let mut counts = BTreeMap::new();
    for &member in entries(table) {
        *counts.entry(member).or_default() += 1;
    }
    counts
}

/// The seat that [`members`] gives to a member's worker.
fn seat(member: u16) -> u16 {
    MEMBERS_MAX as u16 - 1 - member
}

/// Members 0, 1, … with these weights, identified as slots are.
fn members(weights: &[u16]) -> Vec<Weighted> {
    weights
        .iter()
        .enumerate()
        .map(|(index, &weight)| Weighted {
            member: index as u16,
            weight,
            seat: seat(index as u16),
            identity: index as u64,
            cpu: None,
        })
        .collect()
}

/// How many more entries may move than those that must, out of 1. Seen: 0.02.
const EXTRA: f64 = 0.05;

/// The part of the entries that belongs to another member in the second table, out of 1.
fn moved(before: &Table, after: &Table) -> f64 {
    assert_eq!(before.len, after.len);
    let moved = entries(before)
        .iter()
        .zip(entries(after))
        .filter(|(a, b)| a != b)
        .count();
    moved as f64 / f64::from(before.len)
}

#[test]
fn names_parse_and_show() {
    for name in Policy::NAMES {
        assert_eq!(name.parse::<Policy>().unwrap().to_string(), name);
    }
    let error = "least".parse::<Policy>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown policy; allowed: round-robin, least-conn, hash, source, cpu, random, kernel"
    );
    assert_eq!(Policy::Kernel.index_function(), None);
}

#[test]
fn source_may_have_prefixes() {
    let prefixes = |v4, v6| Ok(Policy::Source(Prefixes { v4, v6 }));
    assert_eq!("source".parse(), prefixes(32, 64));
    assert_eq!("source:0/128".parse(), prefixes(0, 128));
    assert_eq!("source:24/56".parse(), prefixes(24, 56));
    assert_eq!(prefixes(24, 56).unwrap().to_string(), "source:24/56");
    for wrong in [
        "source:",
        "source:24",
        "source:33/64",
        "source:32/129",
        "source:-1/64",
        "source:24/56/8",
    ] {
        assert_eq!(
            wrong.parse::<Policy>(),
            Err(InvalidPolicy::Prefixes),
            "{wrong}"
        );
    }
    let table = compile(
        Policy::Source(Prefixes { v4: 24, v6: 56 }),
        &members(&[1, 1]),
    );
    assert_eq!((table.source_v4, table.source_v6), (24, 56));
}

#[test]
fn each_protocol_has_its_policy() {
    let of = |all, datagrams| {
        let policies = Policies { all, datagrams };
        (policies.connections(), policies.datagrams())
    };
    let (least, cpu, kernel) = (Policy::LeastConn, Policy::Cpu, Policy::Kernel);
    assert_eq!(of(None, None), (Policy::RoundRobin, Policy::Hash));
    assert_eq!(of(Some(cpu), None), (cpu, cpu));
    assert_eq!(of(Some(least), None), (least, Policy::Hash));
    assert_eq!(of(Some(kernel), Some(cpu)), (kernel, cpu));
    let given = Policies::default();
    assert_eq!(given.with(cpu, false).all, Some(cpu));
    assert_eq!(given.with(cpu, true).datagrams, Some(cpu));
    assert!(given.with(kernel, true).steers());
    assert!(!given.with(kernel, false).steers());
}

#[test]
fn least_conn_looks_at_all_but_only_at_so_many() {
    let scanned = |count| compile(Policy::LeastConn, &members(&vec![1; count])).scan_len;
    assert_eq!([1, 8, 200].map(scanned), [1, 8, SCAN_MAX]);
}

#[test]
fn the_list_of_live_members_begins_again_behind_its_end() {
    for count in [1, 2, SCAN_MAX as usize, 200, MEMBERS_MAX] {
        let table = compile(Policy::LeastConn, &members(&vec![3; count]));
        let again = count.min(SCAN_MAX as usize);
        assert_eq!(table.live[count..count + again], table.live[..again]);
        for (place, &member) in table.live[..count + again].iter().enumerate() {
            let share = Share {
                weight: 3,
                seat: seat(member),
            };
            assert_eq!(table.live_shares[place], share);
            assert_eq!(table.shares[usize::from(member)], share);
        }
    }
}

#[test]
fn without_members_the_table_is_empty() {
    for index in STEERED {
        for weights in [&[][..], &[0, 0]] {
            let table = compile(index, &members(weights));
            assert_eq!(
                *table,
                Table {
                    policy: index.index_function().unwrap() as u32,
                    source_v6: if matches!(index, Policy::Source(_)) {
                        64
                    } else {
                        128
                    },
                    ..Table::EMPTY
                }
            );
        }
    }
}

#[test]
fn nginx_example_is_reproduced() {
    let table = compile(Policy::RoundRobin, &members(&[5, 1, 1]));
    assert_eq!(entries(&table), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(live(&table), [0, 1, 2]);
}

#[test]
fn repeated_and_impossible_members_are_left_out() {
    let member = |member, weight| Weighted {
        member,
        weight,
        seat: 0,
        identity: 7,
        cpu: None,
    };
    let given = [
        member(3, 1),
        member(3, 9),
        member(MEMBERS_MAX as u16, 1),
        member(1, 0),
    ];
    for index in STEERED {
        assert_eq!(live(&compile(index, &given)), [3]);
    }
}

#[test]
fn the_largest_group_fits() {
    let weights: Vec<u16> = (0..MEMBERS_MAX as u16)
        .map(|index| u16::MAX - index)
        .collect();
    for index in STEERED {
        let table = compile(index, &members(&weights));
        assert_eq!(table.live_len as usize, MEMBERS_MAX);
        assert!(table.len as usize <= ENTRIES_MAX);
    }
}

#[test]
fn a_tiny_weight_next_to_a_huge_one_is_kept() {
    let table = compile(Policy::RoundRobin, &members(&[u16::MAX, 1]));
    assert_eq!(counts(&table)[&1], 1);
    assert!(table.len as usize > ENTRIES_MAX - 16);
    let table = compile(Policy::Hash, &members(&[u16::MAX, 1]));
    assert_eq!(counts(&table)[&1], 1);
}

#[test]
fn a_new_generation_inherits_the_entries_of_its_slot() {
    let mut group = members(&[1, 1, 1, 1]);
    let before = compile(Policy::Hash, &group);
    group[2].member = 4;
    let after = compile(Policy::Hash, &group);
    for (&old, &new) in entries(&before).iter().zip(entries(&after)) {
        assert_eq!(new, if old == 2 { 4 } else { old });
    }
}

proptest! {
    #[test]
    fn round_robin_follows_the_weights_exactly(weights in vec(0u16..40, 1..40)) {
        let table = compile(Policy::RoundRobin, &members(&weights));
        let counts = counts(&table);
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        for (member, weight) in weights.iter().enumerate() {
            let count = counts.get(&(member as u16)).copied().unwrap_or(0);
            // count ÷ len = weight ÷ total, in whole numbers.
            prop_assert_eq!(count * total, u32::from(*weight) * table.len);
        }
        prop_assert!(table.len <= total);
    }

    #[test]
    fn round_robin_of_equals_takes_each_once(count in 2usize..300, weight in 1u16..) {
        let table = compile(Policy::RoundRobin, &members(&vec![weight; count]));
        prop_assert_eq!(entries(&table), (0..count as u16).collect::<Vec<_>>());
        prop_assert_eq!(entries(&table), live(&table));
    }

    #[test]
    fn round_robin_is_smooth(weights in vec(1u16..20, 1..40)) {
        // At each point of the period: less than one turn ahead of the exact share, and behind it
        // by the harmonic bound of the greedy choice at most.
        let table = compile(Policy::RoundRobin, &members(&weights));
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let behind_max = 1.0 + (weights.len() as f64).ln();
        let mut taken = vec![0.0; weights.len()];
        for (turn, &member) in entries(&table).iter().enumerate() {
            taken[usize::from(member)] += 1.0;
            for (&taken, &weight) in taken.iter().zip(&weights) {
                let due = (turn + 1) as f64 * f64::from(weight) / total;
                prop_assert!(taken - due < 1.0 && due - taken <= behind_max);
            }
        }
    }

    #[test]
    fn live_lists_each_weighted_member_once(weights in vec(0u16..100, 0..60), hash: bool) {
        let index = if hash { Policy::Hash } else { Policy::RoundRobin };
        let table = compile(index, &members(&weights));
        let mut firsts = Vec::new();
        for &member in entries(&table) {
            if !firsts.contains(&member) {
                firsts.push(member);
            }
        }
        prop_assert_eq!(live(&table), firsts.clone());
        // What `least-conn` looks at: all, or as many as it may, from wherever it begins.
        let scanned = firsts.len().min(SCAN_MAX as usize);
        prop_assert_eq!(table.scan_len as usize, scanned);
        prop_assert_eq!(&table.live[firsts.len()..firsts.len() + scanned], &firsts[..scanned]);
        firsts.sort_unstable();
        let weighted: Vec<u16> =
            (0..weights.len() as u16).filter(|&member| weights[usize::from(member)] > 0).collect();
        prop_assert_eq!(firsts, weighted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn round_robin_scales_weights_down_to_fit(weights in vec(1u16.., 1..200)) {
        let table = compile(Policy::RoundRobin, &members(&weights));
        prop_assert!(table.len as usize <= ENTRIES_MAX);
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        for (&member, &count) in &counts(&table) {
            let exact = f64::from(weights[usize::from(member)]) / total;
            let share = f64::from(count) / f64::from(table.len);
            let entries_off = (share - exact).abs() * f64::from(table.len);
            prop_assert!(entries_off <= 1.0 + exact * weights.len() as f64);
        }
        prop_assert_eq!(table.live_len as usize, weights.len());
    }

    #[test]
    fn maglev_shares_keep_the_documented_bound(weights in vec(1u16..1000, 1..300)) {
        let table = compile(Policy::Hash, &members(&weights));
        let len = maglev::length(SLOTS, weights.len());
        prop_assert_eq!(table.len as usize, len);
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        for (&member, &count) in &counts(&table) {
            let share = len as f64 * f64::from(weights[usize::from(member)]) / total;
            let bound = 2.0 + share * weights.len() as f64 / len as f64;
            prop_assert!((f64::from(count) - share).abs() <= bound, "{count} of {share}");
        }
    }

    #[test]
    fn maglev_of_equals_is_even(count in 1usize..=MEMBERS_MAX, weight in 1u16..) {
        let counts = counts(&compile(Policy::Hash, &members(&vec![weight; count])));
        let (min, max) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        prop_assert!(max - min <= 1);
    }

    #[test]
    fn maglev_moves_few_flows_when_one_member_leaves_or_joins(
        count in 2usize..=MEMBERS_MAX,
        seed: u64,
        gone: prop::sample::Index,
    ) {
        let mut group = members(&vec![1; count]);
        for member in &mut group {
            member.identity ^= seed;
        }
        let with = compile(Policy::Hash, &group);
        group.remove(gone.index(count));
        let without = compile(Policy::Hash, &group);
        let moved = moved(&with, &without);
        prop_assert!(moved <= 1.0 / count as f64 + EXTRA, "{moved} of {count}");
    }

    #[test]
    fn maglev_is_even_and_moves_few_flows_in_a_table_of_any_length(
        count in 2u32..=256,
        gone: prop::sample::Index,
    ) {
        let mut group = members(&vec![1; count as usize]);
        let with = super::compile(Policy::Hash, &group, site(count));
        let shares = counts(&with);
        prop_assert!(shares.values().max().unwrap() - shares.values().min().unwrap() <= 1);
        group.remove(gone.index(count as usize));
        let without = super::compile(Policy::Hash, &group, site(count));
        prop_assert_eq!(with.len, without.len);
        let moved = moved(&with, &without);
        prop_assert!(moved <= 1.0 / f64::from(count) + EXTRA, "{moved} of {count}");
    }

    #[test]
    fn maglev_gives_every_member_a_place(slots in 1u32..=256, count in 1usize..=MEMBERS_MAX) {
        let table = super::compile(Policy::Hash, &members(&vec![1; count]), site(slots));
        prop_assert_eq!(table.live_len as usize, count);
    }

    #[test]
    fn maglev_ignores_the_order_of_its_input(
        weights in vec(1u16..10, 1..50),
        by in any::<prop::sample::Index>(),
    ) {
        let mut group = members(&weights);
        let before = compile(Policy::Hash, &group);
        group.rotate_left(by.index(weights.len()));
        let rotated = compile(Policy::Hash, &group);
        group.reverse();
        prop_assert_eq!(&before, &rotated);
        prop_assert_eq!(&before, &compile(Policy::Hash, &group));
    }
}

#[test]
fn least_conn_passes_by_the_busy() {
    let table = compile(Policy::LeastConn, &members(&[1, 1, 1, 1]));
    let load = |_, share: Share| u32::from(share.seat == seat(3));
    for turn in 0..8 {
        let chosen = launcher_common::choose_least(&table, turn, load, |_| true).unwrap();
        assert_ne!(chosen.member, 3, "{:?}", &table.live[..8]);
    }
}
