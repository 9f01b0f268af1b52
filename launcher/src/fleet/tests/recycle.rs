//! Workers that have reached a limit.

use super::*;

fn recycle(bench: &mut Bench, worker: WorkerId) -> Vec<Effect> {
    let reason = Recycle::Memory;
    bench.step(Event::Recycle { worker, reason })
}

#[test]
fn a_worker_that_has_reached_a_limit_is_replaced() {
    let mut bench = Bench::ready(1);
    let (old, new) = (id(0, 1), id(0, 2));
    let reason = Reason::Recycle(Recycle::Memory);
    assert_eq!(
        recycle(&mut bench, old),
        [
            Effect::Notice(Notice::Replacing { old, new, reason }),
            Effect::Spawn(new)
        ]
    );
    assert_eq!(recycle(&mut bench, old), [], "told twice");
    assert_eq!(bench.arrives(new)[0], Effect::Steer(vec![new]));
    assert_eq!(bench.goes(old), [Effect::Release(old)]);
}

#[test]
fn never_two_at_once_whatever_the_surge() {
    let mut bench = Bench::ready_with(Settings {
        max_surge: 3,
        ..settings(3)
    });
    recycle(&mut bench, id(0, 1));
    assert_eq!(recycle(&mut bench, id(1, 1)), []);
    bench.arrives(id(0, 2));
    assert_eq!(bench.goes(id(0, 1))[1..], [Effect::Spawn(id(1, 2))]);

    // Nor beside anything else; but what people ask for doesn't wait.
    let reload = Request::Reload {
        drain_timeout: None,
    };
    assert_eq!(
        without_notices(bench.ask(reload)),
        [Effect::Spawn(id(0, 3)), Effect::Spawn(id(2, 2))]
    );
}

#[test]
fn a_replacement_that_fails_is_tried_again_while_the_old_worker_stays() {
    let mut bench = Bench::ready(1);
    recycle(&mut bench, id(0, 1));
    bench.spawned(id(0, 2));
    let effects = bench.crashed(id(0, 2));
    assert_delay(exit_notice(&effects).1, 100);
    assert_eq!(without_notices(effects), [Effect::Release(id(0, 2))]);
    assert_eq!(bench.fleet.steered(), [id(0, 1)]);
    assert_eq!(without_notices(bench.tick()), [Effect::Spawn(id(0, 3))]);
}

#[test]
fn a_crash_makes_recycling_needless() {
    let mut bench = Bench::ready(2);
    recycle(&mut bench, id(0, 1));
    recycle(&mut bench, id(1, 1));
    bench.crashed(id(1, 1));
    bench.tick();
    bench.arrives(id(1, 2));
    bench.arrives(id(0, 2));
    assert_eq!(bench.goes(id(0, 1)), [Effect::Release(id(0, 1))]);
}

#[test]
fn workers_are_replaced_for_their_age_each_at_its_own_time() {
    let max_age = Duration::from_secs(1000);
    let mut bench = Bench::ready_with(Settings {
        max_age: Some(max_age),
        ..settings(2)
    });
    let mut ages = Vec::new();
    for _ in 0..2 {
        let effects = bench.tick();
        let Effect::Notice(Notice::Replacing { old, new, reason }) = effects[0] else {
            panic!("{effects:?}");
        };
        assert_eq!(reason, Reason::Recycle(Recycle::Age));
        ages.push(bench.now);
        bench.arrives(new);
        bench.goes(old);
    }
    for age in &ages {
        assert!(
            (max_age * 9 / 10..=max_age * 11 / 10).contains(age),
            "{ages:?}"
        );
    }
    assert_ne!(ages[0], ages[1], "the jitter");
    assert!(bench.fleet.next_deadline() > Some(ages[1] + max_age / 2));
}

#[test]
fn only_ready_workers_are_recycled() {
    let mut bench = Bench::starting(1);
    assert_eq!(recycle(&mut bench, id(0, 1)), []);
    bench.becomes_ready(id(0, 1));
    assert_eq!(bench.states(), [(id(0, 1), State::Ready)]);
    assert_eq!(recycle(&mut bench, id(0, 7)), [], "a stranger");
}
