//! Scaling up and down.

use super::*;

#[test]
fn scaling_up_is_done_when_the_new_workers_are_ready() {
    let mut bench = Bench::ready(1);
    let spawns = [Effect::Spawn(id(1, 1)), Effect::Spawn(id(2, 1))];
    assert_eq!(bench.ask(Request::Scale(3)), spawns);
    assert_eq!(bench.fleet.workers_wanted(), 3);
    bench.arrives(id(2, 1));
    let (verb, done_slots, of) = (Verb::Scale, 1, 2);
    let operation = Operation {
        verb,
        done: done_slots,
        of,
    };
    assert_eq!(bench.fleet.operation(), Some(operation));
    assert_eq!(bench.arrives(id(1, 1)).last(), Some(&done()));
    assert_eq!(bench.fleet.steered(), [id(0, 1), id(1, 1), id(2, 1)]);
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn scaling_down_removes_the_highest_slots_and_is_done_when_they_are_gone() {
    let mut bench = Bench::ready(3);
    let steer = Effect::Steer(vec![id(0, 1)]);
    assert_eq!(bench.ask(Request::Scale(1)), [steer]);
    assert_eq!(bench.fleet.workers_wanted(), 1);
    assert_eq!(bench.goes(id(2, 1)), [Effect::Release(id(2, 1))]);
    assert_eq!(bench.goes(id(1, 1)), [Effect::Release(id(1, 1)), done()]);
    assert_eq!(bench.states(), [(id(0, 1), State::Ready)]);

    // No generation comes back.
    assert_eq!(bench.ask(Request::ScaleBy(1)), [Effect::Spawn(id(1, 2))]);
}

#[test]
fn scaling_down_takes_whatever_a_slot_has() {
    let mut bench = Bench::ready(4);
    bench.crashed(id(1, 1));
    bench.tick();
    bench.spawned(id(1, 2));
    bench.crashed(id(2, 1));
    bench.health(id(3, 1), false);
    bench.tick();
    bench.tick();
    bench.spawned(id(2, 2));
    bench.crashed(id(2, 2));
    assert_eq!(
        bench.states(),
        [
            (id(0, 1), State::Ready),
            (id(1, 2), State::Starting),
            (id(2, 2), State::Backoff),
            (id(3, 1), State::Unhealthy),
            (id(3, 2), State::Starting),
        ]
    );
    bench.spawned(id(3, 2));
    let signals = [Effect::Signal(id(1, 2)), Effect::Signal(id(3, 2))];
    assert_eq!(bench.ask(Request::Scale(1)), signals);
    bench.crashed(id(1, 2));
    bench.crashed(id(3, 2));
    assert_eq!(bench.goes(id(3, 1)), [Effect::Release(id(3, 1)), done()]);
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn the_first_failure_of_a_new_worker_is_the_answer_and_the_fleet_goes_on_trying() {
    let mut bench = Bench::ready(1);
    bench.ask(Request::Scale(3));
    bench.spawned(id(1, 1));
    let effects = bench.crashed(id(1, 1));
    assert_eq!(
        effects.last(),
        Some(&failed(Verb::Scale, 0, 2, id(1, 1), CRASH))
    );
    assert_eq!(bench.fleet.operation(), None);
    assert_eq!(bench.tick(), [Effect::Spawn(id(1, 2))]);
}

#[test]
fn new_workers_that_have_no_duty_to_be_ready_are_not_waited_for_longer_than_those_that_have() {
    let mut bench = Bench::ready(1);
    bench.ask(Request::Scale(2));
    bench.spawned(id(1, 1));
    let worker = id(1, 1);
    let after = LISTEN_WARNING;
    let warning = Effect::Notice(Notice::NotListening { worker, after });
    assert_eq!(bench.tick(), [warning]);
    let cause = Cause::NotReady(READY_TIMEOUT);
    assert_eq!(bench.tick(), [failed(Verb::Scale, 0, 1, worker, cause)]);
    assert_eq!(bench.now, READY_TIMEOUT);
    assert_eq!(bench.states()[1], (worker, State::Starting), "left alone");
}

#[test]
fn a_failure_of_an_old_worker_is_none_of_the_new_ones() {
    let mut bench = Bench::ready(1);
    bench.ask(Request::Scale(2));
    bench.crashed(id(0, 1));
    assert!(bench.fleet.operation().is_some());
    assert_eq!(bench.arrives(id(1, 1)).last(), Some(&done()));
}

#[test]
fn impossible_numbers_are_refused() {
    let mut bench = Bench::ready(2);
    for (request, refusal) in [
        (Request::Scale(0), Refusal::NoSlots),
        (Request::ScaleBy(-2), Refusal::NoSlots),
        (Request::ScaleBy(i32::MIN), Refusal::NoSlots),
        (Request::Scale(257), Refusal::TooManySlots),
        (Request::ScaleBy(i32::MAX), Refusal::TooManySlots),
    ] {
        assert_eq!(bench.ask(request), refused(refusal), "{request:?}");
    }
    assert_eq!(bench.ask(Request::Scale(2)), [done()]);
    assert_eq!(bench.fleet.workers_wanted(), 2);
}

#[test]
fn the_last_worker_that_takes_connections_is_not_removed() {
    let mut bench = Bench::ready(2);
    bench.crashed(id(0, 1));
    assert_eq!(bench.ask(Request::Scale(1)), refused(Refusal::LastWorker));
    assert_eq!(bench.fleet.workers_wanted(), 2);

    // Where there is none, it makes no difference.
    bench.crashed(id(1, 1));
    assert_eq!(bench.ask(Request::Scale(1)), [done()]);
}

#[test]
fn a_removed_slot_comes_back_fresh() {
    let mut bench = Bench::ready(2);
    bench.ask(Request::Drain(1));
    bench.drained(id(1, 1));
    bench.ask(Request::Scale(1));
    bench.goes(id(1, 1));
    bench.ask(Request::Scale(2));
    bench.arrives(id(1, 2));
    assert_eq!(bench.fleet.steered(), [id(0, 1), id(1, 2)], "not drained");
}

#[test]
fn a_worker_that_leaves_already_keeps_its_time_to_drain_when_its_slot_is_removed() {
    let second = Duration::from_secs(1);
    for (drain_timeout, own, signalled_at) in [
        (Some(second), None, STOP_TIMEOUT / 2),
        (None, Some(second), second),
    ] {
        let mut bench = Bench::ready_with(Settings {
            drain_timeout,
            max_surge: 2,
            ..settings(2)
        });
        bench.ask(Request::Reload {
            drain_timeout: Some(own),
        });
        bench.arrives(id(1, 2));
        // This ends the reload, but not what it has asked of the old worker.
        bench.spawned(id(0, 2));
        bench.crashed(id(0, 2));
        bench.ask(Request::Scale(1));
        bench.step(Event::Stop(StopMode::Graceful));
        let draining = (id(1, 1), State::Draining);
        assert!(bench.states().contains(&draining), "{own:?}");

        while bench.states().contains(&draining) {
            bench.tick();
        }
        assert_eq!(bench.now, signalled_at, "{own:?}");
    }
}
