//! What is asked for over the control socket, or by a signal, and its answers.

use serde_json::Value;
use tokio::{sync::oneshot, time::Instant};
use tracing::{error, info, warn};

use super::{launcher::Launcher, reload::Replaced};
use crate::{
    control::{
        protocol::{Changes, Request, Response},
        server::Call,
    },
    failure::Failure,
    fleet::{self, Cause, Event, StopMode, Ticket, Unmet},
    metrics::Outcome,
    worker::WorkerId,
};

/// A request that is being carried out.
#[derive(Debug)]
pub(super) struct Pending {
    /// `reload`, `scale to 3`
    what: String,
    /// What of the configuration is changed besides.
    changes: Changes,
    /// When a reload was asked for.
    reload_since: Option<Instant>,
    /// Who waits for it; nobody does for a signal's.
    reply: Option<oneshot::Sender<Response>>,
}

/// The answer to who asked for something that is done.
pub(super) fn told(changes: Changes) -> Response {
    match changes == Changes::default() {
        true => Response::Done,
        false => Response::Changed(changes),
    }
}

impl Launcher {
    /// A control client asks for something.
    pub(super) fn on_call(&mut self, call: Call) {
        let Call { request, reply } = call;
        let request = match request {
            // A client that has gone away does not get its answer; nothing depends on it.
            Request::Status {} => {
                let _ = reply.send(Response::Status(Box::new(self.snapshot())));
                return;
            }
            Request::Stop {} => {
                info!("stopping, because of a stop request");
                self.stop_calls.push(reply);
                self.feed(Event::Stop(StopMode::Graceful));
                return;
            }
            Request::Upgrade {} => {
                // When it works the connection is closed instead of answered.
                if let Err(failure) = self.prepare_upgrade(Some(reply)) {
                    warn!("{}: {}", failure.0.what, failure.0.why);
                    if let Some(reply) = failure.1 {
                        let _ = reply.send(failure.0.into());
                    }
                }
                return;
            }
            Request::Send { slot, message } => {
                let sent = self.send(slot, &message);
                let _ = reply.send(sent.map_or_else(Response::from, |()| Response::Done));
                return;
            }
            Request::Hint {
                slot,
                generation,
                value,
            } => {
                let told = self.hint(slot, generation, value);
                let _ = reply.send(told.map_or_else(Response::from, |()| Response::Done));
                return;
            }
            Request::Weight { slot, weight } => {
                self.weigh(slot, weight, reply);
                return;
            }
            Request::Steer { policy, udp } => {
                let response = match self.steer_by(&policy, udp) {
                    Ok(()) => Response::Done,
                    Err(failure) => {
                        error!("{}: {}", failure.what, failure.why);
                        failure.into()
                    }
                };
                let _ = reply.send(response);
                return;
            }
            Request::Reload { drain_timeout_ms } => {
                self.reload(drain_timeout_ms.map(Into::into), Some(reply));
                return;
            }
            Request::Scale { workers } => fleet::Request::Scale(workers),
            Request::Restart { slot } => fleet::Request::Restart(slot),
            Request::Drain { slot } => fleet::Request::Drain(slot),
            Request::Undrain { slot } => fleet::Request::Undrain(slot),
        };
        self.ask(request, Some(reply));
    }

    /// Has the fleet do something. The answer goes to the client, if there is one, and to the log.
    pub(super) fn ask(
        &mut self,
        request: fleet::Request,
        reply: Option<oneshot::Sender<Response>>,
    ) {
        self.ask_with(request, Changes::default(), reply);
    }

    /// The same; the answer tells of these changes, too.
    pub(super) fn ask_with(
        &mut self,
        request: fleet::Request,
        changes: Changes,
        reply: Option<oneshot::Sender<Response>>,
    ) {
        let is_reload = matches!(request, fleet::Request::Reload { .. });
        let what = match request {
            fleet::Request::Reload { .. } => "reload".to_owned(),
            fleet::Request::Scale(workers) => format!("scale to {workers}"),
            fleet::Request::ScaleBy(by) => format!("scale by {by:+}"),
            fleet::Request::Restart(slot) => format!("restart slot {slot}"),
            fleet::Request::Drain(slot) => format!("drain slot {slot}"),
            fleet::Request::Undrain(slot) => format!("undrain slot {slot}"),
            fleet::Request::Weigh { slot, weight } => {
                format!("give slot {slot} the weight {weight}")
            }
        };
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        info!("{what}: asked for");
        let pending = Pending {
            what,
            changes,
            reload_since: is_reload.then(Instant::now),
            reply,
        };
        self.pending.insert(ticket, pending);
        self.feed(Event::Request { ticket, request });
    }

