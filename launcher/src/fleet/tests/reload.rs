//! Reload and restart: new first, one after the other, and what happens when the new one fails.

use super::*;

const RELOAD: Request = Request::Reload {
    drain_timeout: None,
};

fn replacing(old: WorkerId, new: WorkerId) -> Vec<Effect> {
    let reason = Reason::Reload;
    vec![
        Effect::Notice(Notice::Replacing { old, new, reason }),
        Effect::Spawn(new),
    ]
}

fn operation(verb: Verb, done: u32, of: u32) -> Option<Operation> {
    Some(Operation { verb, done, of })
}

#[test]
fn a_reload_replaces_slot_by_slot_new_first() {
    let mut bench = Bench::ready(2);
    assert_eq!(bench.ask(RELOAD), replacing(id(0, 1), id(0, 2)));
    assert_eq!(
        without_notices(bench.arrives(id(0, 2))),
        [Effect::Steer(vec![id(0, 2), id(1, 1)])],
        "the old one drains before it is signalled"
    );
    assert_eq!(
        bench.states(),
        [
            (id(0, 1), State::Draining),
            (id(0, 2), State::Ready),
            (id(1, 1), State::Ready)
        ]
    );
    let old = bench.fleet.views()[0];
    assert_eq!(
        (old.drain_deadline, old.leaving),
        (Some(DRAIN_TIMEOUT), true)
    );
    assert_eq!(bench.fleet.operation(), operation(Verb::Reload, 0, 2));

    let effects = bench.goes(id(0, 1));
    assert_eq!(
        effects,
        [Effect::Release(id(0, 1)), Effect::Spawn(id(1, 2))]
    );
    assert_eq!(bench.fleet.operation(), operation(Verb::Reload, 1, 2));
    bench.arrives(id(1, 2));
    assert_eq!(bench.goes(id(1, 1)), [Effect::Release(id(1, 1)), done()]);
    assert_eq!(bench.fleet.operation(), None);
    assert_eq!(bench.fleet.views()[0].restarts, 0, "it was no failure");
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn an_old_worker_that_does_not_drain_is_signalled_at_its_deadline_and_killed_later() {
    let mut bench = Bench::ready(1);
    let old = id(0, 1);
    bench.ask(RELOAD);
    bench.arrives(id(0, 2));
    let timed_out = Effect::Notice(Notice::DrainTimedOut { worker: old });
    assert_eq!(bench.tick(), [Effect::Signal(old), timed_out]);
    assert_eq!(bench.now, DRAIN_TIMEOUT);
    assert_eq!(bench.tick()[0], Effect::Kill(old));
    assert_eq!(bench.now, DRAIN_TIMEOUT + STOP_TIMEOUT);
    assert_eq!(bench.crashed(old).last(), Some(&done()));
}

#[test]
fn the_drain_timeout_of_a_reload_is_its_own() {
    for (drain_timeout, deadline) in [
        (Some(Duration::from_secs(3)), Some(Duration::from_secs(3))),
        (None, None),
    ] {
        let mut bench = Bench::ready(1);
        let drain_timeout = Some(drain_timeout);
        bench.ask(Request::Reload { drain_timeout });
        bench.arrives(id(0, 2));
        assert_eq!(bench.fleet.views()[0].drain_deadline, deadline);
        assert_eq!(bench.fleet.next_deadline(), deadline);
    }

    // Without any, the signal comes at once, but after the flip.
    let mut bench = Bench::ready(1);
    let drain_timeout = Some(Some(Duration::ZERO));
    bench.ask(Request::Reload { drain_timeout });
    let effects = without_notices(bench.arrives(id(0, 2)));
    assert_eq!(
        effects,
        [Effect::Steer(vec![id(0, 2)]), Effect::Signal(id(0, 1))]
    );
}

#[test]
fn a_surge_of_two_replaces_two_at_once() {
    let mut bench = Bench::ready_with(Settings {
        max_surge: 2,
        ..settings(3)
    });
    let spawns = [Effect::Spawn(id(0, 2)), Effect::Spawn(id(1, 2))];
    assert_eq!(without_notices(bench.ask(RELOAD)), spawns);
    bench.arrives(id(1, 2));
    assert_eq!(bench.goes(id(1, 1))[1..], [Effect::Spawn(id(2, 2))]);
}

#[test]
fn a_new_version_that_ends_aborts_the_reload() {
    let mut bench = Bench::ready_with(Settings {
        max_surge: 2,
        ..settings(3)
    });
    bench.ask(RELOAD);
    bench.arrives(id(0, 2));
    bench.goes(id(0, 1));
    bench.spawned(id(2, 2));
    bench.spawned(id(1, 2));
    let effects = bench.crashed(id(1, 2));
    assert_eq!(exit_notice(&effects), (id(1, 2), None, false));
    assert_eq!(
        without_notices(effects),
        [
            Effect::Release(id(1, 2)),
            Effect::Signal(id(2, 2)),
            failed(Verb::Reload, 1, 3, id(1, 2), CRASH)
        ],
    );
    assert_eq!(bench.fleet.operation(), None);
    assert_eq!(bench.fleet.steered(), [id(0, 2), id(1, 1), id(2, 1)]);
    assert_eq!(bench.crashed(id(2, 2))[1], Effect::Release(id(2, 2)));
    assert_eq!(bench.fleet.next_deadline(), None, "nothing is tried again");

    // The next one starts from the beginning, and uses no generation twice.
    assert_eq!(
        without_notices(bench.ask(RELOAD)),
        [Effect::Spawn(id(0, 3)), Effect::Spawn(id(1, 3))]
    );
}

#[test]
fn a_new_version_that_is_not_ready_in_time_aborts_the_reload_in_any_mode() {
    for ready_required in [false, true] {
        let mut bench = Bench::ready_with(Settings {
            ready_required,
            ..settings(1)
        });
        bench.ask(RELOAD);
        let new = id(0, 2);
        bench.spawned(new);
        bench.listening(new);
        let effects = bench.tick();
        assert_eq!(bench.now, READY_TIMEOUT);
        let cause = Cause::NotReady(READY_TIMEOUT);
        assert_eq!(
            without_notices(effects),
            [Effect::Signal(new), failed(Verb::Reload, 0, 1, new, cause)]
        );
        assert_eq!(bench.fleet.steered(), [id(0, 1)]);
        assert_eq!(bench.becomes_ready(new), [], "too late");
    }
}

#[test]
fn a_new_version_that_can_not_be_spawned_aborts_the_reload() {
    let mut bench = Bench::ready(1);
    bench.ask(RELOAD);
    let (worker, reason) = (id(0, 2), "not found".to_owned());
    let cause = Cause::NotSpawned(reason.clone());
    let effects = bench.step(Event::SpawnFailed { worker, reason });
    assert_eq!(
        effects.last(),
        Some(&failed(Verb::Reload, 0, 1, worker, cause))
    );
}

#[test]
fn a_crash_of_the_old_worker_promotes_the_new_one() {
    let mut bench = Bench::ready(2);
    bench.ask(RELOAD);
    bench.spawned(id(0, 2));
    let effects = bench.crashed(id(0, 1));
    assert_eq!(exit_notice(&effects).1, None, "no further one is spawned");
    assert_eq!(
        without_notices(effects),
        [Effect::Steer(vec![id(1, 1)]), Effect::Release(id(0, 1))]
    );
    let effects = without_notices(bench.becomes_ready(id(0, 2)));
    assert_eq!(
        effects,
        [
            Effect::Steer(vec![id(0, 2), id(1, 1)]),
            Effect::Spawn(id(1, 2))
        ],
        "with that the slot is done"
    );
    assert_eq!(bench.fleet.operation(), operation(Verb::Reload, 1, 2));
}

#[test]
fn a_promoted_worker_that_fails_aborts_the_reload_and_is_restarted() {
    let mut bench = Bench::ready(2);
    bench.ask(RELOAD);
    bench.spawned(id(0, 2));
    bench.crashed(id(0, 1));
    let effects = bench.crashed(id(0, 2));
    assert_delay(exit_notice(&effects).1, 100);
    assert_eq!(
        effects.last(),
        Some(&failed(Verb::Reload, 0, 2, id(0, 2), CRASH))
    );
    assert_eq!(bench.tick(), [Effect::Spawn(id(0, 3))]);
}

#[test]
fn an_abort_leaves_a_promoted_worker_alone() {
    let mut bench = Bench::ready_with(Settings {
        max_surge: 2,
        ..settings(2)
    });
    bench.ask(RELOAD);
    bench.spawned(id(0, 2));
    bench.spawned(id(1, 2));
    bench.crashed(id(0, 1));
    assert_eq!(
        without_notices(bench.crashed(id(1, 2))),
        [
            Effect::Release(id(1, 2)),
            failed(Verb::Reload, 0, 2, id(1, 2), CRASH)
        ]
    );
    assert_eq!(
        without_notices(bench.becomes_ready(id(0, 2))),
        [Effect::Steer(vec![id(0, 2), id(1, 1)])]
    );
}

#[test]
fn a_crash_of_the_new_worker_after_the_flip_is_a_crash_like_any_other() {
    let mut bench = Bench::ready(1);
    bench.ask(RELOAD);
    bench.arrives(id(0, 2));
    assert_delay(exit_notice(&bench.crashed(id(0, 2))).1, 10);
    assert_eq!(bench.tick(), [Effect::Spawn(id(0, 3))]);
    assert_eq!(bench.goes(id(0, 1)), [Effect::Release(id(0, 1)), done()]);
}

#[test]
fn a_slot_that_waits_for_its_restart_is_filled_at_once() {
    let mut bench = Bench::ready(2);
    bench.crashed(id(0, 1));
    assert_eq!(bench.ask(RELOAD), replacing(id(0, 1), id(0, 2)));
    assert_eq!(
        without_notices(bench.arrives(id(0, 2)))[1..],
        [Effect::Spawn(id(1, 2))]
    );
}

#[test]
fn a_worker_that_is_not_ready_goes_when_the_new_one_is() {
    let mut bench = Bench::starting(1);
    assert_eq!(bench.ask(RELOAD), replacing(id(0, 1), id(0, 2)));
    let effects = without_notices(bench.arrives(id(0, 2)));
    assert_eq!(
        effects,
        [Effect::Steer(vec![id(0, 2)]), Effect::Signal(id(0, 1))]
    );
    assert_eq!(bench.crashed(id(0, 1)).last(), Some(&done()));
}

#[test]
fn only_one_operation_is_carried_out_at_a_time() {
    let mut bench = Bench::ready(2);
    bench.ask(RELOAD);
    bench.arrives(id(0, 2));
    bench.goes(id(0, 1));
    let busy = Refusal::Busy(operation(Verb::Reload, 1, 2).expect("the one above"));
    assert_eq!(busy.to_string(), "a reload is under way (1 of 2)");
    for request in [
        RELOAD,
        Request::Scale(3),
        Request::ScaleBy(1),
        Request::Restart(0),
    ] {
        assert_eq!(bench.ask(request), refused(busy));
    }
    assert_eq!(bench.ask(Request::Undrain(0)), [done()], "this is none");
}

#[test]
fn a_restart_replaces_one_slot() {
    let mut bench = Bench::ready(2);
    let effects = bench.ask(Request::Restart(1));
    assert_eq!(without_notices(effects), [Effect::Spawn(id(1, 2))]);
    assert_eq!(bench.fleet.operation(), operation(Verb::Restart, 0, 1));
    bench.arrives(id(1, 2));
    assert_eq!(bench.goes(id(1, 1)), [Effect::Release(id(1, 1)), done()]);

    bench.ask(Request::Restart(1));
    let effects = bench.crashed(id(1, 3));
    assert_eq!(
        effects.last(),
        Some(&failed(Verb::Restart, 0, 1, id(1, 3), CRASH))
    );
    let unknown = Refusal::NoSuchSlot { slot: 2, slots: 2 };
    assert_eq!(bench.ask(Request::Restart(2)), refused(unknown));
}

#[test]
fn a_stop_ends_a_reload() {
    let mut bench = Bench::ready(1);
    bench.ask(RELOAD);
    bench.arrives(id(0, 2));
    bench.pass(Duration::from_secs(10));
    assert_eq!(
        bench.step(Event::Stop(StopMode::Graceful)),
        [Effect::Steer(vec![]), unmet(Unmet::Stopped)]
    );
    let deadlines: Vec<_> = bench
        .fleet
        .views()
        .iter()
        .map(|view| view.drain_deadline)
        .collect();
    let deadline = Some(bench.now + STOP_TIMEOUT / 2);
    assert_eq!(deadlines, [deadline, deadline], "shortened for the old one");
    assert_eq!(bench.ask(RELOAD), refused(Refusal::NotRunning));

    // And takes a new worker with it that isn't ready.
    let mut bench = Bench::ready(1);
    bench.ask(RELOAD);
    bench.spawned(id(0, 2));
    let effects = bench.step(Event::Stop(StopMode::Graceful));
    assert!(effects.contains(&Effect::Signal(id(0, 2))), "{effects:?}");
}

#[test]
fn a_fleet_that_has_not_started_refuses() {
    let mut fleet = Fleet::new(settings(1));
    let (ticket, request) = (TICKET, RELOAD);
    assert_eq!(
        fleet.step(Duration::ZERO, Event::Request { ticket, request }),
        refused(Refusal::NotRunning)
    );
}
