//! Making a worker's socket a member of its group.

use std::os::fd::OwnedFd;

use launcher_common::{HOLD, MEMBERS_MAX};
use tracing::debug;

use super::{
    Steering,
    group::{Group, Member, still_listens},
    program::Program,
    remember::RememberedMember,
};
use crate::{
    failure::Failure,
    policy::Policy,
    sys::{listeners::Endpoint, privilege::ebpf_failure},
    worker::WorkerId,
};

impl Steering {
    /// Makes a worker's socket, which belongs to `uid`, a member of its group, which is created if
    /// it is the first. The copy of the socket is closed by [`Steering::close_copies`] at the
    /// latest. False: the server has closed the socket meanwhile.
    ///
    /// # Errors
    /// When the program can't be loaded, the group is full, or the kernel refuses the socket.
    pub fn adopt(
        &mut self,
        worker: WorkerId,
        cookie: u64,
        endpoint: &Endpoint,
        uid: u32,
        socket: OwnedFd,
    ) -> Result<bool, Failure> {
        if !self.groups.contains_key(endpoint) {
            let policy = self.policy(endpoint.protocol);
            let steered = policy != Policy::Kernel;
            let loaded = steered
                .then(|| self.take_program(endpoint.protocol))
                .transpose()?;
            let group = self.group(endpoint, policy, uid, loaded)?;
            self.groups.insert(endpoint.clone(), group);
        }
        let Some(group) = self.groups.get_mut(endpoint) else {
            return Ok(false);
        };
        if group.members.values().any(|member| member.cookie == cookie) {
            return Ok(true);
        }
        let account = self.account.as_ref();
        let seat = account.map_or(0, |account| account.seat_of(worker));
        let known = group.remembered.iter().position(|was| was.cookie == cookie);
        let (index, member) = if let Some(known) = known {
            let was = group.remembered.swap_remove(known);
            let member = group.recognise(worker, &was, seat);
            if let Some(program) = &group.program {
                let told = program.hint(was.index);
                self.hints.entry(worker).or_insert(told);
            }
            (was.index, member)
        } else {
            let hint = self.hints.get(&worker).copied().unwrap_or(0);
            let Some((index, mut member)) = group.place(worker, cookie, hint, endpoint, &socket)?
            else {
                return Ok(false);
            };
            member.seat = seat;
            if self.whole.contains(&worker)
                && let Some(books) = group.counted_books()
            {
                // Without room for it, what moves from there stays counted where it was.
                member.listed = books.list(cookie, seat).is_ok();
                debug!("all connections of worker {worker} on {endpoint} are counted");
            }
            (index, member)
        };
        self.unlisted |= !member.listed && group.counted_books().is_some();
        if group.members.is_empty() {
            group.uid = uid;
        }
        if group.program.is_some() {
            group.unattached.push(socket);
        } else {
            // There may be one on a socket that listened before the policy became `kernel`, and was
            // not known then.
            let _ = Program::detach(&socket);
        }
        group.places = group.places.max(index + 1);
        group.members.insert(index, member);
        if group.remembered.is_empty() {
            if self.gathering && group.only_grows(&self.aim) {
                group.due = true;
            } else {
                self.handed_over |= group.steer(endpoint, &self.aim, &self.own)?;
            }
        }
        Ok(true)
    }
}

impl Group {
    /// Makes a member of an earlier launcher's what it was.
    fn recognise(&mut self, worker: WorkerId, was: &RememberedMember, seat: u16) -> Member {
        let books = self.counted_books();
        Member {
            worker,
            cookie: was.cookie,
            seat,
            before: was.before,
            listed: books.is_some_and(|books| books.is_listed(was.cookie)),
        }
    }

    /// Finds a place for a member in the socket array. `None`: the server has closed the socket
    /// meanwhile.
    fn place(
        &mut self,
        worker: WorkerId,
        cookie: u64,
        hint: u64,
        endpoint: &Endpoint,
        socket: &OwnedFd,
    ) -> Result<Option<(u16, Member)>, Failure> {
        let what = || format!("cannot steer to worker {worker} on {endpoint}");
        let free = |index: u16| {
            !self.members.contains_key(&index)
                && self.remembered.iter().all(|was| was.index != index)
        };
        let Some(index) = (0..HOLD).find(|&index| free(index)) else {
            return Err(Failure::new(
                what(),
                format_args!("the group has its {MEMBERS_MAX} members already"),
                "start fewer workers, or make the server open fewer sockets on this port",
            ));
        };
        let mut before = 0;
        if let Some(program) = &mut self.program {
            if let Err(error) = program.set_member(index, socket) {
                if !still_listens(socket) {
                    return Ok(None);
                }
                return Err(ebpf_failure(what(), &error));
            }
            before = program.sent_to(index);
            // Its place may have been another worker's.
            let hinted = program.set_hint(index, hint);
            hinted.map_err(|error| ebpf_failure(what(), &error))?;
        }
        let member = Member {
            worker,
            cookie,
            seat: 0,
            before,
            listed: false,
        };
        Ok(Some((index, member)))
    }
}
