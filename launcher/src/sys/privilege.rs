//! Privileges, and what a refused eBPF call means.

use std::{error::Error, io};

use rustix::thread::{CapabilitySet, capabilities};

use crate::failure::{Exit, Failure, MORE_FILES};

/// Checks what the eBPF path can't do without, before anything is created: to load programs and,
/// where workers run as `another_user`, to copy their sockets.
///
/// # Errors
/// Names what is missing.
pub fn check(another_user: bool) -> Result<(), Failure> {
    let Ok(sets) = capabilities(None) else {
        return Ok(());
    };
    let has = |capability| sets.effective.contains(capability);
    // CAP_SYS_ADMIN stands for the first three (`bpf_capable` and its kind in
    // include/linux/capability.h).
    let admin = has(CapabilitySet::SYS_ADMIN);
    let missing: Vec<_> = [
        (CapabilitySet::BPF, "CAP_BPF", !admin),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", !admin),
        // Without it the verifier forbids the pointer arithmetic that compilers make
        // (`allow_ptr_leaks`, `bypass_spec_v1` in kernel/bpf/verifier.c).
        (CapabilitySet::PERFMON, "CAP_PERFMON", !admin),
        (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE", another_user),
        // To see which files they have open (`proc_fd_permission` in fs/proc/fd.c).
        (
            CapabilitySet::DAC_READ_SEARCH,
            "CAP_DAC_READ_SEARCH",
            another_user && !has(CapabilitySet::DAC_OVERRIDE),
        ),
    ]
    .into_iter()
    .filter(|&(capability, _, needed)| needed && !has(capability))
    .map(|(_, name, _)| name)
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let of_another_user = ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"];
    let what = if missing.iter().all(|name| of_another_user.contains(name)) {
        "cannot steer to workers of another user"
    } else {
        "cannot load eBPF"
    };
    Err(
        Failure::new(what, format_args!("{} missing", list(&missing)), AS_ROOT)
            .exit(Exit::Unavailable),
    )
}

/// A capability that the launcher has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// `CAP_BPF`
    pub name: &'static str,
    /// Whether it can be used right now.
    pub have: bool,
    /// Whether nothing works without it.
    pub needed: bool,
    /// What it is for.
    pub purpose: &'static str,
}

/// The capabilities that the launcher has a use for; those of [`check`] first.
///
/// # Errors
/// Those of `capget`.
pub fn in_use() -> io::Result<Vec<Capability>> {
    const LOADING: &str = "loads eBPF";
    let effective = capabilities(None)?.effective;
    let admin = effective.contains(CapabilitySet::SYS_ADMIN);
    let all = [
        (CapabilitySet::BPF, "CAP_BPF", true, LOADING),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN", true, LOADING),
        (CapabilitySet::PERFMON, "CAP_PERFMON", true, LOADING),
        (
            CapabilitySet::SYS_PTRACE,
            "CAP_SYS_PTRACE",
            false,
            "steers to workers of another user (--user)",
        ),
        (
            CapabilitySet::DAC_READ_SEARCH,
            "CAP_DAC_READ_SEARCH",
            false,
            "finds the sockets of workers of another user (--user)",
        ),
        (
            CapabilitySet::SETUID,
            "CAP_SETUID",
            false,
            "runs workers as another user (--user)",
        ),
        (
            CapabilitySet::SETGID,
            "CAP_SETGID",
            false,
            "runs workers with another group (--user, --group)",
        ),
        (
            CapabilitySet::KILL,
            "CAP_KILL",
            false,
            "stops workers of another user (--user)",
        ),
        (
            CapabilitySet::CHOWN,
            "CAP_CHOWN",
            false,
            "gives workers of another user a notification socket (--user, --ready notify)",
        ),
        (
            CapabilitySet::SYS_ADMIN,
            "CAP_SYS_ADMIN",
            false,
            "tries in a network namespace whether moved connections wake; mounts a cgroup2 or bpffs \
             that is missing",
        ),
    ];
    Ok(all
        .into_iter()
        .map(|(capability, name, needed, purpose)| Capability {
            name,
            have: effective.contains(capability)
                || (needed && admin)
                || (capability == CapabilitySet::DAC_READ_SEARCH
                    && effective.contains(CapabilitySet::DAC_OVERRIDE)),
            needed,
            purpose,
        })
        .collect())
}

/// How to get what is needed.
pub const AS_ROOT: &str = "run as root, or give the file the capabilities: setcap \
    cap_bpf,cap_net_admin,cap_perfmon,cap_sys_ptrace,cap_dac_override+ep reuseport-launch";

/// Explains why an eBPF program could not be loaded or attached.
#[must_use]
pub fn ebpf_failure(what: impl Into<String>, error: &(dyn Error + 'static)) -> Failure {
    let (why, hint) = match root_errno(error) {
        Some(libc::EPERM) => (
            format!(
                "the kernel refused it, although no capability is missing: {}",
                chain(error)
            ),
            "look for a seccomp filter (containers), kernel lockdown, or a user namespace: eBPF \
             needs the initial one",
        ),
        Some(libc::EMFILE | libc::ENFILE) => (chain(error), MORE_FILES),
        Some(libc::ENOMEM) => (
            chain(error),
            "free memory, or raise the limit of this cgroup",
        ),
        Some(libc::EBUSY | libc::EADDRINUSE) => (
            chain(error),
            "another program steers this socket already: is there another launcher, or does the \
             server attach one itself?",
        ),
        Some(libc::EOPNOTSUPP) => (
            chain(error),
            "sockets of this kind can't be steered; turn MPTCP off in the server",
        ),
        _ => (
            format!(
                "kernel {} does not accept it: {}",
                kernel_release(),
                chain(error)
            ),
            "Linux 5.14 or later with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF is needed",
        ),
    };
    Failure::new(what, why, hint).exit(Exit::Unavailable)
}

fn list(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        [all @ .., last] => format!("{} and {last} are", all.join(", ")),
        [] => "nothing is".to_owned(),
    }
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // A verifier log can have thousands of lines; its end says what is wrong.
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n    ")
}

/// The error of the system call that an error comes from, if it comes from one.
#[must_use]
pub fn root_errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        cause = error.source();
    }
    None
}

fn kernel_release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errno_is_found_through_the_chain() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(root_errno(&error), Some(libc::EINVAL));
        assert!(chain(&error).starts_with("outer: Invalid argument"));
    }
}
