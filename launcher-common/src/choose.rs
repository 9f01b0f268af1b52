//! The choice of a member, in the kernel and on the host alike.

use core::num::NonZeroU32;

use crate::{ENTRIES_MAX, HOLD, MEMBERS_MAX, Policy, Share, Table};

/// How many members `least-conn` looks at for one connection, if the one whose turn it is isn't idle.
/// Among more, the window moves on with each connection. Each costs some 4 ns; the best of 24 that
/// come by turns is hardly worse than the best of all.
pub const SCAN_MAX: u32 = 24;

/// How many entries of the sequence are tried before the list of live members is gone through.
const TRIES: u32 = 4;

/// A selected member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its index in the socket array; [`HOLD`] is the holding socket's.
    pub member: u16,
    /// Whether another one was tried first and had gone.
    pub after_miss: bool,
}

/// Selects a member: `select` is called with one candidate after another until it returns true.
///
/// `number` is what the policy's index function yields for the packet (see [`Policy`]).
///
/// The candidates are the table's entry for the number, the next few entries, then every live member,
/// so the only member left is always found, and last the holding socket, if the table has one.
#[inline(always)]
pub fn choose(table: &Table, number: u32, select: impl FnMut(u16) -> bool) -> Option<Chosen> {
    search(table, number, |first, _| first, select)
}

/// The same for `least-conn`, where the first candidate is a member that is less busy for its weight
/// than that of the entry, if there is one. `load` is what a member, with its share,
/// has to do.
#[inline(always)]
pub fn choose_least(
    table: &Table,
    number: u32,
    load: impl Fn(u16, Share) -> u32,
    select: impl FnMut(u16) -> bool,
) -> Option<Chosen> {
    let first = |first, live_len| least(table, number, live_len, first, &load);
    search(table, number, first, select)
}

#[inline(always)]
fn search(
    table: &Table,
    number: u32,
    instead: impl FnOnce(u16, NonZeroU32) -> u16,
    mut select: impl FnMut(u16) -> bool,
) -> Option<Chosen> {
    let mut after_miss = false;
    // As types that aren't 0, because a division that may fail has no place in the kernel.
    if let (Some(len), Some(live_len)) =
        (NonZeroU32::new(table.len), NonZeroU32::new(table.live_len))
        && let Some(start) = start(table.policy, number, len)
    {
        // The remainders by the arrays' sizes change nothing in a well-formed table. They are masks
        // (both sizes are powers of two), and what proves to the verifier that every access is in
        // bounds. The index is computed anew in each step, not advanced with a wrap-around, because
        // the verifier would follow both outcomes of the wrap in each step.
        let member = instead(table.entries[start as usize % ENTRIES_MAX], live_len);
        if select(member) {
            return Some(Chosen { member, after_miss });
        }
        after_miss = true;
        let stride = stride(table.policy, number, len);
        for step in 1..TRIES {
            let index = start.wrapping_add(step.wrapping_mul(stride)) % len;
            let member = table.entries[index as usize % ENTRIES_MAX];
            if select(member) {
                return Some(Chosen { member, after_miss });
            }
        }
        // Not `number + step`, which may overflow on the way: it would go on elsewhere on the list, and
        // leave members out.
        let begin = number % live_len;
        for step in 0..MEMBERS_MAX as u32 {
            if step >= live_len.get() {
                break;
            }
            let index = begin.wrapping_add(step) % live_len;
            let member = table.live[index as usize % MEMBERS_MAX];
            if select(member) {
                return Some(Chosen { member, after_miss });
            }
        }
    }
    if table.hold != 0 && select(HOLD) {
        return Some(Chosen {
            member: HOLD,
            after_miss,
        });
    }
    None
}

/// The number that `cpu` yields for a packet: that of the first of the CPU's entries, or of the one of
/// several that the packet's hash is for.
#[inline(always)]
#[must_use]
pub fn cpu_number(cpu: u32, hash: u32, rounds: u32) -> u32 {
    let round = (u64::from(hash) * u64::from(rounds)) >> 32;
    cpu.wrapping_mul(rounds).wrapping_add(round as u32)
}

/// The member that is least busy for its weight, among `first` and up to [`SCAN_MAX`] others. Where
/// several are, it is `first` if that is one of them, so that idle members take turns by weight; else
/// the next one on the list from a place that moves on with `number`.
#[inline(always)]
fn least(
    table: &Table,
    number: u32,
    live_len: NonZeroU32,
    first: u16,
    load: &impl Fn(u16, Share) -> u32,
) -> u16 {
    let begin = (number % live_len) as usize % MEMBERS_MAX;
    let weigh = |member, share: Share| {
        let load = load(member, share);
        (u64::from(load), u64::from(share.weight))
    };
    let (mut best_load, mut best_weight) =
        weigh(first, table.shares[usize::from(first) % MEMBERS_MAX]);
    if best_load == 0 {
        return first;
    }
    let mut best = first;
    // A length of its own: otherwise the verifier would know, and go through, each length that the list
    // of live members can have by then.
    for step in 0..SCAN_MAX {
        if step >= table.scan_len {
            break;
        }
        let at = begin + step as usize;
        let (load, weight) = weigh(table.live[at], table.live_shares[at]);
        // load ÷ weight < best_load ÷ best_weight, without a division.
        if load * best_weight < best_load * weight {
            (best, best_load, best_weight) = (table.live[at], load, weight);
        }
    }
    best
}

/// How far it is from a tried entry to the next: another number each time the same entry is met, so
/// that the turns of a member that has gone are dealt out among all others, not given to a neighbour.
#[inline(always)]
fn stride(policy: u32, number: u32, len: NonZeroU32) -> u32 {
    let Some(others) = NonZeroU32::new(len.get() - 1) else {
        return 0;
    };
    let round = if takes_turns(policy) {
        number / len
    } else {
        number
    };
    1 + round % others
}

/// The entry whose turn it is; `None` where the policy is unknown.
#[inline(always)]
fn start(policy: u32, number: u32, len: NonZeroU32) -> Option<u32> {
    if takes_turns(policy) || policy == Policy::Cpu as u32 {
        Some(number % len)
    } else if policy == Policy::Hash as u32
        || policy == Policy::Source as u32
        || policy == Policy::Random as u32
    {
        // The high bits of number × len: a division-free map of 0..2^32 onto 0..len.
        Some(((u64::from(number) * u64::from(len.get())) >> 32) as u32)
    } else {
        None
    }
}

/// Whether consecutive numbers are given to consecutive connections.
#[inline(always)]
fn takes_turns(policy: u32) -> bool {
    policy == Policy::RoundRobin as u32 || policy == Policy::LeastConn as u32
}
