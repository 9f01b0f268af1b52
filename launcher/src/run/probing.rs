//! Asking workers whether they are ready, or healthy, over connections that are steered to each of
//! them; and waking those that the kernel forgets to wake.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpSocket, sync::mpsc, time::Instant};
use tracing::debug;

use super::launcher::Launcher;
use crate::{
    config::Ready,
    fleet::{Event, State, View, health::Thresholds},
    probe::{self, Check},
    steer::reached_at,
    sys::listeners::Endpoint,
    worker::WorkerId,
};

/// How often a worker that is not ready is asked: at first, and when it takes long.
const READY_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// How long one question whether it is ready may take.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// News of a probe.
#[derive(Debug)]
pub(super) struct Probed {
    worker: WorkerId,
    endpoint: Endpoint,
    source: SocketAddr,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The connection is there, or will not be: it needs no steering any more. Told once, and first:
    /// another probe may come from the same port later.
    Steered,
    /// What came of it.
    Done(Purpose, Result<(), String>),
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Readiness,
    Health,
    /// Only to wake the worker: the answer does not matter.
    Nudge,
}

/// The probes of all workers.
#[derive(Debug)]
pub(super) struct Probing {
    news: mpsc::Sender<Probed>,
    workers: HashMap<WorkerId, Probee>,
}

#[derive(Debug)]
struct Probee {
    /// When it is asked next; `None` while it is being asked.
    next: Option<Instant>,
    pause: Duration,
    health: Option<Thresholds>,
}

impl Probing {
    pub(super) fn new() -> (Self, mpsc::Receiver<Probed>) {
        let (news, reports) = mpsc::channel(64);
        let workers = HashMap::new();
        (Self { news, workers }, reports)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.workers.values().filter_map(|probee| probee.next).min()
    }

    /// Forgets how workers were checked: they are to be checked in another way.
    pub(super) fn forget_health(&mut self) {
        self.workers.retain(|_, probee| probee.health.is_none());
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.workers.remove(&worker);
    }
}

impl Launcher {
    /// Begins to ask a worker that listens whether it is ready, if that is how it is known.
    pub(super) fn await_readiness(&mut self, worker: WorkerId) {
        let asks = matches!(self.plan.ready, Ready::Tcp | Ready::Http(_));
        if asks && !self.has_been_ready(worker) {
            self.probing
                .workers
                .entry(worker)
                .or_insert_with(|| Probee {
                    next: Some(Instant::now()),
                    pause: READY_PAUSES.0,
                    health: None,
                });
        }
    }

    /// Sends the probes that are due.
    pub(super) fn probe(&mut self) {
        let now = Instant::now();
        let due: Vec<(WorkerId, bool)> = self
            .probing
            .workers
            .iter()
            .filter(|(_, probee)| probee.next.is_some_and(|next| next <= now))
            .map(|(&worker, probee)| (worker, probee.health.is_some()))
            .collect();
        for (worker, health) in due {
            let (purpose, check, timeout) = match (&self.plan.ready, &self.plan.health) {
                (_, Some(health_plan)) if health => {
                    let check = health_plan.check.clone();
                    (Purpose::Health, check, health_plan.timeout)
                }
                (Ready::Http(path), _) => {
                    (Purpose::Readiness, Check::Http(path.clone()), READY_TIMEOUT)
                }
                _ => (Purpose::Readiness, Check::Tcp, READY_TIMEOUT),
            };
            if let Some(probee) = self.probing.workers.get_mut(&worker) {
                probee.next = None;
            }
            if let Err(why) = self.send_probe(worker, purpose, check, timeout) {
                self.on_answer(worker, purpose, Err(why));
            }
        }
    }

