//! Which connections are counted: those of the groups whose policy compares members by them.

use aya::maps::MapError;

use super::{
    Steering,
    account::{Account, Active, Books},
    change::Copies,
    group::{Group, still_listens},
};
use crate::{
    failure::Failure,
    policy::Policy,
    sys::{listeners::Endpoint, privilege::ebpf_failure},
    worker::WorkerId,
};

impl Steering {
    /// Begins to count the connections of the groups under `least-conn`, if that is not done yet. What
    /// began before at a listener without a tag is counted nowhere.
    ///
    /// # Errors
    /// When the program can't be loaded, or the kernel has no memory.
    pub fn start_counting(&mut self) -> Result<(), Failure> {
        let mut account = match self.account.take() {
            Some(account) => account,
            None => Account::start(&self.own.cgroup, self.pins.as_deref())?,
        };
        let mut opened = Ok(());
        for (endpoint, group) in &mut self.groups {
            if group.policy == Policy::LeastConn && opened.is_ok() {
                opened = group.count(endpoint, &mut account);
            }
        }
        self.account = Some(account);
        opened
    }

    /// Ends that: no policy needs it any more.
    pub fn stop_counting(&mut self) {
        let Some(mut account) = self.account.take() else {
            return;
        };
        for group in self.groups.values_mut() {
            if let Some(books) = group.books_mut() {
                account.close(books);
            }
            for member in group.members.values_mut() {
                member.listed = false;
            }
        }
        account.end();
    }

    /// Counts for the groups that there are only: an earlier launcher may have had others.
    pub(super) fn forget_other_counts(&mut self) {
        if let Some(account) = &mut self.account {
            let groups = self.groups.values();
            let ids: Vec<u32> = groups.filter_map(Group::books).map(Books::id).collect();
            account.keep_only(&ids);
        }
    }

    /// Whether there may be work for [`Steering::list`].
    #[must_use]
    pub fn has_unlisted(&self) -> bool {
        self.unlisted
    }

    /// Has connections that move when their listener goes counted for those to whom they move, from
    /// listeners whose connections are all counted: those that have a tag and in which nothing waits
    /// that is older. `waits` tells whether something waits in the listener with this cookie, as it was
    /// at least a moment after the last call of [`Steering::adopt`] or [`Steering::change`].
    /// Tells of those that were added.
    pub fn list(&mut self, waits: impl Fn(u64) -> bool) -> Vec<(WorkerId, Endpoint)> {
        let mut added = Vec::new();
        self.unlisted = false;
        for (endpoint, group) in &mut self.groups {
            let program = group.program.as_mut();
            let Some(books) = program.and_then(|program| program.books.as_mut()) else {
                continue;
            };
            if !books.are_open() {
                continue;
            }
            for (&index, member) in &mut group.members {
                if !member.listed {
                    // Without room for it, what moves from there stays counted where it was.
                    member.listed =
                        !waits(member.cookie) && books.list(member.cookie, index).is_ok();
                    self.unlisted |= !member.listed;
                    added.extend(member.listed.then(|| (member.worker, endpoint.clone())));
                }
            }
        }
        added
    }

    /// Whether the kernel counts the open connections of some group.
    #[must_use]
    pub fn counts_open(&self) -> bool {
        self.account.is_some()
    }

    /// How many connections a worker has open, accepted or not, as the kernel counts them; `None` when it
    /// does not. One whose worker has finished, by `close` or `shutdown`, is not open, though its
    /// client may still send.
    #[must_use]
    pub fn active(&self, worker: WorkerId) -> Option<u64> {
        let groups = self.groups.values();
        let counted = groups.filter_map(|group| {
            let active = group.active()?;
            let members = group.members.iter();
            let own = members.filter(|(_, member)| member.worker == worker);
            Some(own.map(|(&index, _)| active.of(index)).sum::<u64>())
        });
        counted.reduce(|a, b| a + b)
    }
}

impl Group {
    /// Has its connections counted.
    pub(super) fn count(
        &mut self,
        endpoint: &Endpoint,
        account: &mut Account,
    ) -> Result<(), Failure> {
        let Some(books) = self.books_mut() else {
            return Ok(());
        };
        account
            .open(books)
            .map_err(|error| cannot_count(endpoint, &error))
    }

    /// Has the connections of all members counted that begin from now on, after [`Group::count`].
    /// `copies` has copies of their sockets. What is adopted later is seen to.
    pub(super) fn tag(&mut self, endpoint: &Endpoint, copies: &Copies) -> Result<(), Failure> {
        let program = self.program.as_ref();
        let Some(books) = program.and_then(|program| program.books.as_ref()) else {
            return Ok(());
        };
        for (&index, member) in &mut self.members {
            member.listed = false;
            if let Some(socket) = copies.get(&member.cookie)
                && let Err(error) = books.tag(socket, index)
                && still_listens(socket)
            {
                return Err(cannot_count(endpoint, &error));
            }
        }
        Ok(())
    }

    /// The first free place for a member; one whose last member has no connections left, if there is
    /// one.
    pub(super) fn free_place(&self, free: impl Fn(u16) -> bool) -> Option<u16> {
        let active = self.active();
        let burden = |index| active.as_ref().map_or(0, |active| active.of(index));
        let places = || (0..launcher_common::HOLD).filter(|&index| free(index));
        places()
            .find(|&index| burden(index) == 0)
            .or_else(|| places().next())
    }

    /// Forgets a listener.
    pub(super) fn unlist(&mut self, listener: u64) {
        if let Some(books) = self.books_mut() {
            books.forget(listener);
        }
    }

    /// What is counted for it, if anything can be.
    pub(super) fn books(&self) -> Option<&Books> {
        self.program.as_ref()?.books.as_ref()
    }

    pub(super) fn books_mut(&mut self) -> Option<&mut Books> {
        self.program.as_mut()?.books.as_mut()
    }

    fn active(&self) -> Option<Active> {
        self.books()?.active()
    }
}

pub(super) fn cannot_count(endpoint: &Endpoint, error: &MapError) -> Failure {
    ebpf_failure(format!("cannot count the connections of {endpoint}"), error)
}
