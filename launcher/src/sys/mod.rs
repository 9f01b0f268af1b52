//! Effects at the kernel's edge that know nothing of eBPF: processes, cgroups, CPUs, sockets.

pub mod cgroup;
pub mod cpus;
pub mod hierarchy;
pub mod identity;
pub mod listeners;
pub mod netns;
pub mod privilege;
pub mod process;
pub mod program;
pub mod readable;
pub mod runtime;
