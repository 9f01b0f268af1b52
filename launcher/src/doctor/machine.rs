//! What is only looked at: privileges, settings of the network, limits.

use std::{fs, io, thread};

use rustix::process::{Resource, getrlimit};

use super::{Area, Check, State};
use crate::sys::{privilege, process::files_needed, wakeup::migration_wakes};

/// What the kernel has by default since Linux 5.4.
const SOMAXCONN: u64 = 4096;

pub(super) fn kernel() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

pub(super) fn privileges() -> Vec<Check> {
    let capabilities = match privilege::in_use() {
        Ok(capabilities) => capabilities,
        Err(error) => {
            let title = "capabilities";
            let check = Check::new(Area::Privileges, title, title, State::Unknown, error);
            return vec![check.advise(privilege::AS_ROOT)];
        }
    };
    let checks = capabilities.into_iter().map(|capability| {
        let id = capability.name.to_lowercase().replace('_', "-");
        let (state, found, advice) = match (capability.have, capability.needed) {
            (true, _) => (State::Ok, "there".to_owned(), ""),
            (false, true) => (State::Failed, "missing".to_owned(), privilege::AS_ROOT),
            (false, false) => (
                State::Warn,
                "missing".to_owned(),
                "of no account to who does not need that",
            ),
        };
        let title = format!("{} ({})", capability.name, capability.purpose);
        Check::new(Area::Privileges, id, title, state, found).advise(advice)
    });
    checks.collect()
}

pub(super) fn network() -> Vec<Check> {
    vec![
        wakeup(),
        mptcp(),
        somaxconn(),
        syn_cookies(),
        syn_backlog(),
        jit(),
    ]
}

fn wakeup() -> Check {
    let (state, found) = match migration_wakes() {
        Ok(true) => (State::Ok, "tried with two sockets".to_owned()),
        Ok(false) => {
            let found = "it sleeps on, so the launcher connects to it once after a crash";
            (State::Warn, found.to_owned())
        }
        Err(error) => {
            let found =
                format!("could not be tried ({error}), so the launcher takes it for missing");
            (State::Unknown, found)
        }
    };
    let title = "a worker is woken by a connection that moves to it";
    Check::new(Area::Kernel, "wake-up", title, state, found).advise(match state {
        State::Warn => "a kernel with the fix of CVE-2026-46015, such as 6.18.44",
        _ => "CAP_SYS_ADMIN, and a /proc/sys that can be written",
    })
}

fn mptcp() -> Check {
    let found = match setting("net/mptcp/enabled") {
        Ok(0) | Err(_) => "off",
        Ok(_) => {
            "on: sockets of that kind can't be steered. Go's servers are told to open none; any \
             other that does needs it turned off in its own settings"
        }
    };
    Check::new(Area::Network, "mptcp", "MPTCP", State::Ok, found)
}

fn somaxconn() -> Check {
    let title = "longest accept queue (net.core.somaxconn)";
    match setting("net/core/somaxconn") {
        Ok(length) => {
            let state = if length < SOMAXCONN {
                State::Warn
            } else {
                State::Ok
            };
            Check::new(Area::Network, "somaxconn", title, state, length).advise(format!(
                "sysctl -w net.core.somaxconn={SOMAXCONN}; what a server asks for in listen() is a \
                 limit, too"
            ))
        }
        Err(error) => unknown("somaxconn", title, &error),
    }
}

fn syn_cookies() -> Check {
    let title = "SYN cookies (net.ipv4.tcp_syncookies)";
    match setting("net/ipv4/tcp_syncookies") {
        Ok(value) => {
            let (state, found) = match value {
                0 => (
                    State::Warn,
                    "off: a full queue of handshakes drops new ones",
                ),
                1 => (State::Ok, "when a queue of handshakes is full"),
                _ => (
                    State::Warn,
                    "always, which costs each connection TCP options",
                ),
            };
            Check::new(Area::Network, "syn-cookies", title, state, found)
                .advise("sysctl -w net.ipv4.tcp_syncookies=1")
        }
        Err(error) => unknown("syn-cookies", title, &error),
    }
}

fn syn_backlog() -> Check {
    let title = "longest queue of handshakes (net.ipv4.tcp_max_syn_backlog)";
    match setting("net/ipv4/tcp_max_syn_backlog") {
        Ok(length) => Check::new(Area::Network, "syn-backlog", title, State::Ok, length),
        Err(error) => unknown("syn-backlog", title, &error),
    }
}

fn jit() -> Check {
    let title = "eBPF is compiled (net.core.bpf_jit_enable)";
    match setting("net/core/bpf_jit_enable") {
        Ok(0) => Check::new(Area::Network, "bpf-jit", title, State::Warn, "interpreted")
            .advise("sysctl -w net.core.bpf_jit_enable=1"),
        Ok(_) => Check::new(Area::Network, "bpf-jit", title, State::Ok, "on"),
        // A network namespace that is not the first has no such setting.
        Err(error) => unknown("bpf-jit", title, &error),
    }
}

pub(super) fn limits() -> Vec<Check> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let workers = u32::try_from(workers).unwrap_or(u32::MAX);
    let needed = files_needed(workers);
    let limit = getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let found = format!(
        "{} soft, {} hard; about {needed} for {workers} workers",
        shown(limit.current),
        shown(limit.maximum)
    );
    let few = limit.maximum.is_some_and(|maximum| maximum < needed);
    let state = if few { State::Failed } else { State::Ok };
    let title = "open files";
    let check = Check::new(Area::Limits, "open-files", title, state, found);
    vec![check.advise(crate::failure::MORE_FILES)]
}

fn unknown(id: &str, title: &str, error: &io::Error) -> Check {
    Check::new(Area::Network, id, title, State::Unknown, error)
        .advise("not every container shows it; look on the host")
}

/// A setting below `/proc/sys`.
fn setting(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/sys/{path}"))?;
    text.trim().parse().map_err(io::Error::other)
}
