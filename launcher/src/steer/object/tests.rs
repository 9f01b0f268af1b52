//! What is said of objects that can't be used, without asking the kernel.

use launcher_common::MEMBERS_MAX;
use proptest::prelude::*;

use super::*;

const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf");
const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/least-hint/least-hint.o"
);

fn example() -> Vec<u8> {
    fs::read(EXAMPLE).unwrap()
}

/// Why these bytes are no steering object.
fn refusal(bytes: Vec<u8>) -> String {
    let failure = Object::parse(Path::new("mine.o"), bytes).unwrap_err();
    assert_eq!(failure.exit, Exit::Config);
    let why = failure.why.strip_prefix("mine.o: ");
    why.unwrap_or_else(|| panic!("{failure}")).to_owned()
}

/// The example with other bytes in the place of these, wherever they are.
fn changed(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = example();
    let mut changes = 0;
    for at in 0..bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to);
            changes += 1;
        }
    }
    assert!(changes > 0);
    bytes
}

#[test]
fn the_example_is_one() {
    let object = Object::parse(Path::new("mine.o"), example()).unwrap();
    assert_eq!(object.program, "least_hint");
    assert!(object.migrates && object.counts() && object.takes_hints());
}

#[test]
fn maps_may_be_missing_but_not_all() {
    let without = |name: &[u8], other: &[u8]| changed(name, other);
    let why = refusal(without(b"\0MEMBERS\0", b"\0PERSONS\0"));
    assert_eq!(why, "it has no map MEMBERS");
    let why = refusal(without(b"\0TABLE\0", b"\0CHAIR\0"));
    assert_eq!(why, "it has no map TABLE");
    let parse = |bytes| Object::parse(Path::new("mine.o"), bytes).unwrap();
    assert!(!parse(without(b"\0COUNTERS\0", b"\0ACCOUNTS\0")).counts());
    assert!(!parse(without(b"\0HINTS\0", b"\0WORDS\0")).takes_hints());
}

#[test]
fn maps_must_have_the_sizes_of_the_interface() {
    let number = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let mut bytes = example();
    // BTF consists of words, and has the sizes of maps as lengths of arrays.
    let begins = |bytes: &[u8]| bytes == [0x9f, 0xeb, 1, 0];
    let btf = bytes.windows(4).position(begins).unwrap();
    for word in bytes[btf..].chunks_exact_mut(4) {
        if word == number(MEMBERS_MAX + 1) {
            word.copy_from_slice(&number(MEMBERS_MAX));
        }
    }
    assert_eq!(
        refusal(bytes),
        "its map MEMBERS is a REUSEPORT_SOCKARRAY with 1024 entries, keys of 4 and values of 4 bytes; \
         wanted is a REUSEPORT_SOCKARRAY with 1025 entries, keys of 4 and values of 4 bytes"
    );
}

#[test]
fn other_objects_are_none() {
    let ours = |name: &str| fs::read(format!("{OURS}/{name}.o")).unwrap();
    let why = refusal(ours("steer"));
    assert!(why.starts_with("it has several programs, steer, "), "{why}");
    let why = refusal(changed(
        b"sk_reuseport/migrate\0",
        b"cgroup_skb/ingress\0\0\0",
    ));
    assert_eq!(
        why,
        "its program least_hint is not in the section sk_reuseport or sk_reuseport/migrate"
    );
    for bytes in [Vec::new(), b"#!/bin/sh\n".to_vec(), vec![0; 4096]] {
        let why = refusal(bytes);
        assert!(why.starts_with("it is no eBPF object: "), "{why}");
    }
}

#[test]
fn no_cut_off_object_is_one() {
    let whole = example();
    for length in (0..whole.len()).step_by(97) {
        refusal(whole[..length].to_vec());
    }
}

proptest! {
    /// Whatever it is taken for, it is no reason to end without a word.
    #[test]
    fn damaged_objects_are_met_calmly(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = example();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        drop(Object::parse(Path::new("mine.o"), bytes));
    }
}

#[test]
fn what_is_no_file_is_not_read() {
    let failure = |path: &str| Object::open(Path::new(path)).unwrap_err();
    assert!(
        failure("/dev/zero")
            .why
            .contains("it is not a regular file")
    );
    let none = failure("/none.o");
    assert_eq!(none.exit, Exit::Config);
    assert!(
        none.why.starts_with("reading /none.o failed: No such file"),
        "{none}"
    );
}
