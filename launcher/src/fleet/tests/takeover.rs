//! Going on with the workers of a launcher that is gone.

use super::*;

fn resumed(worker: WorkerId, ready: bool) -> Resumed {
    Resumed {
        worker,
        ready,
        restarts: 3,
        parked: false,
        leaving: false,
    }
}

fn start(workers: u32, resumed: Vec<Resumed>) -> (Bench, Vec<Effect>) {
    let mut bench = Bench {
        fleet: Fleet::resume(settings(workers), resumed, [(0, 7), (1, 5)], [], false),
        now: Duration::from_secs(1),
    };
    let effects = bench.step(Event::Start);
    (bench, effects)
}

#[test]
fn running_workers_go_on_and_empty_slots_are_filled() {
    let workers = vec![resumed(id(0, 4), true)];
    let (mut bench, effects) = start(2, workers);
    assert_eq!(
        effects,
        [Effect::Steer(vec![id(0, 4)]), Effect::Spawn(id(1, 6))]
    );
    assert_eq!(bench.fleet.views()[0].restarts, 3);
    let status = ExitStatus::Unknown;
    let worker = id(0, 4);
    bench.step(Event::Exited { worker, status });
    let effects = bench.tick();
    assert_eq!(effects, [Effect::Spawn(id(0, 8))], "no generation twice");
}

#[test]
fn all_ready_is_told_where_all_are() {
    let workers = vec![resumed(id(1, 2), true), resumed(id(0, 4), true)];
    let (_, effects) = start(2, workers);
    let steer = Effect::Steer(vec![id(0, 4), id(1, 2)]);
    assert_eq!(effects, [steer, Effect::Notice(Notice::AllReady)]);
}

#[test]
fn a_worker_that_was_starting_goes_on_starting() {
    let (mut bench, effects) = start(1, vec![resumed(id(0, 4), false)]);
    assert_eq!(effects, []);
    assert_eq!(
        bench.fleet.next_deadline(),
        Some(bench.now + LISTEN_WARNING)
    );
    assert_eq!(
        bench.becomes_ready(id(0, 4))[0],
        Effect::Steer(vec![id(0, 4)])
    );
}

#[test]
fn of_several_workers_of_a_slot_the_ready_and_newest_stays() {
    let workers = vec![
        resumed(id(0, 2), true),
        resumed(id(0, 5), false),
        resumed(id(0, 3), true),
        resumed(id(0, 3), true),
    ];
    let (bench, effects) = start(1, workers);
    // Whether the newest has connections is not known: it may finish them.
    assert_eq!(without_notices(effects), [Effect::Steer(vec![id(0, 3)])]);
    assert_eq!(
        bench.states(),
        [
            (id(0, 2), State::Draining),
            (id(0, 3), State::Ready),
            (id(0, 5), State::Draining)
        ]
    );
}

#[test]
fn slots_that_are_one_too_many_leave() {
    let workers = vec![resumed(id(0, 1), true), resumed(id(u32::MAX, 1), true)];
    let (mut bench, effects) = start(1, workers);
    assert_eq!(effects[0], Effect::Steer(vec![id(0, 1)]));
    assert_eq!(bench.states()[1], (id(u32::MAX, 1), State::Draining));
    let release = [Effect::Release(id(u32::MAX, 1))];
    assert_eq!(bench.goes(id(u32::MAX, 1)), release);
}

#[test]
fn a_drained_slot_stays_drained_unless_no_other_is_left() {
    let parked = |worker| Resumed {
        parked: true,
        ..resumed(worker, true)
    };
    let workers = vec![parked(id(0, 1)), resumed(id(1, 1), true)];
    let (bench, effects) = start(2, workers.clone());
    assert_eq!(effects[0], Effect::Steer(vec![id(1, 1)]));
    assert_eq!(bench.states()[0], (id(0, 1), State::Draining));

    let (_, effects) = start(1, workers);
    assert_eq!(effects[0], Effect::Steer(vec![id(0, 1)]));
}

#[test]
fn a_fleet_whose_workers_were_ready_does_not_give_up() {
    let (mut bench, _) = start(1, vec![resumed(id(0, 7), true)]);
    bench.crashed(id(0, 7));
    for generation in 8..20 {
        bench.tick();
        bench.spawned(id(0, generation));
        bench.crashed(id(0, generation));
    }
    assert!(!bench.fleet.is_stopping());
}

#[test]
fn a_worker_on_its_way_out_goes_on_to_leave_and_its_slot_is_filled() {
    let leaving = Resumed {
        leaving: true,
        ..resumed(id(0, 7), true)
    };
    let (bench, effects) = start(1, vec![leaving]);
    assert_eq!(effects, [Effect::Spawn(id(0, 8))]);
    assert_eq!(
        bench.states(),
        [(id(0, 7), State::Draining), (id(0, 8), State::Starting)]
    );
}
