//! Draining a slot and taking it back.

use super::*;

#[test]
fn a_drained_slot_takes_nothing_and_keeps_its_worker() {
    let mut bench = Bench::ready(2);
    let worker = id(1, 1);
    assert_eq!(
        bench.ask(Request::Drain(1)),
        [Effect::Steer(vec![id(0, 1)])]
    );
    assert_eq!(bench.states()[1], (worker, State::Draining));
    let view = bench.fleet.views()[1];
    assert_eq!((view.drain_deadline, view.leaving), (None, false));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.drained(worker), [done()]);
    assert_eq!(bench.states()[1], (worker, State::Drained));
    assert_eq!(bench.fleet.views()[1].since, Duration::from_secs(1));
    assert_eq!(bench.drained(worker), [], "told twice");
    assert_eq!(bench.ask(Request::Drain(1)), [done()], "asked for twice");
    assert_eq!(bench.fleet.next_deadline(), None);

    assert_eq!(
        bench.ask(Request::Undrain(1)),
        [Effect::Steer(vec![id(0, 1), worker]), done()]
    );
    assert_eq!(bench.states()[1], (worker, State::Ready));
    bench.ask(Request::Drain(1));
    assert_eq!(
        bench.states()[1],
        (worker, State::Draining),
        "from the start"
    );
}

#[test]
fn a_drain_that_takes_too_long_is_answered_and_goes_on() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Drain(1));
    let (worker, after) = (id(1, 1), DRAIN_TIMEOUT);
    assert_eq!(bench.tick(), [unmet(Unmet::StillOpen { worker, after })]);
    assert_eq!(bench.now, DRAIN_TIMEOUT);
    assert_eq!(bench.states()[1], (worker, State::Draining));
    assert_eq!(bench.drained(worker), [], "it has been answered");
}

#[test]
fn a_drain_for_ever_has_no_deadline() {
    let mut bench = Bench::ready_with(Settings {
        drain_timeout: None,
        ..settings(2)
    });
    bench.ask(Request::Drain(1));
    assert_eq!(bench.fleet.next_deadline(), None);
    assert_eq!(bench.drained(id(1, 1)), [done()]);
}

#[test]
fn a_drain_keeps_the_limit_that_it_began_with() {
    for other in [None, Some(Duration::from_secs(1))] {
        let mut bench = Bench::ready(2);
        bench.ask(Request::Drain(1));
        bench.fleet.adjust(Settings {
            drain_timeout: other,
            ..settings(5)
        });
        assert_eq!(bench.fleet.workers_wanted(), 2, "that is for a scale");
        let (worker, after) = (id(1, 1), DRAIN_TIMEOUT);
        assert_eq!(bench.tick(), [unmet(Unmet::StillOpen { worker, after })]);
        assert_eq!(bench.now, DRAIN_TIMEOUT);
        assert_eq!(bench.fleet.next_deadline(), None);
        // The next one has the other.
        bench.ask(Request::Undrain(1));
        bench.ask(Request::Drain(1));
        let deadline = other.map(|timeout| DRAIN_TIMEOUT + timeout);
        assert_eq!(bench.fleet.next_deadline(), deadline);
    }
}

#[test]
fn a_drained_slot_stays_so_across_crashes_and_reloads() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Drain(1));
    let ended = Unmet::Ended { worker: id(1, 1) };
    assert_eq!(bench.crashed(id(1, 1)).last(), Some(&unmet(ended)));
    bench.tick();
    assert_eq!(without_notices(bench.arrives(id(1, 2))), []);
    assert_eq!(bench.states()[1], (id(1, 2), State::Draining));
    bench.drained(id(1, 2));

    bench.ask(Request::Restart(1));
    assert_eq!(without_notices(bench.arrives(id(1, 3))), []);
    assert_eq!(bench.goes(id(1, 2)), [Effect::Release(id(1, 2)), done()]);
    assert_eq!(bench.fleet.steered(), [id(0, 1)]);
}

#[test]
fn a_drain_is_also_done_by_a_worker_that_leaves_meanwhile() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Restart(1));
    bench.ask(Request::Drain(1));
    bench.arrives(id(1, 2));
    let effects = bench.drained(id(1, 1));
    let expected = [Effect::Signal(id(1, 1)), drained_notice(id(1, 1)), done()];
    assert_eq!(effects, expected);
}

#[test]
fn an_undrain_answers_the_drain_that_it_contradicts() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Drain(1));
    let undrained = unmet(Unmet::Undrained { slot: 1 });
    assert_eq!(bench.ask(Request::Undrain(1))[1..], [undrained, done()]);
}

#[test]
fn a_stop_answers_a_drain() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Drain(1));
    let effects = bench.step(Event::Stop(StopMode::Now));
    assert!(effects.contains(&unmet(Unmet::Stopped)), "{effects:?}");
}

#[test]
fn a_slot_without_a_ready_worker_is_drained_at_once() {
    let mut bench = Bench::ready(2);
    bench.crashed(id(1, 1));
    assert_eq!(bench.ask(Request::Drain(1)), [done()]);
    bench.tick();
    assert_eq!(without_notices(bench.arrives(id(1, 2))), []);
}

#[test]
fn the_last_worker_and_unknown_slots_are_not_drained() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Drain(0));
    assert_eq!(bench.ask(Request::Drain(1)), refused(Refusal::LastWorker));
    assert_eq!(bench.fleet.steered(), [id(1, 1)]);
    let unknown = refused(Refusal::NoSuchSlot { slot: 2, slots: 2 });
    assert_eq!(bench.ask(Request::Drain(2)), unknown);
    assert_eq!(bench.ask(Request::Undrain(2)), unknown);
    assert_eq!(bench.ask(Request::Undrain(1)), [done()], "nothing to do");
}
