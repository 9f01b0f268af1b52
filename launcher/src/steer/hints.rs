//! Hints: a number for each worker, whose meaning is between the workers and a steering object of the
//! user's own.

use super::Steering;
use crate::{failure::Failure, sys::privilege::ebpf_failure, worker::WorkerId};

impl Steering {
    /// Whether the program wants to know any.
    #[must_use]
    pub fn takes_hints(&self) -> bool {
        let object = self.object.as_ref();
        object.is_some_and(super::Object::takes_hints)
    }

    /// What a worker has told the program, 0 at first; `None` when the program takes no hints.
    #[must_use]
    pub fn hint(&self, worker: WorkerId) -> Option<u64> {
        self.takes_hints()
            .then(|| self.hints.get(&worker).copied().unwrap_or(0))
    }

    /// Tells the program about all members that a worker has, and those that it will have.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn set_hint(&mut self, worker: WorkerId, hint: u64) -> Result<(), Failure> {
        self.hints.insert(worker, hint);
        for (endpoint, group) in &mut self.groups {
            let Some(program) = &mut group.program else {
                continue;
            };
            for (&index, member) in &group.members {
                if member.worker == worker {
                    program.set_hint(index, hint).map_err(|error| {
                        let what = format!("cannot set the hint of worker {worker} on {endpoint}");
                        ebpf_failure(what, &error)
                    })?;
                }
            }
        }
        Ok(())
    }
}
