//! What a launcher that replaces itself passes on open.

use std::os::fd::{OwnedFd, RawFd};

use rustix::process::Rlimit;
use serde::{Deserialize, Serialize};

use crate::{
    ipc::Pending,
    sys::{inherit, listeners::Endpoint},
    worker::WorkerId,
};

/// Descriptors that survive the exec; `F` is how each is put: the state file has their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handed<F = RawFd> {
    pub(super) lock: F,
    pub(super) cgroup: F,
    pub(super) control: F,
    /// The workers' IPC channels, with what is half sent and half received.
    pub(super) channels: Vec<(WorkerId, F, Pending)>,
    /// The workers' notification sockets, with the messages that wait in them.
    pub(super) notify: Vec<(WorkerId, F)>,
    pub(super) holding: Vec<(Endpoint, F)>,
    /// The socket of the metrics, and its address.
    #[serde(default)]
    pub(super) metrics: Option<(String, F)>,
    /// How many files a worker may open, soft and hard, which is less than we may by now; the inner
    /// `None` is no limit.
    file_limit: Option<(Option<u64>, Option<u64>)>,
}

/// What was passed on. Without an earlier launcher that was this process, it is empty.
pub(super) type Inherited = Handed<Option<OwnedFd>>;

impl Handed {
    /// The descriptors that everyone has, and the workers' limit of files.
    pub(super) fn new(lock: RawFd, cgroup: RawFd, control: RawFd, limit: Rlimit) -> Self {
        Self {
            lock,
            cgroup,
            control,
            file_limit: Some((limit.current, limit.maximum)),
            ..Self::default()
        }
    }

    /// Takes all descriptors, so that no child gets them. `None` for one that is not ours.
    pub(super) fn take(self) -> Inherited {
        let take = |fd| inherit::take(fd).ok();
        Handed {
            lock: take(self.lock),
            cgroup: take(self.cgroup),
            control: take(self.control),
            channels: self
                .channels
                .into_iter()
                .map(|(worker, fd, pending)| (worker, take(fd), pending))
                .collect(),
            notify: self
                .notify
                .into_iter()
                .map(|(worker, fd)| (worker, take(fd)))
                .collect(),
            holding: self
                .holding
                .into_iter()
                .map(|(endpoint, fd)| (endpoint, take(fd)))
                .collect(),
            metrics: self.metrics.map(|(address, fd)| (address, take(fd))),
            file_limit: self.file_limit,
        }
    }
}

impl Inherited {
    /// How many files a worker may open.
    pub(super) fn file_limit(&self) -> Option<Rlimit> {
        self.file_limit
            .map(|(current, maximum)| Rlimit { current, maximum })
    }

    /// Takes out the holding sockets.
    pub(super) fn holding(&mut self) -> Vec<(Endpoint, OwnedFd)> {
        std::mem::take(&mut self.holding)
            .into_iter()
            .filter_map(|(endpoint, fd)| Some((endpoint, fd?)))
            .collect()
    }

    /// Takes out a worker's IPC channel.
    pub(super) fn channel(&mut self, of: WorkerId) -> Option<(OwnedFd, Pending)> {
        let at = self
            .channels
            .iter()
            .position(|(worker, ..)| *worker == of)?;
        let (_, fd, pending) = self.channels.swap_remove(at);
        Some((fd?, pending))
    }

    /// Takes out a worker's notification socket.
    pub(super) fn notify(&mut self, of: WorkerId) -> Option<OwnedFd> {
        let at = self.notify.iter().position(|(worker, _)| *worker == of)?;
        self.notify.swap_remove(at).1
    }
}
