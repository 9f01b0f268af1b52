//! The fleet's rules one by one, and all of them against a simulated world.

mod drain;
mod health;
mod lifecycle;
mod recycle;
mod referee;
mod reload;
mod scale;
mod stop;
mod takeover;
mod weight;
mod world;

use std::time::Duration;

use super::{restart, *};

const STOP_TIMEOUT: Duration = Duration::from_secs(8);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(40);
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const LISTEN_WARNING: Duration = Duration::from_secs(10);
const TICKET: Ticket = Ticket(7);

fn settings(workers: u32) -> Settings {
    Settings {
        workers,
        stop_timeout: STOP_TIMEOUT,
        drain_timeout: Some(DRAIN_TIMEOUT),
        ready_timeout: READY_TIMEOUT,
        ready_required: false,
        listen_warning: LISTEN_WARNING,
        max_surge: 1,
        max_age: None,
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
        Self::spawning_with(settings(workers))
    }

    fn spawning_with(settings: Settings) -> Self {
        let workers = settings.workers;
        let mut fleet = Fleet::new(settings);
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
        Self::starting_with(settings(workers))
    }

    fn starting_with(settings: Settings) -> Self {
        let workers = settings.workers;
        let mut bench = Self::spawning_with(settings);
        for slot in 0..workers {
            assert_eq!(bench.spawned(id(slot, 1)), []);
        }
        bench
    }

    /// A fleet whose workers are ready.
    fn ready(workers: u32) -> Self {
        Self::ready_with(settings(workers))
    }

    fn ready_with(settings: Settings) -> Self {
        let workers = settings.workers;
        let mut bench = Self::starting_with(settings);
        for slot in 0..workers {
            bench.becomes_ready(id(slot, 1));
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

    fn becomes_ready(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.step(Event::Ready { worker })
    }

    /// The replacement runs and becomes ready.
    fn arrives(&mut self, worker: WorkerId) -> Vec<Effect> {
        assert_eq!(self.spawned(worker), []);
        self.becomes_ready(worker)
    }

    fn drained(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.step(Event::Drained { worker })
    }

    fn health(&mut self, worker: WorkerId, healthy: bool) -> Vec<Effect> {
        self.step(Event::Health { worker, healthy })
    }

    fn ask(&mut self, request: Request) -> Vec<Effect> {
        let ticket = TICKET;
        self.step(Event::Request { ticket, request })
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

    /// The worker finishes its connections, gets its signal and obeys.
    fn goes(&mut self, worker: WorkerId) -> Vec<Effect> {
        assert_eq!(
            self.drained(worker),
            [Effect::Signal(worker), drained_notice(worker)]
        );
        without_notices(self.crashed(worker))
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

fn drained_notice(worker: WorkerId) -> Effect {
    Effect::Notice(Notice::Drained { worker })
}

fn done() -> Effect {
    Effect::Answer {
        ticket: TICKET,
        answer: Ok(()),
    }
}

fn unmet(unmet: Unmet) -> Effect {
    Effect::Answer {
        ticket: TICKET,
        answer: Err(unmet),
    }
}

fn refused(refusal: Refusal) -> Vec<Effect> {
    vec![unmet(Unmet::Refused(refusal))]
}

fn failed(verb: Verb, done: u32, of: u32, worker: WorkerId, cause: Cause) -> Effect {
    let operation = Operation { verb, done, of };
    unmet(Unmet::Failed {
        operation,
        worker,
        cause,
    })
}

const CRASH: Cause = Cause::Exited(ExitStatus::Code(1));

fn assert_delay(delay: Option<Duration>, millis: u64) {
    let base = Duration::from_millis(millis);
    let delay = delay.expect("a restart");
    assert!(
        base * 4 / 5 <= delay && delay <= base * 6 / 5,
        "{delay:?} isn't {base:?} ±20 %"
    );
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
