//! Workers that fail their health checks, and accept queues that get stuck.

use super::*;

fn stall(bench: &mut Bench, worker: WorkerId, stalled: bool) -> Vec<Effect> {
    bench.step(Event::Stall { worker, stalled })
}

/// An unhealthy worker 1.1 beside 0.1, and its replacement asked for.
fn replacing() -> Bench {
    let mut bench = Bench::ready(2);
    let worker = id(1, 1);
    let healthy = false;
    assert_eq!(
        bench.health(worker, healthy),
        [
            Effect::Steer(vec![id(0, 1)]),
            Effect::Notice(Notice::Health { worker, healthy })
        ]
    );
    assert_eq!(bench.states()[1], (worker, State::Unhealthy));
    let (old, new, reason) = (worker, id(1, 2), Reason::Unhealthy);
    let replacing = Effect::Notice(Notice::Replacing { old, new, reason });
    assert_eq!(bench.tick(), [replacing, Effect::Spawn(new)]);
    assert_delay(Some(bench.now), 10);
    bench
}

#[test]
fn an_unhealthy_worker_is_deselected_and_replaced() {
    let mut bench = replacing();
    assert_eq!(
        without_notices(bench.arrives(id(1, 2))),
        [Effect::Steer(vec![id(0, 1), id(1, 2)])]
    );
    assert_eq!(bench.goes(id(1, 1)), [Effect::Release(id(1, 1))]);
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn a_worker_that_recovers_is_steered_to_again() {
    let mut bench = Bench::ready(2);
    bench.health(id(1, 1), false);
    assert_eq!(bench.health(id(1, 1), false), [], "told twice");
    let effects = without_notices(bench.health(id(1, 1), true));
    assert_eq!(effects, [Effect::Steer(vec![id(0, 1), id(1, 1)])]);
    assert_eq!(bench.tick(), [], "it isn't replaced then");
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn a_replacement_that_fails_is_tried_again_ever_more_slowly() {
    let mut bench = replacing();
    for (generation, millis) in [(2, 100), (3, 200), (4, 400)] {
        bench.spawned(id(1, generation));
        let (_, retry_in, _) = exit_notice(&bench.crashed(id(1, generation)));
        assert_delay(retry_in, millis);
        assert_eq!(bench.states()[1], (id(1, 1), State::Unhealthy), "it stays");
        let effects = without_notices(bench.tick());
        assert_eq!(effects, [Effect::Spawn(id(1, generation + 1))]);
    }
}

#[test]
fn no_more_are_replaced_at_once_than_the_surge_allows() {
    let mut bench = Bench::ready(3);
    bench.health(id(1, 1), false);
    bench.health(id(2, 1), false);
    assert_eq!(without_notices(bench.tick()), [Effect::Spawn(id(1, 2))]);
    assert_eq!(bench.tick(), []);
    bench.arrives(id(1, 2));
    assert_eq!(bench.goes(id(1, 1))[1..], [Effect::Spawn(id(2, 2))]);
}

#[test]
fn a_stalled_worker_is_deselected_until_it_moves() {
    let mut bench = Bench::ready(2);
    let (worker, stalled) = (id(0, 1), true);
    assert_eq!(
        stall(&mut bench, worker, stalled),
        [
            Effect::Steer(vec![id(1, 1)]),
            Effect::Notice(Notice::Stall { worker, stalled })
        ]
    );
    assert_eq!(bench.states()[0], (worker, State::Stalled));
    assert_eq!(stall(&mut bench, worker, true), [], "told twice");
    assert_eq!(bench.fleet.next_deadline(), None, "it isn't replaced");
    let effects = without_notices(stall(&mut bench, worker, false));
    assert_eq!(effects, [Effect::Steer(vec![worker, id(1, 1)])]);
}

#[test]
fn the_last_workers_are_never_deselected_for_their_health() {
    let mut bench = Bench::ready(2);
    stall(&mut bench, id(0, 1), true);
    let effects = without_notices(bench.health(id(1, 1), false));
    let all = vec![id(0, 1), id(1, 1)];
    assert_eq!(
        effects,
        [Effect::Steer(all)],
        "a bad one is better than none"
    );
    assert_eq!(
        bench.states(),
        [(id(0, 1), State::Stalled), (id(1, 1), State::Unhealthy)]
    );
    bench.tick();
    bench.arrives(id(1, 2));
    assert_eq!(bench.fleet.steered(), [id(1, 2)]);
}

#[test]
fn only_ready_workers_have_a_health() {
    let mut bench = Bench::starting(1);
    assert_eq!(bench.health(id(0, 1), false), []);
    assert_eq!(stall(&mut bench, id(0, 1), true), []);
    bench.becomes_ready(id(0, 1));
    assert_eq!(bench.states(), [(id(0, 1), State::Ready)]);
    assert_eq!(bench.health(id(0, 2), false), [], "a stranger");
}
