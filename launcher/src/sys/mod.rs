//! Effects at the kernel's edge that know nothing of eBPF: processes, cgroups, CPUs, sockets.

mod ancestry;
pub mod cgroup;
pub mod clock;
pub mod connections;
pub mod cpus;
pub mod established;
pub mod hierarchy;
pub mod identity;
pub mod inherit;
pub mod listen;
pub mod listeners;
pub mod memory;
pub mod netns;
pub mod notify;
pub mod pins;
pub mod privilege;
pub mod process;
pub mod program;
pub mod readable;
pub mod runtime;
pub mod service;
mod sock_diag;
pub mod wakeup;
