//! A policy of one's own, for `--steer-object`: each connection goes to the worker with the smallest
//! hint for its weight. What a hint is, is for the workers to say: the length of a queue, say. Where
//! several workers have the same, they take turns.
//!
//! docs/STEER-OBJECT.md describes the maps. `launcher_common` has their layouts, and the search, which
//! tries further members when the chosen one has just gone, and the holding socket last.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    btf_maps::{Array, ArrayOfMaps, PerCpuArray, ReusePortSockArray},
    macros::{btf_map, sk_reuseport},
    programs::SkReuseportContext,
};
use launcher_common::{Counters, HOLD, MEMBERS_MAX, Table, choose_least};

/// The sockets that can be selected, by member index.
#[btf_map]
static MEMBERS: ReusePortSockArray<{ MEMBERS_MAX + 1 }> = ReusePortSockArray::new();

/// Which of them take connections.
#[btf_map]
static TABLE: ArrayOfMaps<Array<Table, 1>, 1> = ArrayOfMaps::new();

/// What `status` shows.
#[btf_map]
static COUNTERS: PerCpuArray<Counters, { MEMBERS_MAX + 1 }> = PerCpuArray::new();

/// What the workers have said, by member index.
#[btf_map]
static HINTS: Array<u64, MEMBERS_MAX> = Array::new();

/// A map that the launcher does not know: each CPU's own turns.
#[btf_map]
static TURNS: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Selects a member. With migration: it is also asked where a connection goes whose listener has
/// gone.
#[sk_reuseport(migrate)]
pub fn least_hint(ctx: SkReuseportContext) -> u32 {
    let moves = ctx.migrating_sk().is_some();
    let chosen = TABLE.get_value(0, &0).and_then(|table| {
        choose_least(
            table,
            turn(),
            |member, _| hint(member),
            |member| MEMBERS.select_reuseport(&ctx, u32::from(member)).is_ok(),
        )
    });
    let Some(chosen) = chosen else {
        if moves {
            // It has been accepted by the kernel: whomever its hash finds may still serve it.
            count(MEMBERS_MAX as u32, |c| c.fell_through += 1);
            return SK_PASS;
        }
        // Nobody takes connections. To pass without a selection would leave it to the kernel's hash,
        // which knows nothing of drains.
        count(MEMBERS_MAX as u32, |c| c.refused += 1);
        return SK_DROP;
    };
    if chosen.after_miss {
        count(MEMBERS_MAX as u32, |c| c.missed += 1);
    }
    count(u32::from(chosen.member), |c| {
        if chosen.member == HOLD {
            c.held += 1;
        } else if moves {
            c.migrated += 1;
        } else {
            c.selected += 1;
        }
    });
    SK_PASS
}

/// What a member's worker has said; 0 if it has said nothing.
#[inline(always)]
fn hint(member: u16) -> u32 {
    let hint = HINTS.get(u32::from(member)).copied().unwrap_or(0);
    u32::try_from(hint).unwrap_or(u32::MAX)
}

#[inline(always)]
fn turn() -> u32 {
    match TURNS.get_ptr_mut(0) {
        // SAFETY: this CPU's own; programs of this type are not re-entered on a CPU.
        Some(turn) => unsafe {
            *turn = (*turn).wrapping_add(1);
            *turn
        },
        None => 0,
    }
}

#[inline(always)]
fn count(index: u32, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: as in `turn`.
        change(unsafe { &mut *counters });
    }
}

/// `sk_select_reuseport` is for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable, or the verifier would refuse the program: this has no way out.
    loop {}
}
