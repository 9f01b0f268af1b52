//! A reload by the configuration file as it is by now.
//!
//! ```text
//!   read, checked ──▶ plan exchanged ──▶ workers replaced ──▶ policies, number of workers ──▶ answer
//!        │ wrong: nothing happens              │ called off: the plan from before comes back
//! ```

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};
use tracing::{error, info, warn};

use super::{fleet_settings, launcher::Launcher, requests::told};
use crate::{
    config::{self, App, Plan, Ready},
    control::protocol::{Change, Changes, Response},
    failure::Failure,
    fleet::{self, Ticket},
    metrics::Outcome,
    policy::{Policies, Policy},
};

/// A reload that goes on, and what comes back if it is called off.
#[derive(Debug)]
pub(super) struct Staged {
    /// Its ticket.
    pub(super) ticket: Ticket,
    plan: Plan,
    app: App,
    changes: Changes,
    /// To be in force when it is done.
    policies: Policies,
    /// How many workers there are to be then, and why, where that is another number.
    workers: Option<(u32, String)>,
}

/// A reload whose workers are all there, and who waits for it.
#[derive(Debug)]
pub(super) struct Replaced {
    pub(super) staged: Staged,
    /// When it was asked for.
    pub(super) since: Option<Instant>,
    pub(super) reply: Option<oneshot::Sender<Response>>,
}

impl Launcher {
    /// Replaces every worker; where there is a configuration file, by what that says by now. If that is
    /// wrong nothing happens.
    pub(super) fn reload(
        &mut self,
        drain_timeout: Option<Option<Duration>>,
        reply: Option<oneshot::Sender<Response>>,
    ) {
        let request = fleet::Request::Reload { drain_timeout };
        // One that is refused anyway is to change nothing.
        let refused = self.is_stopping() || self.fleet.operation().is_some();
        if self.app.file.is_some() && !refused && self.replaced.is_none() {
            let since = Some(Instant::now());
            match self.stage() {
                Ok(staged) => self.staged = Some(staged),
                Err(failure) => {
                    self.count_reload(since, Outcome::Refused);
                    error!("{}: {}", failure.what, failure.why);
                    if let Some(reply) = reply {
                        let _ = reply.send(failure.into());
                    }
                    return;
                }
            }
        }
        self.ask(request, reply);
    }

    /// Reads the file, and has the plan that it makes hold for what is started from now on.
    fn stage(&mut self) -> Result<Staged, Failure> {
        let (app, plan) = self.read_anew().map_err(|failure| {
            let what = format!("cannot reload ({}): {}", self.plan.name, failure.what);
            let hint = format!("{}; until then all goes on as it was", failure.hint);
            Failure {
                what,
                hint,
                ..failure
            }
        })?;
        let changes = self.app.changes(&app);
        for change in &changes.live {
            info!("configuration changed: {}", shown(change));
        }
        for change in &changes.restart {
            warn!("the change needs a restart: {}", shown(change));
        }
        let policies = match changes.has("steer") || changes.has("steer-udp") {
            true => plan.policies,
            false => self.plan.policies,
        };
        let workers = changes
            .has("workers")
            .then(|| (plan.workers, plan.workers_reason.clone()));
        let next = self.plan.followed_by(plan);
        let app = self.app.followed_by(app);
        Ok(Staged {
            ticket: Ticket(self.next_ticket),
            plan: self.bring(next),
            app: std::mem::replace(&mut self.app, app),
            changes: Changes {
                applied: changes.live.iter().map(shown).collect(),
                needs_restart: changes.restart.iter().map(shown).collect(),
            },
            policies,
            workers,
        })
    }

    fn read_anew(&self) -> Result<(App, Plan), Failure> {
        let app = self.app.reread()?;
        let plan = app.plan()?;
        super::check(&plan)?;
        let asks = plan.health.is_some() || matches!(self.plan.ready, Ready::Tcp | Ready::Http(_));
        if asks && self.steering.policies().connections() == Policy::Kernel {
            return Err(Failure::new(
                "cannot ask single workers over tcp or http",
                "the policy in force is kernel, so no program would steer the question",
                "change the policy first: reuseport-launch steer round-robin",
            ));
        }
        Ok((app, plan))
    }

    /// Has another plan hold from now on, and returns the one from before.
    fn bring(&mut self, plan: Plan) -> Plan {
        self.fleet.adjust(fleet_settings(&plan, plan.workers));
        if plan.recycle.max_memory.is_some() {
            self.cgroup.enable_memory();
        }
        if plan.health != self.plan.health {
            self.probing.forget_health();
        }
        std::mem::replace(&mut self.plan, plan)
    }

    /// The reload was called off: the configuration from before holds again.
    pub(super) fn return_to(&mut self, staged: Staged) {
        let Staged {
            plan, app, changes, ..
        } = staged;
        if !changes.applied.is_empty() {
            warn!("the configuration from before the reload goes on");
        }
        self.bring(plan);
        self.app = app;
    }

    /// Brings into force what waited for the end of a reload, and answers.
    pub(super) fn conclude_reload(&mut self) {
        let Some(Replaced {
            staged,
            since,
            reply,
        }) = self.replaced.take()
        else {
            return;
        };
        let Staged {
            app,
            changes,
            policies,
            workers,
            ..
        } = staged;
        let steered = self.steer_as_configured(self.plan.policies, policies);
        if let Err(failure) = steered {
            self.count_reload(since, Outcome::Failed);
            error!("{}: {}", failure.what, failure.why);
            // So that the next reload finds them changed again.
            self.app.keep(&["steer", "steer-udp", "workers"], &app);
            if let Some(reply) = reply {
                let hint = format!("the workers are replaced; {}", failure.hint);
                let _ = reply.send(Failure { hint, ..failure }.into());
            }
            return;
        }
        self.count_reload(since, Outcome::Done);
        self.plan.policies = policies;
        if let Some((workers, reason)) = workers {
            self.plan.workers = workers;
            self.plan.workers_reason = reason;
            if workers != self.fleet.workers_wanted() {
                self.ask_with(fleet::Request::Scale(workers), changes, reply);
                return;
            }
        }
        info!("reload: done");
        if let Some(reply) = reply {
            let _ = reply.send(told(changes));
        }
    }
}

fn shown(change: &config::Change) -> Change {
    let config::Change { key, from, to } = change.clone();
    Change { key, from, to }
}
