//! One group: its members, its program, the table in force, and its holding socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs::File,
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::maps::MapError;
use launcher_common::HOLD;
use tracing::warn;

use super::{
    aim::Aim, books::Books, flows::nanoseconds, program::Program, remember::RememberedMember,
};
use crate::{
    failure::Failure,
    policy::{Policy, Weighted, compile},
    sys::{
        listen::{Birthplace, Mark, listen_as},
        listeners::{Endpoint, Inspected, Protocol, cookie, inspect},
        privilege::ebpf_failure,
    },
    worker::WorkerId,
};

/// A group that has or had members, or had some in an earlier run.
#[derive(Debug)]
pub(super) struct Group {
    /// `None` leaves the choice to the kernel.
    pub(super) policy: Policy,
    /// How long a flow of datagrams may be idle and still stay with its member; `None`: not at all.
    pub(super) flow_timeout: Option<Duration>,
    /// The workers with which flows of datagrams do not stay.
    pub(super) ailing: BTreeSet<WorkerId>,
    /// There is one where there is a policy.
    pub(super) program: Option<Program>,
    /// The name of the directory with its pinned maps.
    pub(super) pins: Option<String>,
    pub(super) members: BTreeMap<u16, Member>,
    /// Members that an earlier launcher had, and that this one has not met yet.
    pub(super) remembered: Vec<RememberedMember>,
    /// One more than the highest index that a member ever had.
    pub(super) places: u16,
    /// What the table in force was made from.
    pub(super) installed: Option<Installed>,
    /// Whether members wait for a table that has them; see [`Steering::gather`](super::Steering::gather).
    pub(super) due: bool,
    /// Copies of members' sockets through which the program is yet to be attached.
    pub(super) unattached: Vec<OwnedFd>,
    /// Since when it was seen to have no members.
    pub(super) deserted: Option<Instant>,
    /// Whether that is so long ago that nothing is held for those to come.
    pub(super) abandoned: bool,
    /// Whether the program is attached before there is somebody to steer to: then members that are
    /// not ready get nothing.
    pub(super) early: bool,
    /// Whether a holding socket is wanted.
    pub(super) holds: bool,
    pub(super) holding: Option<Holding>,
    /// The owner of the members' sockets: the kernel lets nobody else join them.
    pub(super) uid: u32,
}

/// How the launcher makes sockets of its own.
pub(super) struct OwnSockets {
    /// Called with each of them, before it is bound.
    pub(super) mark: Box<Mark>,
    /// The fleet's cgroup (its directory): what is attached to it is called for the fleet's sockets.
    pub(super) cgroup: File,
}

/// What a table is made from.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    wanted: Vec<Weighted>,
    /// Whether connections are held.
    hold: bool,
    /// How long a flow of datagrams may be idle, in ns; 0: none stays.
    flow_timeout: u64,
}

/// A member of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) worker: WorkerId,
    pub(super) cookie: u64,
    /// Its worker's seat in the account; 0 while it has none.
    pub(super) seat: u16,
    /// What its place in the socket array had been sent before it came.
    pub(super) before: u64,
    /// Whether what waits at it is counted for others when it moves to them.
    pub(super) listed: bool,
}

/// The launcher's own member, selected when no other can be. What waits in it moves to the workers
/// when it closes.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) socket: OwnedFd,
    pub(super) cookie: u64,
    /// The group's count of held connections when it was opened.
    pub(super) before: u64,
    /// Whether something was seen to wait in it that nobody had counted.
    pub(super) waits: bool,
}

