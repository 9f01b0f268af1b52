//! A simulated world: processes with habits, good and bad, a script of disturbances, and a clock
//! that jumps from one happening to the next. The `referee` watches every step. In the end the
//! world calms down, and the fleet has to find to its rest.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::{referee::Referee, *};

/// How long the calm lasts: the longest wait of the fleet's own, with room.
const CALM: Duration = Duration::from_mins(5);

/// How one worker behaves. Times in milliseconds, from the one before.
#[derive(Clone, Debug)]
struct Habits {
    /// Until the spawn is reported.
    spawn: u64,
    spawn_fails: bool,
    /// From the spawn; it may be noticed before the spawn is reported.
    listen: Option<u64>,
    /// From listening.
    ready: Option<u64>,
    exit: Option<u64>,
    /// From when it takes no more connections until it has none; `None` never gets there.
    drain: Option<u64>,
    /// From the stop signal; `None` ignores it.
    obey: Option<u64>,
    /// From the main process's end to that of its last child; `None` waits for a kill.
    children: Option<u64>,
    /// From the kill; `None` can't be killed.
    die: Option<u64>,
    /// Whether the empty cgroup is seen before the exit.
    empty_first: bool,
}

const GOOD: Habits = Habits {
    spawn: 1,
    spawn_fails: false,
    listen: Some(50),
    ready: Some(20),
    exit: None,
    drain: Some(300),
    obey: Some(100),
    children: Some(0),
    die: Some(10),
    empty_first: false,
};

prop_compose! {
    fn habits()(
        (spawn, spawn_fails) in (0..300u64, prop::bool::weighted(0.1)),
        listen in option::weighted(0.9, 0..15_000u64),
        ready in option::weighted(0.9, prop_oneof![Just(0), 0..30_000u64]),
        exit in option::weighted(0.3, prop_oneof![0..50u64, 0..5_000u64, 0..60_000u64]),
        drain in option::weighted(0.8, 0..50_000u64),
        obey in option::weighted(0.8, 0..12_000u64),
        children in option::weighted(0.9, prop_oneof![Just(0), 0..20_000u64]),
        die in option::weighted(0.9, 0..500u64),
        empty_first: bool,
    ) -> Habits {
        Habits { spawn, spawn_fails, listen, ready, exit, drain, obey, children, die, empty_first }
    }
}

/// What happens to one worker.
#[derive(Clone, Copy, Debug)]
enum Matter {
    Crash,
    Health(bool),
    Stall(bool),
    Recycle(Recycle),
    /// A stray report.
    Drained,
}

/// What goes on around the workers.
#[derive(Clone, Debug)]
enum Disturbance {
    Tell(Event),
    Ask(Request),
    About(Index, Matter),
    /// An event that was told before.
    Repeat(Index),
    /// The launcher is killed, and the next one wants so many workers.
    TakeOver(u32),
}

fn request() -> impl Strategy<Value = Request> {
    let timeout = option::of(option::of((0..20_000u64).prop_map(Duration::from_millis)));
    prop_oneof![
        6 => timeout.prop_map(|drain_timeout| Request::Reload { drain_timeout }),
        3 => prop_oneof![6 => 1..6u32, 1 => Just(0), 1 => Just(257)].prop_map(Request::Scale),
        2 => (-2..3i32).prop_map(Request::ScaleBy),
        3 => (0..5u32).prop_map(Request::Restart),
        3 => (0..5u32).prop_map(Request::Drain),
        2 => (0..5u32).prop_map(Request::Undrain),
        3 => (0..5u32, 0..4u16).prop_map(|(slot, weight)| Request::Weigh { slot, weight }),
    ]
}

