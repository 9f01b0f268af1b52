//! The floor of a measurement: a program that decides nothing.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::sk_action::SK_PASS, macros::sk_reuseport, programs::SkReuseportContext};

/// Leaves the decision to the kernel's hash.
#[sk_reuseport]
pub fn empty(_: SkReuseportContext) -> u32 {
    SK_PASS
}

launcher_ebpf::license!();
