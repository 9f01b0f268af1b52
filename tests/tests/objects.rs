//! The committed eBPF objects are fresh: what they were built from is what stands here.

#[test]
fn the_committed_ebpf_objects_are_what_their_sources_say() {
    if let Err(error) = xtask::check_objects() {
        panic!("{error:#}");
    }
}