    /// Has workers that take connections asked whether they are healthy.
    pub(super) fn await_health(&mut self, views: &[View]) {
        let Some(health) = &self.plan.health else {
            return;
        };
        for view in views {
            let asked = matches!(
                view.state,
                State::Ready | State::Unhealthy | State::Stalled | State::Drained
            );
            let known = self.probing.workers.get(&view.worker);
            if asked && !view.leaving && known.is_none_or(|probee| probee.health.is_none()) {
                self.probing.workers.insert(
                    view.worker,
                    Probee {
                        next: Some(Instant::now() + health.interval),
                        pause: health.interval,
                        health: Some(Thresholds::new(health.threshold)),
                    },
                );
            }
        }
    }

    /// Connects to every worker that takes connections, and leaves: on kernels that move connections
    /// to a listener without waking its process.
    pub(super) fn nudge(&mut self) {
        if self.migration_wakes {
            return;
        }
        for worker in self.steering.ready().to_vec() {
            if let Err(why) = self.send_probe(worker, Purpose::Nudge, Check::Tcp, READY_TIMEOUT) {
                debug!("worker {worker} can't be woken: {why}");
            }
        }
    }

    fn send_probe(
        &mut self,
        worker: WorkerId,
        purpose: Purpose,
        check: Check,
        timeout: Duration,
    ) -> Result<(), String> {
        let endpoint = self
            .steering
            .probed(worker)
            .ok_or("it does not listen on TCP")?
            .clone();
        let to = reached_at(&endpoint);
        let bound = match to.ip() {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }
        .and_then(|socket| {
            // From the address that it goes to: a local one for sure.
            socket.bind(SocketAddr::new(to.ip(), 0))?;
            let source = socket.local_addr()?;
            Ok((socket, source))
        });
        let (socket, source) =
            bound.map_err(|error| format!("no socket to ask it from: {error}"))?;
        self.steering
            .admit(worker, &endpoint, source)
            .map_err(|error| format!("the question can't be steered: {error}"))?;
        let news = self.probing.news.clone();
        tokio::spawn(async move {
            let tell = |what| {
                let endpoint = endpoint.clone();
                news.send(Probed {
                    worker,
                    endpoint,
                    source,
                    what,
                })
            };
            let deadline = Instant::now() + timeout;
            let connected = probe::connect(socket, to, deadline).await;
            let _ = tell(What::Steered).await;
            let result = match connected {
                Ok(connected) => connected.check(&check).await,
                Err(why) => Err(why),
            };
            // Nobody listens any more when the launcher ends.
            let _ = tell(What::Done(purpose, result)).await;
        });
        Ok(())
    }

    /// A probe has got somewhere.
    pub(super) fn on_probed(&mut self, probed: Probed) {
        let Probed {
            worker,
            endpoint,
            source,
            what,
        } = probed;
        match what {
            What::Steered => self.steering.withdraw(&endpoint, source),
            What::Done(purpose, result) => self.on_answer(worker, purpose, result),
        }
    }

    /// Why a worker's last question was not answered well, if so.
    pub(super) fn last_refusal(&self, worker: WorkerId) -> Option<String> {
        self.running.get(&worker)?.last_refusal.clone()
    }

    fn on_answer(&mut self, worker: WorkerId, purpose: Purpose, result: Result<(), String>) {
        if let Err(why) = &result {
            debug!("worker {worker}, asked for {purpose:?}: {why}");
        }
        if purpose != Purpose::Nudge
            && let Some(running) = self.running.get_mut(&worker)
        {
            running.last_refusal = result.as_ref().err().cloned();
        }
        let Some(probee) = self.probing.workers.get_mut(&worker) else {
            return;
        };
        match purpose {
            Purpose::Nudge => {}
            Purpose::Readiness if result.is_ok() => {
                self.probing.workers.remove(&worker);
                self.feed(Event::Ready { worker });
            }
            Purpose::Readiness => {
                probee.next = Some(Instant::now() + probee.pause);
                probee.pause = (probee.pause * 2).min(READY_PAUSES.1);
            }
            Purpose::Health => {
                probee.next = Some(Instant::now() + probee.pause);
                let changed = probee.health.as_mut();
                if let Some(healthy) = changed.and_then(|health| health.result(result.is_ok())) {
                    self.feed(Event::Health { worker, healthy });
                }
            }
        }
    }
}
