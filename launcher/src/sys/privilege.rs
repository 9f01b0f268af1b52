//! Privileges, and what a refused eBPF call means.

use std::{error::Error, io};

use rustix::thread::{CapabilitySet, capabilities};

use crate::failure::{Exit, Failure};

/// The privileges that the eBPF path needs and this process does not have in effect.
fn missing_capabilities() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else {
        return Vec::new();
    };
    // CAP_SYS_ADMIN stands for all of them (`bpf_capable` and its kind in
    // include/linux/capability.h).
    if sets.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    [
        (CapabilitySet::BPF, "CAP_BPF"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        // Without it the verifier forbids the pointer arithmetic that compilers make
        // (`allow_ptr_leaks`, `bypass_spec_v1` in kernel/bpf/verifier.c).
        (CapabilitySet::PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|&(capability, _)| !sets.effective.contains(capability))
    .map(|(_, name)| name)
    .collect()
}

/// Checks what nothing of the eBPF path can do without, before anything is created.
///
/// # Errors
/// Names what is missing.
pub fn check() -> Result<(), Failure> {
    let missing = missing_capabilities();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "cannot load eBPF",
        format_args!("{} missing", list(&missing)),
        AS_ROOT,
    )
    .exit(Exit::Unavailable))
}

const AS_ROOT: &str = "run as root, or give the file the capabilities: setcap \
    cap_bpf,cap_net_admin,cap_perfmon,cap_sys_ptrace,cap_dac_override+ep reuseport-launch";

/// Explains why an eBPF program could not be loaded or attached.
#[must_use]
pub fn ebpf_failure(what: impl Into<String>, error: &(dyn Error + 'static)) -> Failure {
    let (why, hint) = if root_errno(error) == Some(libc::EPERM) {
        (
            format!(
                "the kernel refused it, although no capability is missing: {}",
                chain(error)
            ),
            "look for a seccomp filter (containers), kernel lockdown, or a user namespace: eBPF \
             needs the initial one",
        )
    } else {
        (
            format!(
                "kernel {} does not accept it: {}",
                kernel_release(),
                chain(error)
            ),
            "Linux 5.14 or later with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF is needed",
        )
    };
    Failure::new(what, why, hint).exit(Exit::Unavailable)
}

fn list(names: &[&str]) -> String {
    match names {
        [one] => format!("{one} is"),
        _ => format!("{} are", names.join(", ")),
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

fn root_errno(error: &(dyn Error + 'static)) -> Option<i32> {
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
