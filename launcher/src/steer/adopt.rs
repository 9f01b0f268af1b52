//! Making a worker's socket a member of its group.

use std::os::fd::OwnedFd;

use launcher_common::MEMBERS_MAX;

use super::{
    Steering,
    account::Books,
    counting::cannot_count,
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
        let known = group.remembered.iter().position(|was| was.cookie == cookie);
        let (index, member) = if let Some(known) = known {
            let was = group.remembered.swap_remove(known);
            let member = group.recognise(worker, &was, endpoint, &socket)?;
            if let Some(program) = &group.program {
                let told = program.hint(was.index);
                self.hints.entry(worker).or_insert(told);
            }
            (was.index, member)
        } else {
            let hint = self.hints.get(&worker).copied().unwrap_or(0);
            match group.place(worker, cookie, hint, endpoint, &socket)? {
                Some(placed) => placed,
                None => return Ok(false),
            }
        };
        self.unlisted |= !member.listed && group.books().is_some_and(Books::are_open);
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
    fn recognise(
        &self,
        worker: WorkerId,
        was: &RememberedMember,
        endpoint: &Endpoint,
        socket: &OwnedFd,
    ) -> Result<Member, Failure> {
        let mut listed = false;
        if let Some(books) = self.books() {
            let tagged = books.tag(socket, was.index);
            listed = tagged.map_err(|error| cannot_count(endpoint, &error))?
                && books.is_listed(was.cookie);
        }
        Ok(Member {
            worker,
            cookie: was.cookie,
            before: was.before,
            listed,
        })
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
        let Some(index) = self.free_place(free) else {
            return Err(Failure::new(
                what(),
                format_args!("the group has its {MEMBERS_MAX} members already"),
                "start fewer workers, or make the server open fewer sockets on this port",
            ));
        };
        // First, so that all that begins there is counted.
        if let Some(books) = self.books()
            && let Err(error) = books.tag(socket, index)
            && still_listens(socket)
        {
            return Err(cannot_count(endpoint, &error));
        }
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
            before,
            listed: false,
        };
        Ok(Some((index, member)))
    }
}
