//! Another way of dealing out connections, while they come: the verbs `steer` and `weight`.

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::launcher::Launcher;
use crate::{
    capture::Sighting,
    config::Ready,
    control::protocol::Response,
    failure::Failure,
    fleet::{self, State},
    policy::{Policies, Policy, WEIGHT_MAX},
    steer::Copies,
    sys::listeners::{Endpoint, Protocol},
};

/// Why `least-conn` is no policy for datagrams.
const NO_CONNECTIONS: &str = "datagrams have no connections that could be counted";

impl Launcher {
    /// Brings another policy into force, for datagrams only or for all groups without one of their own.
    pub(super) fn steer_by(&mut self, policy: &str, datagrams: bool) -> Result<(), Failure> {
        let what = format!("cannot steer by {policy} ({})", self.plan.name);
        let policy: Policy = policy.parse().map_err(|invalid| {
            let hint = "choose one of those; nothing was changed";
            Failure::new(&what, invalid, hint)
        })?;
        let policies = self.steering.policies().with(policy, datagrams);
        self.bring_into_force(policies, &what, &[(policy, datagrams)])?;
        let what = if datagrams {
            "datagrams"
        } else {
            "connections"
        };
        info!("{what} are steered by {policy} from now on");
        self.tell_of_policies();
        Ok(())
    }

    /// Brings into force what a changed configuration has otherwise than `before`. What was changed by a
    /// request and not there stays.
    pub(super) fn steer_as_configured(
        &mut self,
        before: Policies,
        wanted: Policies,
    ) -> Result<(), Failure> {
        let mut policies = self.steering.policies();
        let mut changed = Vec::new();
        if before.all != wanted.all {
            policies.all = wanted.all;
            changed.push((policies.connections(), false));
        }
        if before.datagrams != wanted.datagrams {
            policies.datagrams = wanted.datagrams;
            changed.push((policies.datagrams(), true));
        }
        if policies == self.steering.policies() {
            return Ok(());
        }
        let what = format!("cannot steer as configured ({})", self.plan.name);
        self.bring_into_force(policies, &what, &changed)?;
        let [connections, datagrams] = [policies.connections(), policies.datagrams()];
        info!("connections are steered by {connections}, datagrams by {datagrams} from now on");
        self.tell_of_policies();
        Ok(())
    }

    /// `changed` are those that are other ones, and whether each is for datagrams only.
    fn bring_into_force(
        &mut self,
        policies: Policies,
        what: &str,
        changed: &[(Policy, bool)],
    ) -> Result<(), Failure> {
        // What listens already is to be known.
        self.catch_up();
        for &(policy, datagrams) in changed {
            self.check_policies(policies, policy, datagrams)
                .map_err(|(why, hint)| {
                    Failure::new(what, why, format!("{hint}; nothing was changed"))
                })?;
        }
        let copies = if self.steering.needs_copies(policies) {
            self.copy_members()
        } else {
            Copies::new()
        };
        self.count();
        let changed = self.steering.change(policies, &copies);
        self.count();
        drop(copies);
        self.steering.close_copies();
        changed.map_err(|failure| {
            let why = format!("{}: {}", failure.what, failure.why);
            Failure::new(what, why, failure.hint)
        })
    }