    /// The fleet has done what was asked for, or not.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Result<(), Unmet>) {
        let Some(Pending {
            what,
            changes,
            reload_since,
            reply,
        }) = self.pending.remove(&ticket)
        else {
            return;
        };
        let staged = self.staged.take_if(|staged| staged.ticket == ticket);
        let response = match answer {
            Ok(()) => {
                if let Some(staged) = staged {
                    self.replaced = Some(Replaced {
                        staged,
                        since: reload_since,
                        reply,
                    });
                    return;
                }
                self.count_reload(reload_since, Outcome::Done);
                info!("{what}: done");
                told(changes)
            }
            Err(unmet) => {
                let refused = matches!(unmet, Unmet::Refused(_));
                let outcome = if refused {
                    Outcome::Refused
                } else {
                    Outcome::Failed
                };
                self.count_reload(reload_since, outcome);
                if let Some(staged) = staged {
                    self.return_to(staged);
                }
                let failure = self.explain(&what, &unmet);
                error!("{}: {}", failure.what, failure.why);
                failure.into()
            }
        };
        if let Some(reply) = reply {
            let _ = reply.send(response);
        }
    }

    fn explain(&mut self, what: &str, unmet: &Unmet) -> Failure {
        let name = self.plan.name.clone();
        let (why, hint) = match unmet {
            Unmet::Refused(_) => (
                unmet.to_string(),
                format!("see `reuseport-launch status {name}`; nothing was changed"),
            ),
            Unmet::Failed { worker, cause, .. } => (
                format!(
                    "{unmet}{}{}",
                    self.last_answer_of(*worker, cause),
                    self.last_words_of(*worker)
                ),
                "the workers that it was to replace go on serving; correct the cause and ask again"
                    .to_owned(),
            ),
            Unmet::StillOpen { .. } => (
                unmet.to_string(),
                "it takes no new connections and goes on with those; restart the slot to cut them"
                    .to_owned(),
            ),
            Unmet::Ended { .. } | Unmet::Undrained { .. } | Unmet::Stopped => (
                unmet.to_string(),
                format!("see `reuseport-launch status {name}`"),
            ),
        };
        Failure::new(format!("cannot {what} ({name})"), why, hint)
    }

    /// What a worker that was asked in vain whether it is ready answered, as part of a sentence.
    fn last_answer_of(&self, worker: WorkerId, cause: &Cause) -> String {
        match (cause, self.last_refusal(worker)) {
            (Cause::NotReady(_), Some(why)) => format!("; {why}"),
            _ => String::new(),
        }
    }

    /// What a worker that failed wrote last, as the end of a sentence.
    fn last_words_of(&mut self, worker: WorkerId) -> String {
        let lines = match &self.last_words {
            Some((of, lines)) if *of == worker => lines.clone(),
            _ => self.output.tail(worker),
        };
        super::launcher::quote(worker, &lines)
    }

    /// Tells the steering object something about a worker.
    fn hint(&mut self, slot: u32, generation: Option<u64>, value: u64) -> Result<(), Failure> {
        let what = || format!("cannot set the hint of slot {slot}");
        if !self.steering.takes_hints() {
            return Err(Failure::new(
                what(),
                "the policy takes no hints",
                "start the launcher with --steer-object and an object that has the map HINTS",
            ));
        }
        let views = self.fleet.views().into_iter().filter(|view| {
            view.worker.slot == slot
                && self.running.contains_key(&view.worker)
                && match generation {
                    Some(generation) => view.worker.generation == generation,
                    None => !view.leaving,
                }
        });
        // One that starts has the slot's place only when it is ready.
        let placed = views.max_by_key(|view| (view.state.has_been_ready(), view.worker));
        let Some(worker) = placed.map(|view| view.worker) else {
            let generation = generation.map_or(String::new(), |n| format!(" of generation {n}"));
            return Err(Failure::new(
                what(),
                format_args!("it has no worker{generation}"),
                "see `reuseport-launch status`",
            ));
        };
        self.steering.set_hint(worker, value)
    }

    /// Passes a message to the worker of a slot, or to all.
    fn send(&mut self, slot: Option<u32>, message: &Value) -> Result<(), Failure> {
        let what = || match slot {
            Some(slot) => format!("cannot send to slot {slot}"),
            None => "cannot send to the workers".to_owned(),
        };
        if !self.plan.ipc_node {
            return Err(Failure::new(
                what(),
                "the workers have no IPC channel",
                "start the launcher with --ipc node",
            ));
        }
        let current: Vec<WorkerId> = self
            .fleet
            .views()
            .into_iter()
            .filter(|view| !view.leaving && slot.is_none_or(|slot| view.worker.slot == slot))
            .map(|view| view.worker)
            .collect();
        let mut sent = 0;
        let mut failures = Vec::new();
        for worker in current {
            let running = self.running.get_mut(&worker);
            if let Some(ipc) = running.and_then(|running| running.ipc.as_mut()) {
                match ipc.channel.send(message) {
                    Ok(()) => sent += 1,
                    Err(failure) => failures.push(format!("worker {worker}: {}", failure.why)),
                }
            }
        }
        if !failures.is_empty() {
            let hint = "see whether the worker handles process.on('message'), or restart its slot";
            return Err(Failure::new(what(), failures.join("; "), hint));
        }
        if sent == 0 {
            return Err(Failure::new(
                what(),
                "no worker there has an open IPC channel",
                "see `reuseport-launch status`: is the slot there, and its worker running Node?",
            ));
        }
        Ok(())
    }
}
