//! `cpu`: each CPU's packets go to the members whose workers are pinned to it, so that a connection is
//! served where its packets come in; the packets of a CPU without members to one near it.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use launcher_common::ENTRIES_MAX;

use super::Weighted;

/// How many CPUs are told apart: what the kernel can be built for (`NR_CPUS`).
const CPUS_MAX: u32 = 8192;

const _: () = assert!(CPUS_MAX as usize <= ENTRIES_MAX);

/// A CPU, and where it is. An unknown node or package is `u32::MAX`, an unknown core the CPU's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number.
    pub id: u32,
    /// The NUMA node.
    pub node: u32,
    /// The package.
    pub package: u32,
    /// The physical core within the package.
    pub core: u32,
}

impl Cpu {
    /// How far away another CPU is: on the same core, the same node, the same package, or elsewhere.
    fn distance(&self, other: &Self) -> u32 {
        let same_package = self.package == other.package;
        if same_package && self.core == other.core {
            0
        } else if self.node == other.node {
            1
        } else if same_package {
            2
        } else {
            3
        }
    }
}

/// The table's entries and how many of them each CPU has, one after another. There are entries for
/// every CPU up to the one with the highest number; none without members.
///
/// A member is at home on the CPU that its worker is pinned to; the i-th of those that are not pinned
/// on the i-th CPU, over and over. The members that are at home on a CPU share its packets. Those of a
/// CPU where none is go to a member of the nearest CPUs, of several to the one with the fewest CPUs.
///
/// The members are distinct, at most `MEMBERS_MAX` and have a weight, which counts for no more.
pub(super) fn build(members: &[Weighted], machine: &[Cpu]) -> (Vec<u16>, u32) {
    let mut members = members.to_vec();
    members.sort_unstable_by_key(|member| (member.identity, member.member));
    let machine = known(machine, &members);
    let Some(last) = machine.keys().next_back() else {
        return (Vec::new(), 0);
    };
    let cpus = *last as usize + 1;
    let homes = homes(&members, &machine);
    let rounds = rounds(&homes, cpus);
    let mut entries = Vec::with_capacity(cpus * rounds);
    // How many CPUs without members each member has got.
    let mut more = vec![0; members.len()];
    for cpu in 0..=*last {
        let at_home = homes.get(&cpu);
        match at_home {
            Some(at_home) => {
                let turns = at_home.iter().cycle().take(rounds);
                entries.extend(turns.map(|&index| members[index].member));
            }
            None => {
                let place = machine.get(&cpu);
                // A CPU that isn't there yet is as far from all.
                let distance = |home: &u32| match (place, machine.get(home)) {
                    (Some(place), Some(home)) => place.distance(home),
                    _ => u32::MAX,
                };
                let near = homes
                    .iter()
                    .flat_map(|(home, at_home)| at_home.iter().map(move |&index| (home, index)))
                    .min_by_key(|&(home, index)| (distance(home), more[index], index));
                let Some((_, index)) = near else {
                    return (Vec::new(), 0);
                };
                more[index] += 1;
                entries.extend(std::iter::repeat_n(members[index].member, rounds));
            }
        }
    }
    (entries, rounds as u32)
}

/// The CPUs by number: those of the machine, and where it doesn't tell of them, those that members are
/// pinned to, or as many as there are members.
fn known(machine: &[Cpu], members: &[Weighted]) -> BTreeMap<u32, Cpu> {
    let alone = |id| Cpu {
        id,
        node: u32::MAX,
        package: u32::MAX,
        core: id,
    };
    let mut known: BTreeMap<u32, Cpu> = members
        .iter()
        .filter_map(|member| Some(alone(member.cpu?)))
        .chain(machine.iter().copied())
        .filter(|cpu| cpu.id < CPUS_MAX)
        .map(|cpu| (cpu.id, cpu))
        .collect();
    if known.is_empty() {
        known = (0..members.len() as u32)
            .map(|id| (id, alone(id)))
            .collect();
    }
    known
}

/// By CPU: the indices of the members that are at home there.
fn homes(members: &[Weighted], machine: &BTreeMap<u32, Cpu>) -> BTreeMap<u32, Vec<usize>> {
    let mut free = machine.keys().copied().cycle();
    let mut homes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let pinned = member.cpu.filter(|cpu| machine.contains_key(cpu));
        if let Some(home) = pinned.or_else(|| free.next()) {
            homes.entry(home).or_default().push(index);
        }
    }
    homes
}

/// How many entries each CPU needs, so that those who share one get as much of it, as far as the table
/// has room for that.
fn rounds(homes: &BTreeMap<u32, Vec<usize>>, cpus: usize) -> usize {
    let most = ENTRIES_MAX / cpus;
    homes.values().fold(1, |rounds, at_home| {
        (1..=at_home.len())
            .map(|times| rounds * times)
            .find(|rounds| rounds.is_multiple_of(at_home.len()))
            .unwrap_or(rounds)
            .min(most)
    })
}