fn matter() -> impl Strategy<Value = Matter> {
    let recycle = vec![Recycle::Connections, Recycle::Memory];
    prop_oneof![
        3 => Just(Matter::Crash),
        3 => prop::bool::weighted(0.3).prop_map(Matter::Health),
        2 => prop::bool::weighted(0.3).prop_map(Matter::Stall),
        2 => prop::sample::select(recycle).prop_map(Matter::Recycle),
        1 => Just(Matter::Drained),
    ]
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    let stranger =
        (0..6u32, prop_oneof![Just(0), Just(u64::MAX)]).prop_map(|(slot, generation)| {
            let worker = WorkerId { slot, generation };
            Disturbance::Tell(match slot % 3 {
                0 => Event::Ready { worker },
                1 => Event::Exited {
                    worker,
                    status: ExitStatus::Signal(9),
                },
                _ => Event::Emptied { worker },
            })
        });
    let stop = prop_oneof![
        Just(Event::Stop(StopMode::Graceful)),
        Just(Event::Stop(StopMode::Now)),
        Just(Event::Fatal {
            reason: "taken".to_owned()
        }),
    ];
    prop_oneof![
        1 => stop.prop_map(Disturbance::Tell),
        1 => prop_oneof![Just(Event::Start), Just(Event::Tick)].prop_map(Disturbance::Tell),
        1 => stranger,
        14 => request().prop_map(Disturbance::Ask),
        14 => (any::<Index>(), matter()).prop_map(|(who, what)| Disturbance::About(who, what)),
        3 => any::<Index>().prop_map(Disturbance::Repeat),
        1 => (1..4u32).prop_map(Disturbance::TakeOver),
    ]
}

/// What the world does next.
#[derive(Clone, Debug)]
enum Happening {
    Disturb(Disturbance),
    Listens(WorkerId),
    IsReady(WorkerId),
    Finishes(WorkerId),
    MainEnds(WorkerId, ExitStatus),
    TreeEnds(WorkerId),
    CalmDown,
    Stop,
}

/// The processes of a worker.
struct Tree {
    habits: Habits,
    main_lives: bool,
    any_lives: bool,
    /// It has been told to finish its connections, and will have.
    finishes: bool,
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

    fn ask(&mut self, request: Request) -> Event {
        self.arrivals += 1;
        let ticket = Ticket(self.arrivals);
        Event::Request { ticket, request }
    }

    fn tell(&mut self, after: u64, event: Event) {
        self.schedule(after, Happening::Disturb(Disturbance::Tell(event)));
    }

    fn lives(&self, worker: WorkerId) -> bool {
        self.trees.get(&worker).is_some_and(|tree| tree.main_lives)
    }

    /// Lets it happen; returns what the fleet gets to hear.
    fn happen(&mut self, happening: Happening) -> Option<Event> {
        match happening {
            Happening::Disturb(disturbance) => self.disturb(disturbance),
            Happening::Listens(worker) if self.lives(worker) => {
                if let Some(ready) = self.trees[&worker].habits.ready {
                    self.schedule(ready, Happening::IsReady(worker));
                }
                Some(Event::Listening { worker })
            }
            Happening::IsReady(worker) if self.lives(worker) => Some(Event::Ready { worker }),
            Happening::Finishes(worker) => {
                let tree = self.trees.get_mut(&worker)?;
                tree.finishes = false;
                tree.main_lives.then_some(Event::Drained { worker })
            }
            Happening::Listens(_) | Happening::IsReady(_) => None,
            Happening::MainEnds(worker, status) => {
                self.end_main(worker, status);
                None
            }
            Happening::TreeEnds(worker) => {
                let tree = self.trees.get_mut(&worker)?;
                let event = tree.any_lives.then_some(Event::Emptied { worker });
                tree.any_lives = false;
                event
            }
            Happening::Stop => Some(Event::Stop(StopMode::Graceful)),
            Happening::CalmDown => {
                self.calm_down();
                None
            }
        }
    }

