//! Which CPU's packets go to whom.

use std::collections::BTreeMap;

use launcher_common::{ENTRIES_MAX, MEMBERS_MAX, Policy as Index, choose, cpu_number};
use proptest::{collection::vec, prelude::*};

use super::{Cpu, build};
use crate::policy::{Policy, Site, Weighted, compile};

/// Two packages with a node each, of two cores with two CPUs each: 0 and 4 are on one core.
fn machine() -> Vec<Cpu> {
    let cpu = |id| Cpu {
        id,
        node: id % 4 / 2,
        package: id % 4 / 2,
        core: id % 2,
    };
    (0..8).map(cpu).collect()
}

/// Members 0, 1, … at home on these CPUs.
fn pinned(cpus: &[u32]) -> Vec<Weighted> {
    let cpus = cpus.iter().map(|&cpu| Some(cpu));
    members(cpus)
}

fn members(cpus: impl Iterator<Item = Option<u32>>) -> Vec<Weighted> {
    (0..)
        .zip(cpus)
        .map(|(member, cpu)| Weighted {
            member,
            weight: 1,
            seat: member,
            identity: member.into(),
            cpu,
        })
        .collect()
}

/// The entries, with one for each CPU.
fn entries(members: &[Weighted]) -> Vec<u16> {
    let (entries, rounds) = build(members, &machine());
    assert_eq!(rounds, 1);
    entries
}

#[test]
fn each_cpu_has_the_member_that_is_pinned_to_it() {
    let reversed: Vec<u32> = (0..8).rev().collect();
    assert_eq!(entries(&pinned(&reversed)), [7, 6, 5, 4, 3, 2, 1, 0]);
}

#[test]
fn a_cpu_without_members_has_one_near_it() {
    // One a core: the sibling's.
    assert_eq!(entries(&pinned(&[0, 1, 2, 3])), [0, 1, 2, 3, 0, 1, 2, 3]);
    // One a package: that one's.
    assert_eq!(entries(&pinned(&[5, 2])), [0, 0, 1, 1, 0, 0, 1, 1]);
    // Two of one package: those of the other take turns.
    assert_eq!(entries(&pinned(&[0, 1])), [0, 1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(entries(&pinned(&[6])), [0; 8]);
}

#[test]
fn without_pinning_cpu_n_has_the_nth_member() {
    let free = |count| members(std::iter::repeat_n(None, count));
    assert_eq!(entries(&free(8)), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(entries(&free(3)), [0, 1, 2, 2, 0, 1, 2, 2]);
    let (entries, rounds) = build(&free(16), &machine());
    assert_eq!(rounds, 2);
    assert_eq!(entries[..6], [0, 8, 1, 9, 2, 10]);
}

#[test]
fn members_on_one_cpu_share_it() {
    let (entries, rounds) = build(&pinned(&[0, 0, 0, 1, 1]), &machine());
    assert_eq!(rounds, 6);
    assert_eq!(entries[..12], [0, 1, 2, 0, 1, 2, 3, 4, 3, 4, 3, 4]);
    assert_eq!(entries.len(), 48);
}

#[test]
fn a_machine_that_tells_nothing_has_the_cpus_of_its_members() {
    assert_eq!(build(&pinned(&[2, 0]), &[]), (vec![1, 0, 0], 1));
    let free = members([None, None].into_iter());
    assert_eq!(build(&free, &[]), (vec![0, 1], 1));
    assert_eq!(build(&[], &machine()), (vec![], 0));
}

#[test]
fn the_largest_machine_fits() {
    let machine: Vec<Cpu> = (0..9000)
        .map(|id| Cpu {
            id,
            node: id / 1000,
            package: id / 1000,
            core: id,
        })
        .collect();
    let (entries, rounds) = build(&pinned(&[8191, 0, 0, 0]), &machine);
    assert_eq!((entries.len(), rounds), (ENTRIES_MAX, 2));
    assert_eq!(entries[ENTRIES_MAX - 2..], [0, 0]);
}

#[test]
fn a_weight_of_0_takes_a_member_out_and_no_other_counts() {
    let mut members = pinned(&[0, 1, 2, 3]);
    members[1].weight = 0;
    members[2].weight = 200;
    let machine = machine();
    let site = Site {
        slots: 4,
        cpus: &machine,
    };
    let table = compile(Policy::Cpu, &members, site);
    assert_eq!(table.policy, Index::Cpu as u32);
    assert_eq!(
        table.entries[..table.len as usize],
        [0, 0, 2, 3, 0, 0, 2, 3]
    );
}

proptest! {
    #[test]
    fn everybody_is_reached_and_the_cpu_decides(
        homes in vec(prop::option::of(0u32..8), 1..40),
        hashes in vec(any::<u32>(), 100),
    ) {
        let members = members(homes.into_iter());
        let machine = machine();
        let site = Site { slots: 40, cpus: &machine };
        let table = compile(Policy::Cpu, &members, site);
        prop_assert_eq!(table.live_len as usize, members.len());
        let mut at_home: BTreeMap<u32, Vec<u16>> = BTreeMap::new();
        for member in &members {
            if let Some(cpu) = member.cpu {
                at_home.entry(cpu).or_default().push(member.member);
            }
        }
        let free = members.iter().any(|member| member.cpu.is_none());
        for (&cpu, at_home) in &at_home {
            for &hash in &hashes {
                let number = cpu_number(cpu, hash, table.rounds);
                let chosen = choose(&table, number, |_| true).expect("it has entries").member;
                prop_assert!(free || at_home.contains(&chosen), "{chosen} on {cpu}");
            }
        }
    }

    #[test]
    fn any_group_fits(count in 1usize..=MEMBERS_MAX, cpus in 1u32..600) {
        let machine: Vec<Cpu> = (0..cpus)
            .map(|id| Cpu { id, node: 0, package: 0, core: id })
            .collect();
        let (entries, rounds) = build(&members(std::iter::repeat_n(None, count)), &machine);
        prop_assert_eq!(entries.len(), (cpus * rounds) as usize);
        prop_assert!(entries.len() <= ENTRIES_MAX);
    }
}
