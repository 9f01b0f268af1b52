//! Start, readiness, crashes, restarts, giving up.

use super::*;

#[test]
fn a_worker_that_is_ready_is_steered_to() {
    let mut bench = Bench::starting(2);
    let ready = |worker| Effect::Notice(Notice::Ready { worker });
    assert_eq!(
        bench.becomes_ready(id(1, 1)),
        [Effect::Steer(vec![id(1, 1)]), ready(id(1, 1))],
    );
    assert_eq!(bench.becomes_ready(id(1, 1)), [], "told twice");
    assert_eq!(
        bench.becomes_ready(id(0, 1)),
        [
            Effect::Steer(vec![id(0, 1), id(1, 1)]),
            ready(id(0, 1)),
            Effect::Notice(Notice::AllReady),
        ],
    );
    assert_eq!(
        bench.states(),
        [(id(0, 1), State::Ready), (id(1, 1), State::Ready)]
    );
    assert_eq!(bench.fleet.next_deadline(), None, "nothing to wait for");
}

#[test]
fn all_ready_is_told_once() {
    let mut bench = Bench::ready(1);
    bench.crashed(id(0, 1));
    bench.tick();
    bench.spawned(id(0, 2));
    let effects = bench.becomes_ready(id(0, 2));
    assert!(
        !effects.contains(&Effect::Notice(Notice::AllReady)),
        "{effects:?}"
    );
}

#[test]
fn readiness_that_is_seen_before_the_spawn_is_reported_counts() {
    let mut bench = Bench::spawning(1);
    assert_eq!(
        bench.becomes_ready(id(0, 1))[0],
        Effect::Steer(vec![id(0, 1)])
    );
    assert_eq!(bench.spawned(id(0, 1)), []);
    assert_eq!(bench.states(), [(id(0, 1), State::Ready)]);
}

#[test]
fn strangers_and_repetitions_are_ignored() {
    let mut bench = Bench::ready(1);
    for worker in [id(0, 0), id(0, 2), id(1, 1), id(u32::MAX, u64::MAX)] {
        let reason = String::new();
        assert_eq!(bench.step(Event::SpawnFailed { worker, reason }), []);
        assert_eq!(bench.spawned(worker), []);
        assert_eq!(bench.becomes_ready(worker), []);
        assert_eq!(bench.emptied(worker), []);
        assert_eq!(bench.exited(worker), []);
    }
    assert_eq!(bench.step(Event::Start), []);
    assert_eq!(bench.spawned(id(0, 1)), []);
    let late = Event::SpawnFailed {
        worker: id(0, 1),
        reason: String::new(),
    };
    assert_eq!(bench.step(late), []);
    assert_eq!(bench.states(), [(id(0, 1), State::Ready)]);
}

#[test]
fn a_crash_is_deselected_then_killed_then_restarted() {
    let mut bench = Bench::ready(2);
    let effects = bench.exited(id(0, 1));
    let (worker, restart_in, was_ready) = exit_notice(&effects);
    assert_eq!((worker, was_ready), (id(0, 1), true));
    assert_delay(restart_in, 10);
    assert!(effects.contains(&Effect::Notice(Notice::LeftProcesses { worker })));
    assert_eq!(
        without_notices(effects),
        [Effect::Steer(vec![id(1, 1)]), Effect::Kill(id(0, 1))],
    );
    assert_eq!(bench.exited(id(0, 1)), [], "told twice");

    // The next generation doesn't wait for the old one's processes.
    assert_eq!(bench.fleet.views()[0].restart_at, restart_in);
    assert_eq!(bench.tick(), [Effect::Spawn(id(0, 2))]);
    assert_eq!(Some(bench.now), restart_in);
    assert_eq!(
        bench.states(),
        [
            (id(0, 1), State::Stopping),
            (id(0, 2), State::Starting),
            (id(1, 1), State::Ready)
        ],
    );
    assert_eq!(bench.fleet.views()[1].restarts, 1);
    assert_eq!(bench.emptied(id(0, 1)), [Effect::Release(id(0, 1))]);
    assert_eq!(bench.emptied(id(0, 1)), [], "told twice");
}

#[test]
fn a_crash_that_leaves_nothing_is_released_at_once() {
    let mut bench = Bench::ready(1);
    assert_eq!(
        bench.emptied(id(0, 1)),
        [],
        "the main process may have moved to another cgroup"
    );
    let effects = bench.exited(id(0, 1));
    assert_eq!(
        without_notices(effects),
        [Effect::Steer(vec![]), Effect::Release(id(0, 1))],
    );
    assert_eq!(bench.states(), [(id(0, 1), State::Backoff)]);
}

