//! A simulated world: processes with habits, good and bad, a script of disturbances, and a clock
//! that jumps from one happening to the next. The `referee` watches every step.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::{referee::Referee, *};

/// How one worker behaves. Times in milliseconds, from the one before.
#[derive(Clone, Debug)]
struct Habits {
    /// Until the spawn is reported.
    spawn: u64,
    spawn_fails: bool,
    /// From the spawn; it may be noticed before the spawn is reported.
    listen: Option<u64>,
    exit: Option<u64>,
    /// From the stop signal; `None` ignores it.
    obey: Option<u64>,
    /// From the main process's end to that of its last child; `None` waits for a kill.
    children: Option<u64>,
    /// From the kill; `None` can't be killed.
    die: Option<u64>,
    /// Whether the empty cgroup is seen before the exit.
    empty_first: bool,
}

prop_compose! {
    fn habits()(
        spawn in 0..300u64,
        spawn_fails in prop::bool::weighted(0.1),
        listen in option::of(0..15_000u64),
        exit in option::of(prop_oneof![0..50u64, 0..5_000u64, 0..60_000u64]),
        obey in option::weighted(0.8, 0..12_000u64),
        children in option::weighted(0.9, prop_oneof![Just(0), 0..20_000u64]),
        die in option::weighted(0.9, 0..500u64),
        empty_first: bool,
    ) -> Habits {
        Habits { spawn, spawn_fails, listen, exit, obey, children, die, empty_first }
    }
}

/// What goes on around the workers.
#[derive(Clone, Debug)]
enum Disturbance {
    Tell(Event),
    /// An event that was told before.
    Repeat(Index),
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    let stranger =
        (0..6u32, prop_oneof![Just(0), Just(u64::MAX)]).prop_map(|(slot, generation)| {
            let worker = WorkerId { slot, generation };
            match slot % 3 {
                0 => Event::Listening { worker },
                1 => Event::Exited {
                    worker,
                    status: ExitStatus::Signal(9),
                },
                _ => Event::Emptied { worker },
            }
        });
    prop_oneof![
        1 => Just(Event::Stop(StopMode::Graceful)).prop_map(Disturbance::Tell),
        1 => Just(Event::Stop(StopMode::Now)).prop_map(Disturbance::Tell),
        1 => Just(Event::Fatal { reason: "taken".to_owned() }).prop_map(Disturbance::Tell),
        1 => Just(Event::Start).prop_map(Disturbance::Tell),
        2 => Just(Event::Tick).prop_map(Disturbance::Tell),
        4 => stranger.prop_map(Disturbance::Tell),
        8 => any::<Index>().prop_map(Disturbance::Repeat),
    ]
}

/// What the world does next.
#[derive(Clone, Debug)]
enum Happening {
    Tell(Event),
    Repeat(Index),
    Listens(WorkerId),
    MainEnds(WorkerId, ExitStatus),
    TreeEnds(WorkerId),
}

/// The processes of a worker.
struct Tree {
    habits: Habits,
    main_lives: bool,
    any_lives: bool,
}

struct World {
    now: Duration,
    /// By time, then in order of arrival.
    agenda: BTreeMap<(Duration, u64), Happening>,
    arrivals: u64,
    palette: Vec<Habits>,
    trees: BTreeMap<WorkerId, Tree>,
    told: Vec<Event>,
}

impl World {
    fn schedule(&mut self, after: u64, happening: Happening) {
        self.arrivals += 1;
        self.agenda.insert(
            (self.now + Duration::from_millis(after), self.arrivals),
            happening,
        );
    }

    /// Lets it happen; returns what the fleet gets to hear.
    fn happen(&mut self, happening: Happening) -> Option<Event> {
        match happening {
            Happening::Tell(event) => return Some(event),
            Happening::Repeat(which) => {
                return (!self.told.is_empty()).then(|| which.get(&self.told).clone());
            }
            Happening::Listens(worker) => {
                return self.trees[&worker]
                    .main_lives
                    .then_some(Event::Listening { worker });
            }
            Happening::MainEnds(worker, status) => {
                let tree = self.trees.get_mut(&worker).expect("a spawned worker");
                if tree.main_lives {
                    tree.main_lives = false;
                    let Habits {
                        children,
                        empty_first,
                        ..
                    } = tree.habits;
                    let exited = Happening::Tell(Event::Exited { worker, status });
                    let tree_ends = children.map(|after| (after, Happening::TreeEnds(worker)));
                    match tree_ends {
                        Some((0, tree_ends)) if empty_first => {
                            self.schedule(0, tree_ends);
                            // After what `tree_ends` will report.
                            self.schedule(1, exited);
                        }
                        tree_ends => {
                            self.schedule(0, exited);
                            if let Some((after, tree_ends)) = tree_ends {
                                self.schedule(after, tree_ends);
                            }
                        }
                    }
                }
            }
            Happening::TreeEnds(worker) => {
                let tree = self.trees.get_mut(&worker).expect("a spawned worker");
                if tree.any_lives {
                    tree.any_lives = false;
                    return Some(Event::Emptied { worker });
                }
            }
        }
        None
    }