    /// Whether these policies can come into force: why not, and what to do.
    fn check_policies(
        &self,
        policies: Policies,
        policy: Policy,
        datagrams: bool,
    ) -> Result<(), (String, String)> {
        let refused = |why: String, hint: &str| Err((why, hint.to_owned()));
        if self.is_stopping() {
            return refused("it is stopping".to_owned(), "nothing to do");
        }
        let own = datagrams && self.steering.policies().datagrams.is_some();
        if let Some(object) = self.plan.steer_object.as_ref().filter(|_| !own) {
            return refused(
                format!("{} steers (--steer-object)", object.display()),
                "start the launcher anew without --steer-object",
            );
        }
        let groups = self.steering.groups();
        let only_datagrams = !groups.is_empty()
            && policies.datagrams.is_none()
            && groups
                .iter()
                .all(|group| group.endpoint.protocol == Protocol::Udp);
        if policy == Policy::LeastConn && (datagrams || only_datagrams) {
            return refused(
                NO_CONNECTIONS.to_owned(),
                "choose another policy, such as hash",
            );
        }
        let before = self.steering.policies();
        let to_kernel = |of: fn(Policies) -> Policy| {
            of(policies) == Policy::Kernel && of(before) != Policy::Kernel
        };
        if !to_kernel(Policies::connections) && !to_kernel(Policies::datagrams) {
            return Ok(());
        }
        let asks =
            self.plan.health.is_some() || matches!(self.plan.ready, Ready::Tcp | Ready::Http(_));
        if to_kernel(Policies::connections) && asks {
            return refused(
                "workers are asked over tcp or http whether they are well, and no program would be there \
                 to steer the question to the one that is meant"
                    .to_owned(),
                "choose another policy, or start the launcher with --ready listen, notify or node, and \
                 without --health",
            );
        }
        let weights = self.fleet.weights();
        if let Some((slot, _)) = weights.iter().find(|&(_, weight)| *weight == 0) {
            return refused(
                format!("slot {slot} is to get no connections, which the kernel knows nothing of"),
                "give it a weight first",
            );
        }
        let drained = |view: &fleet::View| {
            !view.leaving && matches!(view.state, State::Draining | State::Drained)
        };
        if let Some(view) = self.fleet.views().into_iter().find(drained) {
            return refused(
                format!(
                    "slot {} is drained: the kernel's own hash would send it connections",
                    view.worker.slot
                ),
                "undrain it first",
            );
        }
        if let Some(endpoint) = self.steering.would_lose(policies) {
            return refused(
                format!(
                    "no worker takes connections on {endpoint}: those that wait there would be lost"
                ),
                "ask again when one is ready",
            );
        }
        Ok(())
    }

    /// Copies of the members' sockets, which the caller closes at once. Sockets that are seen for the
    /// first time become members.
    fn copy_members(&mut self) -> Copies {
        let mut copies = Copies::new();
        let mut others = Vec::new();
        for running in self.running.values() {
            for sighting in self.capture.recognise(&running.cgroup) {
                match sighting {
                    Sighting::Member { cookie, socket, .. } if self.steering.is_member(cookie) => {
                        copies.insert(cookie, socket);
                    }
                    // The others are told of when they come up by themselves.
                    member @ Sighting::Member { .. } => others.push(member),
                    _ => {}
                }
            }
        }
        self.see(others);
        copies
    }

    /// Changes the share of a slot.
    pub(super) fn weigh(&mut self, slot: u32, weight: u32, reply: oneshot::Sender<Response>) {
        let refused = |why: String, hint: &str| {
            Failure::new(
                format!(
                    "cannot give slot {slot} the weight {weight} ({})",
                    self.plan.name
                ),
                why,
                format!("{hint}; nothing was changed"),
            )
        };
        let in_range = u16::try_from(weight)
            .ok()
            .filter(|weight| *weight <= WEIGHT_MAX);
        let answer = match in_range {
            None => refused(
                format!("a weight is 0 (no new connections) to {WEIGHT_MAX}"),
                "choose one of those",
            ),
            Some(_) if !self.steering.has_tables() => refused(
                "the policy is kernel, whose hash takes all for equal".to_owned(),
                "choose another policy: reuseport-launch steer round-robin",
            ),
            Some(weight) => {
                self.ask(fleet::Request::Weigh { slot, weight }, Some(reply));
                return;
            }
        };
        let _ = reply.send(answer.into());
    }

    /// Says what of the policies in force may not be what one expects of them.
    pub(super) fn tell_of_policies(&self) {
        let policies = self.steering.policies();
        let in_force = [policies.connections(), policies.datagrams()];
        if in_force.contains(&Policy::Cpu) && self.plan.pinning == fleet::placement::Pinning::None {
            warn!(
                "steer cpu without --pin: what CPU n handles goes to the n-th worker, wherever that runs"
            );
        }
        if in_force == [Policy::Kernel; 2] && !self.fleet.weights().is_empty() {
            warn!("the weights of slots do not count under the policy kernel");
        }
    }

    /// Says that a group that has come is steered by another policy than was asked for.
    pub(super) fn tell_of_datagrams(&self, endpoint: &Endpoint) {
        let Policies { all, datagrams } = self.steering.policies();
        if endpoint.protocol == Protocol::Udp && (all, datagrams) == (Some(Policy::LeastConn), None)
        {
            warn!("{endpoint} is steered by hash instead of least-conn: {NO_CONNECTIONS}");
        }
    }
}
