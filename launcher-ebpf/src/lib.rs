//! What the eBPF programs share. Each file in `bin/` becomes one object in `launcher/bpf/`:
//!
//! - `capture`: makes `bind` shareable and reports sockets; loaded once per fleet.
//! - `steer`: selects a member; loaded once per group, so each group has its own maps.
//! - `account`: counts the connections of each worker; loaded once per fleet, if `least-conn` is asked
//!   for, and attached for each worker.
//! - `bench`: for `cargo xtask bench-steer`: an empty program, whose cost it subtracts, and ways to take
//!   turns.
#![no_std]
#![allow(internal_features)]
#![feature(core_intrinsics)]

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds `n` to `*value` and returns what was there before.
///
/// The `Atomic*` types of `core` have no fetch operations on this target, hence the intrinsic. It is
/// sequentially consistent because LLVM 22 compiles a relaxed one to an add without a fetch, even
/// where the result is used; in the kernel both are one locked instruction.
///
/// # Safety
/// `value` must point into a map value.
#[inline(always)]
pub unsafe fn fetch_add(value: *mut u64, n: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(value, n) }
}

/// Stores `after` in `*value` if `before` is there, and returns what was there.
///
/// # Safety
/// `value` must point into a map value.
#[inline(always)]
pub unsafe fn compare_exchange(value: *mut u64, before: u64, after: u64) -> u64 {
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u64, ORDER, ORDER>(value, before, after).0 }
}

/// Applies `change` to a word that other CPUs change too. After a few lost races it is given up: one
/// change that is not made must do no harm.
///
/// # Safety
/// `word` must point into a map value.
#[inline(always)]
pub unsafe fn update(word: *mut u64, change: impl Fn(u64) -> u64) {
    const TRIES: u32 = 3;
    for _ in 0..TRIES {
        // SAFETY: the caller's. An aligned load of 8 bytes can't tear.
        let before = unsafe { *word };
        // SAFETY: the caller's.
        if unsafe { compare_exchange(word, before, change(before)) } == before {
            break;
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: not an assumption but a demand: the verifier rejects any program in which this is
    // reachable, because it has no way out.
    #[expect(
        clippy::empty_loop,
        reason = "there is nothing to do in a place that can't be reached"
    )]
    loop {}
}

/// Declares the licence that the kernel asks of programs that use GPL-only helpers.
#[macro_export]
macro_rules! license {
    () => {
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