    fn disturb(&mut self, disturbance: Disturbance) -> Option<Event> {
        match disturbance {
            Disturbance::Tell(event) => Some(event),
            Disturbance::Ask(request) => Some(self.ask(request)),
            Disturbance::Repeat(which) => {
                (!self.told.is_empty()).then(|| which.get(&self.told).clone())
            }
            Disturbance::About(_, _) if self.trees.is_empty() => None,
            Disturbance::About(who, what) => {
                let workers: Vec<WorkerId> = self.trees.keys().copied().collect();
                let worker = *who.get(&workers);
                match what {
                    Matter::Crash => {
                        if self.told.contains(&Event::Spawned { worker }) {
                            self.end_main(worker, ExitStatus::Signal(9));
                        }
                        None
                    }
                    Matter::Health(healthy) => Some(Event::Health { worker, healthy }),
                    Matter::Stall(stalled) => Some(Event::Stall { worker, stalled }),
                    Matter::Recycle(reason) => Some(Event::Recycle { worker, reason }),
                    Matter::Drained => Some(Event::Drained { worker }),
                }
            }
            // See `run`.
            Disturbance::TakeOver(_) => None,
        }
    }

    fn end_main(&mut self, worker: WorkerId, status: ExitStatus) {
        let Some(tree) = self.trees.get_mut(&worker).filter(|tree| tree.main_lives) else {
            return;
        };
        tree.main_lives = false;
        let Habits {
            children,
            empty_first,
            ..
        } = tree.habits;
        let exited = Event::Exited { worker, status };
        let tree_ends = children.map(|after| (after, Happening::TreeEnds(worker)));
        match tree_ends {
            Some((0, tree_ends)) if empty_first => {
                self.schedule(0, tree_ends);
                // After what `tree_ends` will report.
                self.tell(1, exited);
            }
            tree_ends => {
                self.tell(0, exited);
                if let Some((after, tree_ends)) = tree_ends {
                    self.schedule(after, tree_ends);
                }
            }
        }
    }

    /// From here on workers are good, and nobody bothers them.
    fn calm_down(&mut self) {
        self.palette = vec![GOOD];
        let alive = self.trees.iter_mut().filter(|(_, tree)| tree.any_lives);
        let mut workers = Vec::new();
        for (worker, tree) in alive {
            tree.habits = GOOD;
            tree.finishes = false;
            workers.push(*worker);
        }
        for worker in workers {
            self.schedule(0, Happening::IsReady(worker));
            let (healthy, stalled) = (true, false);
            self.tell(1, Event::Health { worker, healthy });
            self.tell(1, Event::Stall { worker, stalled });
        }
        for slot in 0..5 {
            let undrain = Disturbance::Ask(Request::Undrain(slot));
            self.schedule(0, Happening::Disturb(undrain));
            let weigh = Disturbance::Ask(Request::Weigh { slot, weight: 1 });
            self.schedule(0, Happening::Disturb(weigh));
        }
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
            Effect::Steer(_)
            | Effect::Release(_)
            | Effect::Notice(_)
            | Effect::Answer { .. }
            | Effect::Quit(_) => {}
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
                finishes: false,
            },
        );
        if spawn_fails {
            let reason = "EAGAIN".to_owned();
            self.tell(spawn, Event::SpawnFailed { worker, reason });
            return;
        }
        self.tell(spawn, Event::Spawned { worker });
        if let Some(listen) = listen {
            self.schedule(listen, Happening::Listens(worker));
        }
        if let Some(exit) = exit {
            let happening = Happening::MainEnds(worker, ExitStatus::Code(1));
            self.schedule(spawn + exit, happening);
        }
    }

    /// Lets the draining workers come to an end of it.
    fn drain(&mut self, views: &[View]) {
        for view in views.iter().filter(|view| view.state == State::Draining) {
            let tree = self.trees.get_mut(&view.worker).expect("a known worker");
            let after = tree.habits.drain.filter(|_| !tree.finishes);
            if let Some(after) = after {
                tree.finishes = true;
                self.schedule(after, Happening::Finishes(view.worker));
            }
        }
    }

    /// The launcher is killed, and another one goes on with what lives.
    fn take_over(&mut self, fleet: &mut Fleet, referee: &mut Referee, settings: Settings) {
        let alive = self.trees.iter().filter(|(_, tree)| tree.main_lives);
        let views = fleet.views();
        let leaves = |worker| {
            let mut views = views.iter();
            views.any(|view| view.worker == worker && view.leaving)
        };
        let resumed: Vec<Resumed> = alive
            .map(|(worker, _)| Resumed {
                worker: *worker,
                ready: referee.is_ready(*worker),
                restarts: 1,
                parked: referee.is_parked(worker.slot),
                leaving: leaves(*worker),
            })
            .collect();
        // The cgroups of the others are cleared away before.
        for tree in self.trees.values_mut().filter(|tree| !tree.main_lives) {
            tree.any_lives = false;
        }
        let generations = referee.take_over(self.now, settings.clone(), &resumed);
        let (weights, ever_healthy) = (fleet.weights(), fleet.ever_healthy());
        *fleet = Fleet::resume(settings, resumed, generations, weights, ever_healthy);
    }
}

