//! What `choose` and `choose_least` promise, whatever the table, the number and the loads, and whoever
//! has just gone: what `launcher-common/src/tests` checks, where the fuzzer looks for the exceptions.
#![no_main]

use std::collections::HashSet;

use arbitrary::{Arbitrary, Unstructured};
use launcher_common::{
    Chosen, ENTRIES_MAX, HOLD, MEMBERS_MAX, Policy, SCAN_MAX, Share, Table, choose, choose_least,
};
use libfuzzer_sys::fuzz_target;

/// How many candidates there may be at most: four entries, each live member, and the holding socket.
const TRIED_MAX: usize = 4 + MEMBERS_MAX + 1;

const POLICIES: [Policy; 6] = [
    Policy::RoundRobin,
    Policy::Hash,
    Policy::LeastConn,
    Policy::Source,
    Policy::Cpu,
    Policy::Random,
];

fuzz_target!(|data: &[u8]| {
    // Too short an input has nothing to say.
    let _ = check(&mut Unstructured::new(data));
});

fn check(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    if input.arbitrary()? {
        well_formed(input)
    } else {
        malformed(input)
    }
}

/// A table as user space builds it.
fn well_formed(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let policy = *input.choose(&POLICIES)?;
    let number: u32 = input.arbitrary()?;
    let (hold, hold_is_open): (bool, bool) = input.arbitrary()?;
    let gone: Gone = input.arbitrary()?;
    let loads: [u32; 16] = input.arbitrary()?;
    let load = |member: u16| loads[usize::from(member) % loads.len()];
    let entries = sequence(input)?;
    let table = table(policy as u32, &entries, hold);
    let members: HashSet<u16> = entries.iter().copied().collect();

    let is_there = |member: u16| match member {
        HOLD => hold_is_open,
        member => !gone.has(member, &entries),
    };
    let mut tried = Vec::new();
    let loaded = |_, share: Share| load(share.seat);
    let chosen = run(&table, number, loaded, |member| {
        tried.push(member);
        is_there(member)
    });

    // Only the table's members are tried, and the holding socket once, when each member has been.
    let (held, tried_members) = match tried.split_last() {
        Some((&HOLD, before)) => (true, before),
        _ => (false, tried.as_slice()),
    };
    assert!(tried.len() <= TRIED_MAX, "{} are tried", tried.len());
    assert!(
        tried_members.iter().all(|member| members.contains(member)),
        "{tried:?}"
    );
    let distinct: HashSet<u16> = tried_members.iter().copied().collect();
    assert!(
        !held || hold && distinct == members,
        "held without need: {tried:?}"
    );

    // The last one tried is chosen, if it is there; and one that is there is always found.
    let expected = tried
        .last()
        .filter(|&&member| is_there(member))
        .map(|&member| Chosen {
            member,
            after_miss: tried.len() > 1,
        });
    assert_eq!(chosen, expected, "{tried:?}");
    let somebody = members.iter().any(|&member| is_there(member));
    assert_eq!(
        chosen.is_some(),
        somebody || hold && hold_is_open,
        "{tried:?}"
    );
    assert_eq!(
        chosen.is_some_and(|chosen| chosen.member == HOLD),
        held && hold_is_open
    );
    assert!(
        chosen.is_some() || distinct == members,
        "not all were tried: {tried:?}"
    );

    // The first candidate is the policy's.
    if let Some(&first) = tried_members.first() {
        let len = entries.len() as u64;
        let index = match policy {
            Policy::RoundRobin | Policy::LeastConn | Policy::Cpu => u64::from(number) % len,
            Policy::Hash | Policy::Source | Policy::Random => (u64::from(number) * len) >> 32,
        };
        let entry = entries[index as usize];
        if policy == Policy::LeastConn {
            least(&table, &members, entry, first, load);
        } else {
            assert_eq!(first, entry);
        }
    }
    Ok(())
}

/// The first candidate under `least-conn` is not busier, for its weight, than that whose turn it is,
/// and gives way to that where they are equal; nor, if all are looked at, than any other.
fn least(table: &Table, members: &HashSet<u16>, entry: u16, first: u16, load: impl Fn(u16) -> u32) {
    let share = |member: u16| {
        (
            u64::from(load(member)),
            u64::from(table.shares[usize::from(member)].weight),
        )
    };
    let busier = |one: u16, other: u16| {
        let ((load, weight), (other_load, other_weight)) = (share(one), share(other));
        load * other_weight > other_load * weight
    };
    assert!(
        first == entry || busier(entry, first),
        "{first} instead of {entry}"
    );
    if members.len() <= SCAN_MAX as usize {
        let better = members.iter().find(|&&other| busier(first, other));
        assert_eq!(better, None, "is less busy than {first}");
    }
}