#[test]
fn an_unkillable_crash_is_given_up() {
    let mut bench = Bench::ready(1);
    bench.exited(id(0, 1));
    assert_eq!(bench.states(), [(id(0, 1), State::Backoff)], "shown once");
    assert_eq!(bench.tick(), [Effect::Spawn(id(0, 2))]);
    bench.becomes_ready(id(0, 2));
    let worker = id(0, 1);
    assert_eq!(
        bench.tick(),
        [
            Effect::Notice(Notice::Unkillable { worker }),
            Effect::Release(worker)
        ],
    );
    assert_eq!(bench.now, Duration::from_secs(5));
    assert_eq!(bench.emptied(worker), []);
}

#[test]
fn a_worker_that_listens_and_is_not_ready_gets_nothing() {
    let mut bench = Bench::starting(1);
    assert_eq!(bench.listening(id(0, 1)), []);
    assert_eq!(bench.states(), [(id(0, 1), State::Listening)]);
    assert_eq!(bench.fleet.next_deadline(), None, "it does listen");
    assert_eq!(
        bench.becomes_ready(id(0, 1))[0],
        Effect::Steer(vec![id(0, 1)])
    );

    let mut bench = Bench::spawning(1);
    assert_eq!(
        bench.listening(id(0, 1)),
        [],
        "before the spawn is reported"
    );
    assert_eq!(bench.states(), [(id(0, 1), State::Listening)]);
}

/// Lets slot 0 fail again and again after so many seconds of readiness, and returns the delays in
/// milliseconds.
fn delays(bench: &mut Bench, count: u64, ready_for: u64) -> Vec<u128> {
    let mut delays = Vec::new();
    for generation in 1..=count {
        bench.pass(Duration::from_secs(ready_for));
        let (_, restart_in, _) = exit_notice(&bench.crashed(id(0, generation)));
        delays.push(restart_in.expect("a restart").as_millis());
        bench.tick();
        bench.arrives(id(0, generation + 1));
    }
    delays
}

#[test]
fn ten_crashes_of_ready_workers_within_a_minute_are_free() {
    let delays = delays(&mut Bench::ready(1), 13, 1);
    assert!(delays[..10].iter().all(|delay| (8..=12).contains(delay)));
    let doubled = [160..=240, 320..=480, 640..=960];
    for (delay, expected) in delays[10..].iter().zip(doubled) {
        assert!(expected.contains(delay), "{delays:?}");
    }
}

#[test]
fn crashes_that_are_rare_stay_free() {
    let delays = delays(&mut Bench::ready(1), 30, 7);
    assert!(
        delays.iter().all(|delay| (8..=12).contains(delay)),
        "{delays:?}"
    );
}

#[test]
fn workers_that_never_become_ready_double_the_delay_from_the_first_on() {
    let mut bench = Bench::ready(2);
    bench.crashed(id(0, 1));
    for (generation, millis) in [(2, 100), (3, 200), (4, 400), (5, 800)] {
        bench.tick();
        bench.spawned(id(0, generation));
        let (_, restart_in, was_ready) = exit_notice(&bench.crashed(id(0, generation)));
        assert!(!was_ready);
        assert_delay(restart_in, millis);
    }
}

#[test]
fn a_worker_that_has_to_become_ready_fails_when_it_is_late() {
    let mut bench = Bench::starting_with(Settings {
        ready_required: true,
        ..settings(1)
    });
    let worker = id(0, 1);
    bench.pass(Duration::from_secs(20));
    bench.listening(worker);
    let effects = bench.tick();
    assert_eq!(
        bench.now, READY_TIMEOUT,
        "since it runs, not since it listens"
    );
    let [
        Effect::Notice(Notice::NotReady {
            after: READY_TIMEOUT,
            restart_in,
            ..
        }),
        Effect::Signal(_),
    ] = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_delay(restart_in, 100);
    assert_eq!(bench.becomes_ready(worker), [], "too late");
    assert_eq!(bench.tick(), [Effect::Spawn(id(0, 2))]);
    assert_eq!(bench.arrives(id(0, 2))[0], Effect::Steer(vec![id(0, 2)]));
    assert_eq!(bench.tick()[0], Effect::Kill(worker));
    assert_eq!(bench.now, READY_TIMEOUT + STOP_TIMEOUT);
}

#[test]
fn a_spawn_that_fails_counts_as_a_failure() {
    let mut bench = Bench::spawning(1);
    let reason = "fork: EAGAIN".to_owned();
    let effects = bench.step(Event::SpawnFailed {
        worker: id(0, 1),
        reason: reason.clone(),
    });
    let [
        Effect::Release(worker),
        Effect::Notice(Notice::SpawnFailed { restart_in, .. }),
    ] = effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(worker, id(0, 1));
    assert_delay(restart_in, 100);
    assert_eq!(bench.tick(), [Effect::Spawn(id(0, 2))]);
}