/// Runs a fleet in this world until nothing is left to happen.
fn run(settings: Settings, palette: Vec<Habits>, script: Vec<(u64, Disturbance)>, lateness: u64) {
    let lateness = Duration::from_millis(lateness);
    let mut fleet = Fleet::new(settings.clone());
    let mut referee = Referee::new(settings.clone(), lateness);
    let mut world = World {
        now: Duration::ZERO,
        agenda: BTreeMap::new(),
        arrivals: 0,
        palette,
        trees: BTreeMap::new(),
        told: Vec::new(),
    };
    world.tell(0, Event::Start);
    let mut at = 0;
    for (after, disturbance) in script {
        at += after;
        world.schedule(at, Happening::Disturb(disturbance));
    }
    world.schedule(at + 1, Happening::CalmDown);
    world.schedule(at + 1 + CALM.as_millis() as u64, Happening::Stop);

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
                match happening {
                    Happening::Disturb(Disturbance::TakeOver(workers)) if referee.is_running() => {
                        let settings = Settings {
                            workers,
                            ..settings.clone()
                        };
                        world.take_over(&mut fleet, &mut referee, settings);
                        Some(Event::Start)
                    }
                    Happening::Stop if referee.is_running() => {
                        referee.check_calm(&fleet);
                        world.happen(happening)
                    }
                    happening => world.happen(happening),
                }
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
        world.drain(&fleet.views());
        if !matches!(
            event,
            Event::Start
                | Event::Tick
                | Event::Stop(_)
                | Event::Fatal { .. }
                | Event::Request { .. }
        ) {
            world.told.push(event);
        }
    }
    referee.finish();
}

prop_compose! {
    fn some_settings()(
        workers in 1..4u32,
        stop_timeout in prop_oneof![Just(0), 500..8_000u64],
        drain_timeout in option::weighted(0.8, prop_oneof![Just(0), 0..30_000u64]),
        ready_timeout in 1_000..30_000u64,
        ready_required: bool,
        max_surge in 1..4u32,
        max_age in option::weighted(0.1, 20_000..200_000u64),
        seed: u64,
    ) -> Settings {
        Settings {
            workers,
            stop_timeout: Duration::from_millis(stop_timeout),
            drain_timeout: drain_timeout.map(Duration::from_millis),
            ready_timeout: Duration::from_millis(ready_timeout),
            ready_required,
            listen_warning: LISTEN_WARNING,
            max_surge,
            max_age: max_age.map(Duration::from_millis),
            restart: restart::Settings::default(),
            seed,
        }
    }
}

/// The number of sequences in each of the tests below, which run side by side.
const SEQUENCES: u32 = 25_000;

macro_rules! the_rules_hold_in_any_world {
    ($($name:ident)*) => {
        proptest! {
            #![proptest_config(ProptestConfig {
                cases: SEQUENCES,
                failure_persistence: None,
                ..ProptestConfig::default()
            })]
            $(
                #[test]
                fn $name(
                    settings in some_settings(),
                    palette in vec(habits(), 1..4),
                    script in vec((0..10_000u64, disturbance()), 0..9),
                    lateness in prop_oneof![Just(0), 0..100u64],
                ) {
                    run(settings, palette, script, lateness);
                }
            )*
        }
    };
}

the_rules_hold_in_any_world! { one two three four }
