//! What both sides of the kernel boundary share: the layouts of the eBPF maps and [`choose`].
//!
//! ABI rule: every type here that crosses the boundary is `repr(C)`, has no implicit padding and
//! holds only integers; its size is asserted at compile time. The eBPF objects are committed, so a
//! change to a layout is a change to `launcher/bpf/`: `cargo xtask ebpf` rebuilds them and the
//! freshness test fails until it was run.
#![no_std]

#[cfg(test)]
extern crate std;

mod capture;
mod choose;
mod cursor;
mod load;
mod mix;
mod source;
mod table;
#[cfg(test)]
mod tests;

pub use capture::{CaptureEvent, EventKind};
pub use choose::{Chosen, SCAN_MAX, choose, choose_least, cpu_number};
pub use cursor::{CpuCursor, QUIET_MAX};
pub use load::{Handshakes, Load, Loads, MOVED_MAX, STRAYS_MAX, epoch};
pub use mix::mix;
pub use source::{Source, source_key};
pub use table::{
    Counters, ENTRIES_MAX, Flow, FlowState, HOLD, MEMBERS_MAX, Policy, ProbeSource, Share, Table,
};
