//! The calling thread's network namespace: its options, and what the kernel counts in it.

use std::fs;

/// Sets one of the namespace's options for IPv4, most of which are for both families.
///
/// # Panics
/// When there is none of this name, or the value is out of its range.
#[track_caller]
pub fn set(name: &str, value: u32) {
    let file = format!("/proc/sys/net/ipv4/{name}");
    let written = fs::write(&file, value.to_string());
    written.unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// What the kernel has counted in the namespace under this name of `TcpExt`.
///
/// # Panics
/// When it counts no such thing.
#[must_use]
#[track_caller]
pub fn counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").expect("/proc is mounted");
    // A line of names, and below it a line of their values.
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let mut fields = || lines.next().unwrap_or_default().split(' ');
    let (names, values) = (fields(), fields());
    let value = names.zip(values).find(|(found, _)| *found == name);
    let value = value.and_then(|(_, value)| value.parse().ok());
    value.unwrap_or_else(|| panic!("the kernel does not count {name}"))
}
