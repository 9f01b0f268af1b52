//! Maglev hashing (Eisenbud et al., NSDI 2016): an even table of which few entries change when a
//! member joins or leaves.
//!
//! Each member prefers the table's places in an order of its own; the members take turns, and each
//! takes the first place on its list that is still free. Entries move to another member almost only
//! when their own has gone, or to one that has come.

use launcher_common::{ENTRIES_MAX, mix};

use super::Weighted;

/// The lengths that a table can have: primes, so that each step walks through every place.
const LENGTHS: [usize; 3] = [1021, 4093, 16381];

const _: () = assert!(LENGTHS[2] <= ENTRIES_MAX);

/// The table's length for a fleet of this many slots: the least with 100 places for each, as far as
/// it goes (256 slots have 63). Shorter is faster, because less of the cache is needed: on one
/// machine a decision cost 80 ns net with 1021 entries and 160 ns with 16381.
///
/// It does not follow the number of members: whenever it changed, nearly every flow would move. With
/// ten times as many members as slots it must, so that each has a place.
///
/// Measured over 2 to 1,024 members and the greatest length: a member that leaves moves its own
/// entries and at most 2 % of the others.
pub(super) fn length(slots: u32, members: usize) -> usize {
    let places = (100 * slots as usize).max(10 * members);
    let fits = LENGTHS.into_iter().find(|&length| length >= places);
    fits.unwrap_or(LENGTHS[2])
}

/// A member's walk through the places in the order of its preference, and its claim to a turn.
struct Walk {
    member: u16,
    weight: u64,
    /// Grows by the weight in each round; the greatest weight buys a turn.
    credit: u64,
    place: usize,
    step: usize,
}

impl Walk {
    fn new(member: &Weighted, greatest: u64, length: usize) -> Self {
        let weight = u64::from(member.weight);
        Self {
            member: member.member,
            weight,
            // Enough for a turn in the first round: each member gets at least one entry.
            credit: greatest - weight,
            place: (mix(member.identity) % length as u64) as usize,
            step: (mix(!member.identity) % (length as u64 - 1)) as usize + 1,
        }
    }

    /// The next place on the walk.
    fn next(&mut self, length: usize) -> usize {
        let place = self.place;
        self.place = (place + self.step) % length;
        place
    }
}

/// The table's entries, independent of the order of `members`: [`length`] of them, or none without
/// members.
///
/// With equal weights two members' numbers of entries differ by at most 1. With others, a member's
/// number is off its exact share s of the length by at most 2 + s × members ÷ length, because no one
/// gets less than one entry.
///
/// The members are distinct, at most `MEMBERS_MAX` and have a weight.
pub(super) fn build(members: &[Weighted], slots: u32) -> Vec<u16> {
    let length = length(slots, members.len());
    let Some(greatest) = members.iter().map(|member| u64::from(member.weight)).max() else {
        return Vec::new();
    };
    let mut members = members.to_vec();
    members.sort_unstable_by_key(|member| (member.identity, member.member));
    let mut walks: Vec<Walk> = members
        .iter()
        .map(|member| Walk::new(member, greatest, length))
        .collect();

    let mut places: Vec<Option<u16>> = vec![None; length];
    let mut free = length;
    while free > 0 {
        for walk in &mut walks {
            walk.credit += walk.weight;
            if walk.credit < greatest || free == 0 {
                continue;
            }
            walk.credit -= greatest;
            let place = loop {
                let place = walk.next(length);
                if places[place].is_none() {
                    break place;
                }
            };
            places[place] = Some(walk.member);
            free -= 1;
        }
    }
    places.into_iter().flatten().collect()
}
