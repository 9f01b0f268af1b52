//! Stopping: gracefully, at once, for a fatal reason, and across everything else.

use super::*;

const QUIT: Effect = Effect::Quit(Outcome::Stopped);

fn graceful(bench: &mut Bench) -> Vec<Effect> {
    bench.step(Event::Stop(StopMode::Graceful))
}

fn now(bench: &mut Bench) -> Vec<Effect> {
    bench.step(Event::Stop(StopMode::Now))
}

/// The notice of a worker that has used up its time to drain.
fn drain_timed_out(worker: WorkerId) -> Effect {
    Effect::Notice(Notice::DrainTimedOut { worker })
}

#[test]
fn a_graceful_stop_deselects_all_lets_them_drain_and_signals_each_once() {
    let mut bench = Bench::ready(2);
    assert_eq!(graceful(&mut bench), [Effect::Steer(vec![])]);
    assert_eq!(graceful(&mut bench), []);
    assert!(bench.fleet.is_stopping());
    assert_eq!(
        bench.states(),
        [(id(0, 1), State::Draining), (id(1, 1), State::Draining)]
    );
    assert_eq!(
        bench.drained(id(0, 1)),
        [Effect::Signal(id(0, 1)), drained_notice(id(0, 1))]
    );
    assert_eq!(bench.drained(id(0, 1)), []);

    let effects = bench.exited(id(0, 1));
    assert_eq!(exit_notice(&effects), (id(0, 1), None, true));
    assert_eq!(
        without_notices(effects),
        [],
        "its children have the same time to end"
    );
    assert_eq!(bench.emptied(id(0, 1)), [Effect::Release(id(0, 1))]);
    let effects = without_notices(bench.crashed(id(1, 1)));
    assert_eq!(effects, [Effect::Release(id(1, 1)), QUIT]);

    assert_eq!(graceful(&mut bench), [], "nothing follows the end");
    assert_eq!(bench.step(Event::Start), []);
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn what_does_not_drain_is_signalled_what_ignores_that_killed_and_what_survives_given_up() {
    let mut bench = Bench::ready(1);
    let worker = id(0, 1);
    graceful(&mut bench);
    assert_eq!(
        bench.tick(),
        [Effect::Signal(worker), drain_timed_out(worker)]
    );
    assert_eq!(bench.now, STOP_TIMEOUT / 2);
    assert_eq!(
        bench.tick(),
        [
            Effect::Kill(worker),
            Effect::Notice(Notice::StopTimedOut { worker })
        ],
    );
    assert_eq!(bench.now, STOP_TIMEOUT, "since the stop");
    assert_eq!(
        bench.tick(),
        [
            Effect::Notice(Notice::Unkillable { worker }),
            Effect::Release(worker),
            QUIT
        ],
    );
    assert_eq!(bench.now, STOP_TIMEOUT + Duration::from_secs(5));
}

#[test]
fn a_stop_without_any_patience_kills_at_once() {
    let mut bench = Bench::ready_with(Settings {
        stop_timeout: Duration::ZERO,
        ..settings(1)
    });
    let effects = [
        Effect::Steer(vec![]),
        Effect::Signal(id(0, 1)),
        Effect::Kill(id(0, 1)),
    ];
    assert_eq!(without_notices(graceful(&mut bench)), effects);
}

#[test]
fn a_worker_that_ends_while_it_drains_gives_its_children_the_signal() {
    let mut bench = Bench::ready(1);
    graceful(&mut bench);
    bench.pass(Duration::from_secs(1));
    let effects = without_notices(bench.exited(id(0, 1)));
    assert_eq!(effects, [Effect::Signal(id(0, 1))]);
    assert_eq!(bench.tick()[0], Effect::Kill(id(0, 1)));
    assert_eq!(bench.now, STOP_TIMEOUT);
}

#[test]
fn a_worker_that_is_not_ready_has_nothing_to_drain() {
    let mut bench = Bench::starting(2);
    bench.listening(id(1, 1));
    let signals = [Effect::Signal(id(0, 1)), Effect::Signal(id(1, 1))];
    assert_eq!(graceful(&mut bench), signals);
}

#[test]
fn children_that_outlive_their_main_process_are_killed_at_the_same_deadline() {
    let mut bench = Bench::ready(1);
    graceful(&mut bench);
    bench.drained(id(0, 1));
    bench.pass(Duration::from_secs(7));
    bench.exited(id(0, 1));
    assert_eq!(bench.tick()[0], Effect::Kill(id(0, 1)));
    assert_eq!(bench.now, STOP_TIMEOUT);
    assert_eq!(bench.emptied(id(0, 1)), [Effect::Release(id(0, 1)), QUIT]);
}

#[test]
fn a_stop_at_once_kills() {
    let mut bench = Bench::ready(1);
    assert_eq!(
        now(&mut bench),
        [Effect::Steer(vec![]), Effect::Kill(id(0, 1))]
    );
    assert_eq!(graceful(&mut bench), []);
    assert_eq!(now(&mut bench), []);
}

#[test]
fn a_stop_at_once_cuts_a_graceful_one_short() {
    for drained in [false, true] {
        let mut bench = Bench::ready(1);
        graceful(&mut bench);
        if drained {
            bench.drained(id(0, 1));
        }
        assert_eq!(now(&mut bench), [Effect::Kill(id(0, 1))]);
    }

    let mut bench = Bench::ready(1);
    graceful(&mut bench);
    now(&mut bench);
    assert_eq!(
        without_notices(bench.crashed(id(0, 1))),
        [Effect::Release(id(0, 1)), QUIT]
    );
}

#[test]
fn a_worker_that_is_being_spawned_is_stopped_as_soon_as_it_runs() {
    let mut bench = Bench::spawning(1);
    assert_eq!(graceful(&mut bench), []);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.spawned(id(0, 1)), [Effect::Signal(id(0, 1))]);
    assert_eq!(bench.becomes_ready(id(0, 1)), []);
    bench.tick();
    assert_eq!(
        bench.now, STOP_TIMEOUT,
        "since the stop, not since the spawn"
    );

    let mut bench = Bench::spawning(1);
    assert_eq!(graceful(&mut bench), []);
    assert_eq!(now(&mut bench), []);
    assert_eq!(bench.spawned(id(0, 1)), [Effect::Kill(id(0, 1))]);

    let mut bench = Bench::spawning(1);
    graceful(&mut bench);
    let failed = Event::SpawnFailed {
        worker: id(0, 1),
        reason: String::new(),
    };
    assert_eq!(
        without_notices(bench.step(failed)),
        [Effect::Release(id(0, 1)), QUIT]
    );
}

