//! Which connections are counted: those of all workers, while the policy of some group compares them.

use std::time::Instant;

use aya::maps::MapError;
use tracing::debug;

use super::{
    Steering,
    account::{Account, Place},
    books::Books,
    group::Group,
};
use crate::{
    failure::Failure,
    policy::Policy,
    sys::{cgroup::WorkerCgroup, listeners::Endpoint, privilege::ebpf_failure},
    worker::WorkerId,
};

impl Steering {
    /// Learns which cgroup a worker has, and has its connections counted if some group needs that.
    /// `starts` says that it is yet to start.
    ///
    /// # Errors
    /// When they can't be counted.
    pub fn watch(
        &mut self,
        worker: WorkerId,
        cgroup: &WorkerCgroup,
        starts: bool,
    ) -> Result<(), Failure> {
        let place = Place {
            directory: cgroup.path().to_owned(),
            id: cgroup.id(),
        };
        if let Some(account) = &mut self.account {
            if account.counts() {
                seat(account, worker, &place)?;
                if starts {
                    self.whole.insert(worker);
                }
            } else {
                account.recognise(worker, &place);
            }
        }
        self.places.insert(worker, place);
        Ok(())
    }

    /// Begins to count the connections of the workers, if that is not done yet. What began before is
    /// counted nowhere.
    ///
    /// # Errors
    /// When the program can't be loaded, or the kernel has no memory.
    pub fn start_counting(&mut self) -> Result<(), Failure> {
        let mut account = match self.account.take() {
            Some(account) => account,
            None => Account::start(self.pins.as_deref())?,
        };
        let outcome = self.count_all(&mut account);
        self.account = Some(account);
        outcome
    }

    fn count_all(&mut self, account: &mut Account) -> Result<(), Failure> {
        account
            .go_on()
            .map_err(|error| ebpf_failure("cannot count connections", &error))?;
        for (&worker, place) in &self.places {
            seat(account, worker, place)?;
        }
        for (endpoint, group) in &mut self.groups {
            if group.policy == Policy::LeastConn {
                group.count(endpoint, account)?;
            }
        }
        Ok(())
    }

    /// Ends that: no policy needs it any more. What was counted is until it ends; see
    /// [`Steering::finish_counting`].
    pub fn stop_counting(&mut self) {
        let Some(account) = &mut self.account else {
            return;
        };
        account.pause();
        self.whole.clear();
        for group in self.groups.values_mut() {
            if let Some(books) = group.books_mut() {
                books.close();
            }
            for member in group.members.values_mut() {
                member.listed = false;
            }
        }
    }

    /// Takes the program off the workers' cgroups when all that it has counted has ended.
    pub fn finish_counting(&mut self, now: Instant) {
        if let Some(account) = self.account.take_if(|account| account.is_over(now)) {
            account.end(self.places.values());
            debug!("nothing that was counted is open any more");
        }
    }

    /// Whether there may be work for [`Steering::list`].
    #[must_use]
    pub fn has_unlisted(&self) -> bool {
        self.unlisted
    }

    /// Has connections that move when their listener goes counted for those to whom they move, from
    /// listeners whose connections are all counted: those in which nothing waits that is older than the
    /// counting. `empty` tells whether the listener with this cookie is there and nothing waits in it, as it
    /// was at least a moment after the last call of [`Steering::adopt`] or [`Steering::change`].
    /// Tells of those that were added.
    pub fn list(&mut self, empty: impl Fn(u64) -> bool) -> Vec<(WorkerId, Endpoint)> {
        let mut added = Vec::new();
        self.unlisted = false;
        for (endpoint, group) in &mut self.groups {
            let program = group.program.as_mut();
            let books = program.and_then(|program| program.books.as_mut());
            let Some(books) = books.filter(|books| books.counter().is_some()) else {
                continue;
            };
            for member in group.members.values_mut() {
                if !member.listed {
                    // Without room for it, what moves from there stays counted where it was.
                    member.listed =
                        empty(member.cookie) && books.list(member.cookie, member.seat).is_ok();
                    self.unlisted |= !member.listed;
                    added.extend(member.listed.then(|| (member.worker, endpoint.clone())));
                }
            }
        }
        added
    }

    /// Whether the kernel counts the open connections of the workers.
    #[must_use]
    pub fn counts_open(&self) -> bool {
        self.account.as_ref().is_some_and(Account::counts)
    }

    /// How many connections a worker has open, accepted or not, as the kernel counts them; `None` when it
    /// does not. One whose worker has finished, by `close` or `shutdown`, is not open, though its
    /// client may still send.
    #[must_use]
    pub fn active(&self, worker: WorkerId) -> Option<u64> {
        let account = self.account.as_ref().filter(|account| account.counts())?;
        account.active(worker)
    }
}

impl Group {
    /// Has its program compare the workers by what is counted.
    pub(super) fn count(&mut self, endpoint: &Endpoint, account: &Account) -> Result<(), Failure> {
        for member in self.members.values_mut() {
            member.seat = account.seat_of(member.worker);
        }
        let Some(books) = self.books_mut() else {
            return Ok(());
        };
        books.open(account).map_err(|error: MapError| {
            ebpf_failure(
                format!("cannot count the connections of {endpoint}"),
                &error,
            )
        })
    }

    /// Forgets a listener.
    pub(super) fn unlist(&mut self, listener: u64) {
        if let Some(books) = self.books_mut() {
            books.forget(listener);
        }
    }

    /// What its program knows of the account, while its connections are counted.
    pub(super) fn counted_books(&mut self) -> Option<&mut Books> {
        self.books_mut().filter(|books| books.counter().is_some())
    }

    fn books_mut(&mut self) -> Option<&mut Books> {
        self.program.as_mut()?.books.as_mut()
    }
}

fn seat(account: &mut Account, worker: WorkerId, place: &Place) -> Result<(), Failure> {
    account.seat(worker, place).map_err(|error| {
        ebpf_failure(
            format!("cannot count the connections of worker {worker}"),
            &error,
        )
    })
}
