//! The fleet's rules one by one, and all of them against a simulated world.

mod lifecycle;
mod referee;
mod stop;
mod world;

use std::time::Duration;

use super::{restart, *};

const STOP_TIMEOUT: Duration = Duration::from_secs(8);
const LISTEN_WARNING: Duration = Duration::from_secs(10);

fn settings(workers: u32) -> Settings {
    Settings {
        workers,
        stop_timeout: STOP_TIMEOUT,
        listen_warning: LISTEN_WARNING,
        restart: restart::Settings::default(),
        seed: 1,
    }
}

fn id(slot: u32, generation: u64) -> WorkerId {
    WorkerId { slot, generation }
}

/// A fleet and its clock.
struct Bench {
    fleet: Fleet,
    now: Duration,
}

impl Bench {
    /// A fleet whose workers have been asked for.
    fn spawning(workers: u32) -> Self {
        let mut fleet = Fleet::new(settings(workers));
        let spawns: Vec<Effect> = (0..workers)
            .map(|slot| Effect::Spawn(id(slot, 1)))
            .collect();
        assert_eq!(fleet.step(Duration::ZERO, Event::Start), spawns);
        Self {
            fleet,
            now: Duration::ZERO,
        }
    }

    /// A fleet whose workers run.
    fn starting(workers: u32) -> Self {
        let mut bench = Self::spawning(workers);
        for slot in 0..workers {
            assert_eq!(bench.spawned(id(slot, 1)), []);
        }
        bench
    }

    /// A fleet whose workers are ready.
    fn ready(workers: u32) -> Self {
        let mut bench = Self::starting(workers);
        for slot in 0..workers {
            bench.listening(id(slot, 1));
        }
        bench
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        self.fleet.step(self.now, event)
    }

    fn spawned(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.step(Event::Spawned { worker })
    }

    fn listening(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.step(Event::Listening { worker })
    }

    fn exited(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.step(Event::Exited {
            worker,
            status: ExitStatus::Code(1),
        })
    }

    fn emptied(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.step(Event::Emptied { worker })
    }

    /// The whole worker ends: no process of it is left behind.
    fn crashed(&mut self, worker: WorkerId) -> Vec<Effect> {
        assert_eq!(self.emptied(worker), []);
        self.exited(worker)
    }

    /// Moves the clock.
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Moves the clock to the next deadline, and ticks. Before it, a tick does nothing.
    fn tick(&mut self) -> Vec<Effect> {
        let deadline = self.fleet.next_deadline().expect("a deadline");
        assert_eq!(
            self.fleet
                .step(deadline - Duration::from_nanos(1), Event::Tick),
            []
        );
        self.now = deadline;
        self.step(Event::Tick)
    }

    fn states(&self) -> Vec<(WorkerId, State)> {
        self.fleet
            .views()
            .iter()
            .map(|view| (view.worker, view.state))
            .collect()
    }
}

/// The notice of an exit with code 1, with the delay of the restart taken out.
fn exit_notice(effects: &[Effect]) -> (WorkerId, Option<Duration>, bool) {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Notice(Notice::Exited {
                worker,
                restart_in,
                was_ready,
                ..
            }) => Some((*worker, *restart_in, *was_ready)),
            _ => None,
        })
        .expect("the notice of an exit")
}

fn without_notices(effects: Vec<Effect>) -> Vec<Effect> {
    effects
        .into_iter()
        .filter(|effect| !matches!(effect, Effect::Notice(_)))
        .collect()
}
