//! Who a worker runs as.

use std::{
    ffi::{CString, OsString},
    io,
};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setgroups, setresgid, setresuid};

use crate::failure::{Exit, Failure};

/// Who a worker runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Option<Uid>,
    gid: Gid,
    groups: Vec<Gid>,
    /// `HOME`, `USER` and `LOGNAME` of that user.
    pub environment: Vec<(OsString, OsString)>,
}

impl Identity {
    /// Looks up `--user` and `--group` (names or numbers). A user brings its primary and
    /// supplementary groups; a group replaces the primary one.
    ///
    /// # Errors
    /// When one is unknown, or when we are not root and so can't become somebody else.
    pub fn resolve(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Failure> {
        let identity = Self::look_up(user, group)?;
        let none = |id: u32| id == u32::MAX;
        if let Some(Self { uid, gid, .. }) = &identity
            && (uid.is_some_and(|uid| none(uid.as_raw())) || none(gid.as_raw()))
        {
            // The kernel takes it for "leave it as it is": the workers would stay root.
            return Err(Failure::new(
                format!("cannot use {} as a user or group", u32::MAX),
                "that number means none",
                "name a user or group, or give a smaller number",
            )
            .exit(Exit::Usage));
        }
        Ok(identity)
    }

    fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Failure> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        if !Uid::effective().is_root() {
            return Err(Failure::new(
                "cannot run workers as another user or group",
                "only root can change them",
                "run as root, or leave out --user and --group",
            )
            .exit(Exit::Usage));
        }
        let unknown = |kind: &str, name: &str| {
            Failure::new(
                format!("cannot use --{kind} {name}"),
                format_args!("this machine has no {kind} of that name or number"),
                format!(
                    "name one that `getent {}` lists",
                    if kind == "user" { "passwd" } else { "group" }
                ),
            )
            .exit(Exit::Usage)
        };
        let group = match group {
            None => None,
            Some(name) => Some(
                lookup_group(name)
                    .map(|group| group.gid)
                    .or_else(|| name.parse().ok().map(Gid::from_raw))
                    .ok_or_else(|| unknown("group", name))?,
            ),
        };
        let Some(name) = user else {
            let gid = group.unwrap_or_else(Gid::effective);
            return Ok(Some(Self {
                uid: None,
                gid,
                groups: vec![gid],
                environment: Vec::new(),
            }));
        };
        let Some(user) = lookup_user(name) else {
            // A number without an entry in the user database is fine: containers do that.
            let uid = name.parse().map_err(|_| unknown("user", name))?;
            let gid = group.unwrap_or_else(|| Gid::from_raw(uid));
            return Ok(Some(Self {
                uid: Some(Uid::from_raw(uid)),
                gid,
                groups: vec![gid],
                environment: Vec::new(),
            }));
        };
        let gid = group.unwrap_or(user.gid);
        let groups = CString::new(user.name.as_str())
            .ok()
            .and_then(|name| getgrouplist(&name, gid).ok())
            .unwrap_or_else(|| vec![gid]);
        Ok(Some(Self {
            uid: Some(user.uid),
            gid,
            groups,
            environment: vec![
                ("HOME".into(), user.dir.into_os_string()),
                ("USER".into(), user.name.clone().into()),
                ("LOGNAME".into(), user.name.into()),
            ],
        }))
    }

    /// The user and the group that files for the workers belong to.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        let user = self.uid.unwrap_or_else(Uid::effective);
        (user.as_raw(), self.gid.as_raw())
    }

    /// Whether workers run as another user than we do, whose processes we may look into only with a
    /// privilege.
    #[must_use]
    pub fn is_other_user(&self) -> bool {
        self.uid.is_some_and(|uid| uid != Uid::effective())
    }

    /// Takes on the groups. Makes nothing but system calls, so it may be called after a fork.
    pub(super) fn assume_groups(&self) -> io::Result<()> {
        setgroups(&self.groups)?;
        Ok(setresgid(self.gid, self.gid, self.gid)?)
    }

    /// Takes on the user, after which nothing can be taken back. Makes nothing but system calls.
    pub(super) fn assume_user(&self) -> io::Result<()> {
        match self.uid {
            Some(uid) => Ok(setresuid(uid, uid, uid)?),
            None => Ok(()),
        }
    }
}

fn lookup_user(name: &str) -> Option<User> {
    match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)).ok().flatten(),
        Err(_) => User::from_name(name).ok().flatten(),
    }
}

fn lookup_group(name: &str) -> Option<Group> {
    match name.parse() {
        Ok(gid) => Group::from_gid(Gid::from_raw(gid)).ok().flatten(),
        Err(_) => Group::from_name(name).ok().flatten(),
    }
}