/// Anything at all in place of a table.
fn malformed(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let mut table = Box::new(Table::EMPTY);
    table.policy = if input.arbitrary()? {
        *input.choose(&POLICIES)? as u32
    } else {
        input.arbitrary()?
    };
    table.hold = input.arbitrary()?;
    table.len = near_a_limit(input)?;
    table.live_len = near_a_limit(input)?;
    table.scan_len = near_a_limit(input)?;
    let number = near_a_limit(input)?;
    let (load, refused): (u32, u16) = input.arbitrary()?;
    for _ in 0..input.int_in_range(0..=64)? {
        let (at, value): (u16, u16) = input.arbitrary()?;
        let [entry, live, member] =
            [ENTRIES_MAX, table.live.len(), MEMBERS_MAX].map(|len| usize::from(at) % len);
        table.entries[entry] = value;
        let share = Share {
            weight: value,
            seat: value,
        };
        table.live[live] = value;
        (table.live_shares[live], table.shares[member]) = (share, share);
    }
    let mut tried = 0;
    let chosen = run(
        &table,
        number,
        |_, _| load,
        |_| {
            tried += 1;
            tried > usize::from(refused)
        },
    );
    assert!(tried <= TRIED_MAX, "{tried} are tried");
    assert_eq!(chosen.is_some(), tried > usize::from(refused));
    Ok(())
}

/// As the program calls it.
fn run(
    table: &Table,
    number: u32,
    load: impl Fn(u16, Share) -> u32,
    select: impl FnMut(u16) -> bool,
) -> Option<Chosen> {
    if table.policy == Policy::LeastConn as u32 {
        choose_least(table, number, load, select)
    } else {
        choose(table, number, select)
    }
}

/// Who is not there.
#[derive(Arbitrary, Debug)]
enum Gone {
    /// Those whose bit is set; the members share 64 of them.
    Some(u64),
    /// All but that of one entry.
    AllBut(u16),
    All,
}

impl Gone {
    fn has(&self, member: u16, entries: &[u16]) -> bool {
        match *self {
            Self::Some(bits) => bits >> (member % 64) & 1 != 0,
            Self::AllBut(entry) => {
                let left = entries.get(usize::from(entry) % entries.len().max(1));
                left != Some(&member)
            }
            Self::All => true,
        }
    }
}

/// A sequence of members: a few that are listed, or each of a range in turn; repeated, because the
/// fuzzer's inputs are short.
fn sequence(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u16>> {
    let repeated = input.int_in_range(1..=16usize)?;
    let round: Vec<u16> = if input.arbitrary()? {
        let first = input.int_in_range(0..=MEMBERS_MAX as u16 - 1)?;
        let last = input.int_in_range(first..=MEMBERS_MAX as u16 - 1)?;
        (first..=last).collect()
    } else {
        let listed: Vec<u16> = input.arbitrary()?;
        listed
            .into_iter()
            .map(|member| member % MEMBERS_MAX as u16)
            .collect()
    };
    let mut entries = round.repeat(repeated);
    entries.truncate(ENTRIES_MAX);
    Ok(entries)
}

/// As user space builds it: each member is in `live` once, with the number of its entries as its weight.
fn table(policy: u32, entries: &[u16], hold: bool) -> Box<Table> {
    let mut table = Box::new(Table::EMPTY);
    table.policy = policy;
    table.hold = hold.into();
    table.len = entries.len() as u32;
    table.entries[..entries.len()].copy_from_slice(entries);
    for &entry in entries {
        let share = &mut table.shares[usize::from(entry)];
        if share.weight == 0 {
            share.seat = entry;
            table.live[table.live_len as usize] = entry;
            table.live_len += 1;
        }
        share.weight += 1;
    }
    let (live_len, first) = (table.live_len as usize, table.live_len.min(SCAN_MAX));
    for place in 0..live_len {
        table.live_shares[place] = table.shares[usize::from(table.live[place])];
    }
    table.live.copy_within(..first as usize, live_len);
    table.live_shares.copy_within(..first as usize, live_len);
    table.scan_len = first;
    table
}

/// A number around one of the limits, or any other.
fn near_a_limit(input: &mut Unstructured<'_>) -> arbitrary::Result<u32> {
    let limit = *input.choose(&[0, SCAN_MAX, MEMBERS_MAX as u32, ENTRIES_MAX as u32])?;
    Ok(if input.arbitrary()? {
        limit.wrapping_add_signed(input.int_in_range(-4..=4)?)
    } else {
        input.arbitrary()?
    })
}