impl Group {
    /// Brings the table in line with the ready workers, and the program to the group; then hands
    /// over what has been held, and says whether there was something.
    pub(super) fn steer(
        &mut self,
        endpoint: &Endpoint,
        aim: &Aim,
        own: &OwnSockets,
    ) -> Result<bool, Failure> {
        let failed =
            |error: &(dyn Error + 'static)| ebpf_failure(format!("cannot steer {endpoint}"), error);
        let wanted = aim.weigh(&self.members);
        self.due = false;
        self.holds &= endpoint.protocol == Protocol::Tcp && self.program.is_some();
        // Where nothing counts what is held, something may be whenever nobody took any.
        let blind = self
            .program
            .as_ref()
            .is_some_and(|program| !program.counts())
            && self
                .installed
                .as_ref()
                .is_none_or(|before| before.wanted.is_empty());
        self.install(&wanted, aim).map_err(|error| failed(&error))?;
        // With an empty table and nothing to hold them the program refuses connections. It is
        // attached through every new member, not once, because the kernel forgets it whenever the
        // group's last socket closes.
        if let Some(program) = &self.program
            && (!wanted.is_empty() || self.early)
        {
            for socket in self.unattached.drain(..) {
                if let Err(error) = program.attach(&socket)
                    && still_listens(&socket)
                {
                    return Err(failed(&error));
                }
            }
        }
        let due = match &self.holding {
            None => self.holds && !self.abandoned,
            Some(holding) => {
                !wanted.is_empty() && (blind || holding.waits || self.held() > holding.before)
            }
        };
        let hands_over = due && self.holding.is_some();
        if due && let Err(error) = self.hold(endpoint, own) {
            self.holds = false;
            self.install(&wanted, aim).map_err(|error| failed(&error))?;
            self.close_holding();
            warn!("no connections can be held on {endpoint}: {error}");
        }
        Ok(hands_over)
    }

    /// Whether a table that has members is in force, and what is aimed at only adds to
    /// it: then nobody is worse off for a moment without the new one.
    pub(super) fn only_grows(&self, aim: &Aim) -> bool {
        let Some(Installed {
            wanted: installed, ..
        }) = &self.installed
        else {
            return false;
        };
        let wanted = aim.weigh(&self.members);
        // Both are in the order of the indices.
        let stays = |was: &Weighted| {
            let at = wanted.binary_search_by_key(&was.member, |now| now.member);
            at.is_ok_and(|at| wanted[at] == *was)
        };
        !installed.is_empty() && installed.iter().all(stays)
    }

    pub(super) fn install(&mut self, wanted: &[Weighted], aim: &Aim) -> Result<(), MapError> {
        // Also while the holding socket is being opened: for that moment the kernel's choice among
        // the members, who listen all of them, is better than a refusal.
        let hold = self.holds;
        let flow_timeout = self.kept_for().map_or(0, nanoseconds);
        let same = self.installed.as_ref().is_some_and(|installed| {
            installed.wanted == wanted
                && installed.hold == hold
                && installed.flow_timeout == flow_timeout
        });
        let keepers = self.keepers();
        if let Some(flows) = self
            .program
            .as_mut()
            .and_then(|program| program.flows.as_mut())
        {
            flows.keep(&keepers)?;
        }
        if let (Some(program), false) = (&mut self.program, same) {
            let mut table = compile(self.policy, wanted, aim.site());
            table.hold = u32::from(hold);
            table.flow_timeout = flow_timeout;
            program.install(&table)?;
            self.installed = Some(Installed {
                wanted: wanted.to_vec(),
                hold,
                flow_timeout,
            });
        }
        Ok(())
    }

    /// Opens a holding socket. If there is one already it is closed, so that the kernel moves what
    /// waits in it: to members that the table has, or to the new one.
    fn hold(&mut self, endpoint: &Endpoint, own: &OwnSockets) -> io::Result<()> {
        let before = self.held();
        let Some(program) = &mut self.program else {
            return Ok(());
        };
        // What is held is counted too, for the workers to whom it moves: all of it, because the program
        // is there before the socket.
        let counter = program.books.as_ref().and_then(Books::counter).cloned();
        let prepare = |cgroup: &File| counter.iter().try_for_each(|counter| counter.hold(cgroup));
        let birthplace = counter.is_some().then_some(Birthplace {
            above: &own.cgroup,
            prepare: &prepare,
        });
        let socket = listen_as(endpoint, self.uid, birthplace.as_ref(), &own.mark)?;
        let cookie = cookie(&socket)?;
        if let Some(books) = program.books.as_mut().filter(|_| counter.is_some()) {
            books.list(cookie, HOLD).map_err(io::Error::other)?;
        }
        program
            .set_member(HOLD, &socket)
            .map_err(io::Error::other)?;
        // It may be the group's only socket.
        program.attach(&socket).map_err(io::Error::other)?;
        let next = Holding {
            cookie,
            socket,
            before,
            waits: false,
        };
        self.close_holding();
        self.holding = Some(next);
        Ok(())
    }

    /// Holds nothing any more; what waits is moved if there are members to move it to, else reset.
    pub(super) fn release(&mut self, aim: &Aim) -> Result<(), MapError> {
        self.holds = false;
        // The table is told first: a connection must not be lost because the socket went first.
        if let Some(Installed { wanted, .. }) = self.installed.clone() {
            self.install(&wanted, aim)?;
        }
        self.close_holding();
        Ok(())
    }

    /// Closes the holding socket: the kernel moves what waits in it, if there is somebody to move it to.
    pub(super) fn close_holding(&mut self) {
        if let Some(Holding { socket, cookie, .. }) = self.holding.take() {
            // It is asked where the connections come from while they move.
            drop(socket);
            self.unlist(cookie);
        }
    }

    /// Whether a worker has a member in it.
    pub(super) fn has(&self, worker: WorkerId) -> bool {
        self.members.values().any(|member| member.worker == worker)
    }

    /// How many connections went to the holding socket.
    pub(super) fn held(&self) -> u64 {
        self.program.as_ref().map_or(0, Program::held)
    }

    pub(super) fn sent_to(&self, index: u16, before: u64) -> u64 {
        let program = self.program.as_ref();
        let sent = program.map_or(0, |program| program.sent_to(index));
        sent.saturating_sub(before)
    }
}

/// Whether a socket that the kernel refuses could be expected to be accepted: a server may close it
/// at any time.
pub(super) fn still_listens(socket: &OwnedFd) -> bool {
    matches!(inspect(socket), Ok(Inspected::Endpoint(_)))
}