    fn obey(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn(worker) => self.spawn(*worker),
            Effect::Signal(worker) => {
                if let Some(after) = self.trees[worker].habits.obey {
                    self.schedule(after, Happening::MainEnds(*worker, ExitStatus::Signal(15)));
                }
            }
            Effect::Kill(worker) => {
                if let Some(after) = self.trees[worker].habits.die {
                    self.schedule(after, Happening::MainEnds(*worker, ExitStatus::Signal(9)));
                    self.schedule(after, Happening::TreeEnds(*worker));
                }
            }
            Effect::Steer(_) | Effect::Release(_) | Effect::Notice(_) | Effect::Quit(_) => {}
        }
    }

    fn spawn(&mut self, worker: WorkerId) {
        let habits = self.palette[self.trees.len() % self.palette.len()].clone();
        let Habits {
            spawn,
            spawn_fails,
            listen,
            exit,
            ..
        } = habits;
        let lives = !spawn_fails;
        self.trees.insert(
            worker,
            Tree {
                habits,
                main_lives: lives,
                any_lives: lives,
            },
        );
        if spawn_fails {
            let reason = "EAGAIN".to_owned();
            self.schedule(
                spawn,
                Happening::Tell(Event::SpawnFailed { worker, reason }),
            );
            return;
        }
        self.schedule(spawn, Happening::Tell(Event::Spawned { worker }));
        if let Some(listen) = listen {
            self.schedule(listen, Happening::Listens(worker));
        }
        if let Some(exit) = exit {
            let happening = Happening::MainEnds(worker, ExitStatus::Code(1));
            self.schedule(spawn + exit, happening);
        }
    }
}

/// Runs a fleet in this world until nothing is left to happen.
fn run(settings: Settings, palette: Vec<Habits>, script: Vec<(u64, Disturbance)>, lateness: u64) {
    let lateness = Duration::from_millis(lateness);
    let mut fleet = Fleet::new(settings.clone());
    let mut referee = Referee::new(settings, lateness);
    let mut world = World {
        now: Duration::ZERO,
        agenda: BTreeMap::new(),
        arrivals: 0,
        palette,
        trees: BTreeMap::new(),
        told: Vec::new(),
    };
    world.schedule(0, Happening::Tell(Event::Start));
    let mut at = 0;
    for (after, disturbance) in script {
        at += after;
        world.schedule(
            at,
            match disturbance {
                Disturbance::Tell(event) => Happening::Tell(event),
                Disturbance::Repeat(which) => Happening::Repeat(which),
            },
        );
    }
    world.schedule(at + 1, Happening::Tell(Event::Stop(StopMode::Graceful)));

    loop {
        let happening = world.agenda.keys().next().map(|(at, _)| *at);
        let tick = fleet
            .next_deadline()
            .map(|deadline| world.now.max(deadline + lateness));
        let event = match (happening, tick) {
            (None, None) => break,
            (Some(at), tick) if tick.is_none_or(|tick| at <= tick) => {
                world.now = at;
                let (_, happening) = world.agenda.pop_first().expect("the one seen above");
                world.happen(happening)
            }
            (_, tick) => {
                world.now = tick.expect("a tick, as nothing else is first");
                Some(Event::Tick)
            }
        };
        let Some(event) = event else {
            continue;
        };
        let effects = fleet.step(world.now, event.clone());
        referee.watch(world.now, &event, &effects, &mut fleet);
        effects.iter().for_each(|effect| world.obey(effect));
        if !matches!(
            event,
            Event::Start | Event::Tick | Event::Stop(_) | Event::Fatal { .. }
        ) {
            world.told.push(event);
        }
    }
    referee.finish();
}

proptest! {
    #[test]
    fn the_rules_hold_in_any_world(
        workers in 1..5u32,
        stop_timeout in 500..8_000u64,
        seed: u64,
        palette in vec(habits(), 1..5),
        script in vec((0..20_000u64, disturbance()), 0..20),
        lateness in prop_oneof![Just(0), 0..100u64],
    ) {
        let stop_timeout = Duration::from_millis(stop_timeout);
        let settings = Settings { stop_timeout, seed, ..settings(workers) };
        run(settings, palette, script, lateness);
    }
}
