//! What a measurement compares: a program that decides nothing, and ways to take turns.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::sk_action::SK_PASS,
    btf_maps::{Array, PerCpuArray},
    helpers::generated::bpf_jiffies64,
    macros::{btf_map, sk_reuseport, socket_filter},
    programs::{SkBuffContext, SkReuseportContext},
};
use launcher_common::CpuCursor;
use launcher_ebpf::fetch_add;

/// The counter that all CPUs share.
#[btf_map]
static SHARED: Array<u64, 1> = Array::new();

/// Each CPU's own.
#[btf_map]
static OWN: PerCpuArray<CpuCursor, 1> = PerCpuArray::new();

/// Leaves the decision to the kernel's hash.
#[sk_reuseport]
pub fn empty(_: SkReuseportContext) -> u32 {
    SK_PASS
}

// The ways to take turns are socket filters: the kernel runs programs of this type on request
// (`BPF_PROG_TEST_RUN`), those of the type above it does not.

/// Takes no turn.
#[socket_filter]
pub fn turn_none(_: SkBuffContext) -> i64 {
    0
}

/// Takes a turn from the counter that all CPUs share.
#[socket_filter]
pub fn turn_shared(_: SkBuffContext) -> i64 {
    shared() as i64
}

/// Takes this CPU's own.
#[socket_filter]
pub fn turn_own(_: SkBuffContext) -> i64 {
    own(CpuCursor::own) as i64
}

/// Takes this CPU's own where it is busy, else one from the counter that all share.
#[socket_filter]
pub fn turn_hybrid(_: SkBuffContext) -> i64 {
    // SAFETY: takes no pointer.
    let tick = unsafe { bpf_jiffies64() };
    own(|cursor| cursor.shared_while_quiet(tick, shared)) as i64
}

#[inline(always)]
fn shared() -> u64 {
    match SHARED.get_ptr_mut(0) {
        // SAFETY: points into the map's value.
        Some(counter) => unsafe { fetch_add(counter, 1) },
        None => 0,
    }
}

#[inline(always)]
fn own(take: impl FnOnce(&mut CpuCursor) -> u64) -> u64 {
    match OWN.get_ptr_mut(0) {
        // SAFETY: this CPU's own copy. The kernel runs a filter with migration and softirqs disabled,
        // and on request only in the thread that asks: nothing else uses it meanwhile.
        Some(cursor) => take(unsafe { &mut *cursor }),
        None => 0,
    }
}

launcher_ebpf::license!();