#[test]
fn a_spawn_that_is_never_answered_does_not_hold_up_the_stop() {
    let mut bench = Bench::spawning(1);
    let worker = id(0, 1);
    graceful(&mut bench);
    assert_eq!(bench.tick(), []);
    assert_eq!(
        bench.tick(),
        [
            Effect::Notice(Notice::Unkillable { worker }),
            Effect::Release(worker),
            QUIT
        ],
    );
}

#[test]
fn a_stop_drops_restarts_and_waits_for_crashed_trees() {
    let mut bench = Bench::ready(2);
    bench.exited(id(0, 1));
    bench.crashed(id(1, 1));
    assert_eq!(
        graceful(&mut bench),
        [],
        "one was killed already, the other is gone"
    );
    assert_eq!(bench.states(), [(id(0, 1), State::Stopping)]);
    assert_eq!(bench.fleet.next_deadline(), Some(Duration::from_secs(5)));
    assert_eq!(bench.emptied(id(0, 1)), [Effect::Release(id(0, 1)), QUIT]);
}

#[test]
fn a_stop_with_nothing_left_ends_at_once() {
    let mut bench = Bench::ready(1);
    bench.crashed(id(0, 1));
    assert_eq!(graceful(&mut bench), [QUIT]);

    let mut idle = Fleet::new(settings(3));
    assert_eq!(
        idle.step(Duration::ZERO, Event::Stop(StopMode::Graceful)),
        [QUIT]
    );
    assert_eq!(idle.step(Duration::ZERO, Event::Start), []);
}

#[test]
fn a_fleet_that_is_about_to_give_up_can_be_stopped_gracefully() {
    let mut bench = Bench::starting(2);
    for generation in 1..=5 {
        bench.crashed(id(0, generation));
        if generation < 5 {
            bench.tick();
            bench.spawned(id(0, generation + 1));
        }
    }
    assert_eq!(graceful(&mut bench), [Effect::Signal(id(1, 1))]);
    assert_eq!(
        without_notices(bench.crashed(id(1, 1))),
        [Effect::Release(id(1, 1)), QUIT]
    );
}

#[test]
fn a_fatal_reason_stops_gracefully_and_is_the_outcome() {
    let mut bench = Bench::ready(1);
    let reason = "0.0.0.0:80 is taken".to_owned();
    let fatal = Event::Fatal {
        reason: reason.clone(),
    };
    assert_eq!(bench.step(fatal.clone()), [Effect::Steer(vec![])]);
    assert_eq!(graceful(&mut bench), []);
    let effects = bench.crashed(id(0, 1));
    assert_eq!(
        effects.last(),
        Some(&Effect::Quit(Outcome::Fatal { reason }))
    );

    // Where the stop was asked for before, it stays one.
    let mut bench = Bench::ready(1);
    graceful(&mut bench);
    assert_eq!(bench.step(fatal), []);
    assert_eq!(bench.crashed(id(0, 1)).last(), Some(&QUIT));
}
