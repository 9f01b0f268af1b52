//! The weights of slots.

use super::*;

fn weigh(slot: u32, weight: u16) -> Request {
    Request::Weigh { slot, weight }
}

#[test]
fn a_weight_is_told_with_the_steer_set_and_stays_with_the_slot() {
    let mut bench = Bench::ready(2);
    let both = vec![id(0, 1), id(1, 1)];
    assert_eq!(bench.ask(weigh(1, 3)), [Effect::Steer(both), done()]);
    assert_eq!(bench.fleet.weights(), [(1, 3)].into());
    assert_eq!(bench.ask(weigh(1, 3)), [done()], "no change");
    assert_eq!(bench.states()[1], (id(1, 1), State::Ready));
    let status = ExitStatus::Unknown;
    let worker = id(1, 1);
    bench.step(Event::Exited { worker, status });
    assert_eq!(bench.fleet.weights(), [(1, 3)].into(), "it is the slot's");
}

#[test]
fn a_slot_without_weight_gets_nothing_and_is_not_the_last() {
    let mut bench = Bench::ready(2);
    let only = |worker| Effect::Steer(vec![worker]);
    assert_eq!(bench.ask(weigh(0, 0)), [only(id(1, 1)), done()]);
    let last = unmet(Unmet::Refused(Refusal::LastWorker));
    for request in [weigh(1, 0), Request::Drain(1)] {
        assert_eq!(bench.ask(request), std::slice::from_ref(&last));
    }
    assert_eq!(bench.ask(weigh(0, 0)), [done()], "asked for twice");
    // The only other one fails: what was asked for holds.
    let (worker, status) = (id(1, 1), ExitStatus::Unknown);
    let effects = bench.step(Event::Exited { worker, status });
    assert!(effects.contains(&Effect::Steer(Vec::new())), "{effects:?}");
    assert_eq!(bench.ask(weigh(0, 2)), [only(id(0, 1)), done()]);
}

#[test]
fn removed_slots_forget_their_weights() {
    let mut bench = Bench::ready(3);
    bench.ask(weigh(2, 5));
    bench.ask(weigh(1, 2));
    bench.ask(Request::Scale(2));
    assert_eq!(bench.fleet.weights(), [(1, 2)].into());
    let unknown = Refusal::NoSuchSlot { slot: 2, slots: 2 };
    let refused = unmet(Unmet::Refused(unknown));
    assert_eq!(bench.ask(weigh(2, 1)), [refused]);
}

#[test]
fn the_only_slot_with_a_weight_is_not_removed() {
    let mut bench = Bench::ready(2);
    bench.ask(weigh(0, 0));
    let last = unmet(Unmet::Refused(Refusal::LastWorker));
    assert_eq!(bench.ask(Request::Scale(1)), [last]);
}
