//! `status --json`, with the questions that tests ask.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::Value;

/// One answer of `status --json`.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// The groups of all ports.
    ///
    /// # Panics
    /// When there is no list of them.
    #[must_use]
    #[track_caller]
    pub fn groups(&self) -> &[Value] {
        self.list("groups")
    }

    /// The only group of this port.
    ///
    /// # Panics
    /// When there is none or another one.
    #[must_use]
    #[track_caller]
    pub fn group(&self, port: u16) -> &Value {
        let mut found = self.groups().iter().filter(|group| group["port"] == port);
        match (found.next(), found.next()) {
            (Some(group), None) => group,
            _ => panic!("not one group of port {port}: {}", self.0),
        }
    }

    /// The group of this protocol, `tcp` or `udp`, and address.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn group_at(&self, protocol: &str, at: SocketAddr) -> &Value {
        let found = self.groups().iter().find(|group| {
            group["protocol"] == protocol
                && group["address"] == at.ip().to_string()
                && group["port"] == at.port()
        });
        found.unwrap_or_else(|| panic!("no group {protocol} {at}: {}", self.0))
    }

    /// Asserts that the program, and nothing else, chose for `expected` connections or datagrams
    /// in this group in all.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn assert_selected_at(&self, protocol: &str, at: SocketAddr, expected: u64) {
        let group = self.group_at(protocol, at);
        let counted = ["selected_total", "fell_through_total"].map(|name| group[name].as_u64());
        assert_eq!(
            counted,
            [Some(expected), Some(0)],
            "{protocol} {at}: {group}"
        );
    }

    /// A counter of the only group of this port, such as `selected_total`.
    ///
    /// # Panics
    /// When it is not a number.
    #[must_use]
    #[track_caller]
    pub fn counter(&self, port: u16, name: &str) -> u64 {
        let value = &self.group(port)[name];
        value
            .as_u64()
            .unwrap_or_else(|| panic!("{name} of port {port} is {value}"))
    }

    /// Asserts that the program, and nothing else, chose for `expected` connections or datagrams
    /// on this port in all.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn assert_selected(&self, port: u16, expected: u64) {
        assert_eq!(self.counter(port, "selected_total"), expected, "{}", self.0);
        assert_eq!(self.counter(port, "fell_through_total"), 0, "{}", self.0);
    }

    /// The workers.
    ///
    /// # Panics
    /// When there is no list of them.
    #[must_use]
    #[track_caller]
    pub fn workers(&self) -> &[Value] {
        self.list("workers")
    }

    /// The only worker of this slot.
    ///
    /// # Panics
    /// When there is none or another one.
    #[must_use]
    #[track_caller]
    pub fn worker(&self, slot: u32) -> &Value {
        let mut found = self
            .workers()
            .iter()
            .filter(|worker| worker["slot"] == slot);
        match (found.next(), found.next()) {
            (Some(worker), None) => worker,
            _ => panic!("not one worker of slot {slot}: {}", self.0),
        }
    }

    /// The pid of a slot's worker.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn pid(&self, slot: u32) -> u32 {
        let pid = self.worker(slot)["pid"]
            .as_u64()
            .and_then(|pid| pid.try_into().ok());
        pid.unwrap_or_else(|| panic!("slot {slot} has no pid: {}", self.0))
    }

    /// Whether a worker of this slot and generation is ready.
    #[must_use]
    #[track_caller]
    pub fn is_ready(&self, slot: u32, generation: u64) -> bool {
        self.workers().iter().any(|worker| {
            worker["slot"] == slot
                && worker["generation"] == generation
                && worker["state"] == "ready"
        })
    }

    /// How many workers are ready.
    #[must_use]
    #[track_caller]
    pub fn ready(&self) -> usize {
        let ready = self
            .workers()
            .iter()
            .filter(|worker| worker["state"] == "ready");
        ready.count()
    }

    /// Whether there are so many workers, and each is ready.
    #[must_use]
    #[track_caller]
    pub fn all_ready(&self, workers: usize) -> bool {
        self.workers().len() == workers && self.ready() == workers
    }

    /// The state of a slot's only worker.
    ///
    /// # Panics
    /// As [`Status::worker`].
    #[must_use]
    #[track_caller]
    pub fn state(&self, slot: u32) -> &str {
        self.worker(slot)["state"].as_str().unwrap_or_default()
    }

    /// The generation of a slot's only worker.
    ///
    /// # Panics
    /// As [`Status::worker`], and when it is not a number.
    #[must_use]
    #[track_caller]
    pub fn generation(&self, slot: u32) -> u64 {
        let value = &self.worker(slot)["generation"];
        value
            .as_u64()
            .unwrap_or_else(|| panic!("the generation of slot {slot} is {value}"))
    }

    /// The pids of the workers, by slot.
    ///
    /// # Panics
    /// When a slot has none, or several workers.
    #[must_use]
    #[track_caller]
    pub fn pids(&self) -> Vec<u32> {
        let slots = 0..u32::try_from(self.workers().len()).expect("few workers");
        slots.map(|slot| self.pid(slot)).collect()
    }

    /// How many connections each slot's worker was sent, as the kernel counted.
    ///
    /// # Panics
    /// When that is not known.
    #[must_use]
    #[track_caller]
    pub fn connections(&self) -> BTreeMap<u64, u64> {
        let workers = self.workers().iter();
        workers
            .map(|worker| {
                let number = |name: &str| {
                    worker[name]
                        .as_u64()
                        .unwrap_or_else(|| panic!("{name} is no number: {worker}"))
                };
                (number("slot"), number("connections_total"))
            })
            .collect()
    }

    #[track_caller]
    fn list(&self, name: &str) -> &[Value] {
        self.0[name]
            .as_array()
            .unwrap_or_else(|| panic!("no {name}: {}", self.0))
    }
}
