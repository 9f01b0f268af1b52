//! Whether a flow of datagrams stays with its member.

use crate::FlowState;

const FLOW: FlowState = FlowState {
    member: 3,
    socket: 7,
    last: 1_000,
};

#[test]
fn it_does_until_it_is_idle() {
    // Another CPU may have read its clock earlier.
    for now in [900, 1_000, 1_049] {
        assert!(FLOW.stays(7, now, 50), "{now}");
    }
    for now in [1_050, u64::MAX] {
        assert!(!FLOW.stays(7, now, 50), "{now}");
    }
}

#[test]
fn it_does_not_with_another_socket() {
    assert!(!FLOW.stays(8, 1_000, 50), "another one has the place");
    assert!(!FLOW.stays(0, 1_000, 50), "nobody has it, or an ailing one");
    let nobody = FlowState { socket: 0, ..FLOW };
    assert!(!nobody.stays(0, 1_000, 50), "0 is no socket");
}