#[test]
fn a_worker_that_never_listens_is_told_once_and_left_alone() {
    let mut bench = Bench::starting(1);
    let (worker, after) = (id(0, 1), LISTEN_WARNING);
    assert_eq!(
        bench.tick(),
        [Effect::Notice(Notice::NotListening { worker, after })]
    );
    assert_eq!(bench.now, LISTEN_WARNING);
    assert_eq!(bench.fleet.next_deadline(), None);
    assert_eq!(bench.states(), [(worker, State::Starting)]);

    // It may still come to it.
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.fleet.views()[0].since, Duration::ZERO);
    assert_eq!(bench.becomes_ready(worker)[0], Effect::Steer(vec![worker]));
    assert_eq!(bench.fleet.views()[0].since, bench.now);
}

#[test]
fn a_worker_is_healthy_from_the_warning_on() {
    let mut bench = Bench::starting(1);
    bench.crashed(id(0, 1));
    bench.tick();
    bench.spawned(id(0, 2));
    bench.tick();
    bench.pass(Duration::from_secs(20));
    bench.becomes_ready(id(0, 2));
    bench.pass(Duration::from_secs(10));
    assert_delay(exit_notice(&bench.crashed(id(0, 2))).1, 10);
}

/// Lets slot 0 fail, and returns the effects of its last failure.
fn fail(bench: &mut Bench, times: u64) -> Vec<Effect> {
    (1..times).for_each(|generation| {
        let (_, restart_in, _) = exit_notice(&bench.crashed(id(0, generation)));
        bench.pass(restart_in.expect("a restart"));
        assert_eq!(
            bench.step(Event::Tick),
            [Effect::Spawn(id(0, generation + 1))]
        );
        bench.spawned(id(0, generation + 1));
    });
    bench.crashed(id(0, times))
}

#[test]
fn a_fleet_that_never_worked_gives_up_after_five_failures() {
    let mut bench = Bench::starting(1);
    let effects = fail(&mut bench, 5);
    assert_eq!(exit_notice(&effects), (id(0, 5), None, false));
    let last = Cause::Exited(ExitStatus::Code(1));
    let outcome = Outcome::GaveUp {
        worker: id(0, 5),
        failures: 5,
        last,
    };
    assert_eq!(
        without_notices(effects),
        [Effect::Release(id(0, 5)), Effect::Quit(outcome)]
    );
    assert!(bench.fleet.is_stopping());
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn giving_up_waits_for_the_workers_that_are_undecided() {
    let mut bench = Bench::starting(2);
    fail(&mut bench, 5);
    assert!(!bench.fleet.is_stopping());
    assert_eq!(
        bench.states(),
        [(id(0, 5), State::Backoff), (id(1, 1), State::Starting)]
    );
    assert_eq!(
        bench.fleet.next_deadline(),
        Some(LISTEN_WARNING),
        "no restart in between"
    );
    let effects = bench.crashed(id(1, 1));
    let last = Cause::Exited(ExitStatus::Code(1));
    let outcome = Outcome::GaveUp {
        worker: id(0, 5),
        failures: 5,
        last,
    };
    assert_eq!(effects.last(), Some(&Effect::Quit(outcome)));
}

#[test]
fn a_worker_that_becomes_ready_averts_giving_up() {
    let mut bench = Bench::starting(2);
    fail(&mut bench, 5);
    bench.pass(Duration::from_secs(2));
    let effects = bench.becomes_ready(id(1, 1));
    assert!(
        effects.contains(&Effect::Spawn(id(0, 6))),
        "the restart that was held: {effects:?}"
    );

    // From then on it's out of the question, even with no healthy worker.
    bench.crashed(id(1, 1));
    bench.crashed(id(0, 6));
    assert!(!bench.fleet.is_stopping());
}

#[test]
fn a_worker_that_lives_without_listening_averts_giving_up() {
    let mut bench = Bench::starting(2);
    fail(&mut bench, 5);
    let (worker, after) = (id(1, 1), LISTEN_WARNING);
    assert_eq!(
        bench.tick(),
        [
            Effect::Notice(Notice::NotListening { worker, after }),
            Effect::Spawn(id(0, 6))
        ],
    );
}

#[test]
fn giving_up_waits_for_the_killed() {
    let mut bench = Bench::starting(1);
    fail(&mut bench, 4);
    bench.tick();
    bench.spawned(id(0, 5));
    let effects = without_notices(bench.exited(id(0, 5)));
    assert_eq!(effects, [Effect::Kill(id(0, 5))]);
    let effects = bench.emptied(id(0, 5));
    assert_eq!(effects[0], Effect::Release(id(0, 5)));
    assert!(matches!(
        effects[1..],
        [Effect::Quit(Outcome::GaveUp { failures: 5, .. })]
    ));
}
