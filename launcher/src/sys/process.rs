//! Starting a worker's process, and reaping.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::{Gid, Group, Pid, Uid, User, getgrouplist, setgroups, setresgid, setresuid},
};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{
    failure::{Exit, Failure},
    sys::cgroup::{WorkerCgroup, open_pidfd},
};

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

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program's path, from [`find_program`].
    pub program: &'a Path,
    /// The arguments; the first is the program's own name.
    pub arguments: &'a [OsString],
    /// The whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// The cgroup that the process joins before it runs the program.
    pub cgroup: &'a WorkerCgroup,
    /// The CPUs it may use; all that we may use when `None`.
    pub cpus: Option<&'a [u32]>,
    /// Who it runs as; like us when `None`.
    pub identity: Option<&'a Identity>,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

/// A started process.
#[derive(Debug)]
pub struct Process {
    /// Its pid: not recycled before [`reap`] has returned it.
    pub pid: u32,
    /// A handle that can't come to mean another process.
    pub pidfd: OwnedFd,
}

/// The steps between fork and exec, in order; what a child reports when one fails.
const STEPS: [&str; 4] = [
    "joining its cgroup",
    "setting its CPUs",
    "setting its groups",
    "setting its user",
];

/// Starts a process in its own process group, with `/dev/null` as standard input.
///
/// # Errors
/// A sentence that names the step that failed: fork, one of [`STEPS`], or exec.
pub fn spawn(launch: Launch<'_>) -> io::Result<Process> {
    let Launch {
        program,
        arguments,
        environment,
        cgroup,
        cpus,
        identity,
        stdout,
        stderr,
    } = launch;
    let mut command = Command::new(program);
    if let Some((name, arguments)) = arguments.split_first() {
        command.arg0(name).args(arguments);
    }
    command
        .env_clear()
        .envs(environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // A Ctrl-C of the terminal must not reach it: the stop signal comes from us, once.
        .process_group(0);
    // std reports only an errno, which would leave exec's and ours indistinguishable.
    let (mut failed_step, report) = io::pipe()?;
    let procs = cgroup.procs().try_clone()?;
    let cpus = cpus.map(|cpus| {
        let mut set = CpuSet::new();
        for &cpu in cpus {
            set.set(cpu as usize);
        }
        set
    });
    let identity = identity.cloned();
    let prepare = move || {
        let steps: [&dyn Fn() -> io::Result<()>; STEPS.len()] = [
            &|| (&procs).write_all(b"0"),
            &|| {
                cpus.as_ref()
                    .map_or(Ok(()), |set| Ok(sched_setaffinity(None, set)?))
            },
            &|| {
                identity.as_ref().map_or(Ok(()), |identity| {
                    setgroups(&identity.groups)?;
                    Ok(setresgid(identity.gid, identity.gid, identity.gid)?)
                })
            },
            &|| {
                identity
                    .as_ref()
                    .and_then(|identity| identity.uid)
                    .map_or(Ok(()), |uid| Ok(setresuid(uid, uid, uid)?))
            },
        ];
        for (number, step) in steps.iter().enumerate() {
            if let Err(error) = step() {
                let _ = (&report).write_all(&[number as u8]);
                return Err(error);
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are made: the closure does
    // nothing but plain system calls (write, sched_setaffinity, setgroups, setresgid, setresuid),
    // on memory that was allocated before the fork. We are single-threaded besides, and nix makes
    // the raw calls (glibc's set*id would signal other threads, of which there are none).
    unsafe { command.pre_exec(prepare) };
    match command.spawn() {
        Ok(child) => Ok(Process {
            pid: child.id(),
            pidfd: open_pidfd(child.id())?,
        }),
        Err(error) => {
            // Drops the closure and with it our end of the pipe, so that the read below ends.
            drop(command);
            let mut step = [0];
            let during = match failed_step.read(&mut step) {
                Ok(1) => STEPS
                    .get(usize::from(step[0]))
                    .copied()
                    .unwrap_or("preparing it"),
                _ => "fork and exec",
            };
            Err(io::Error::new(
                error.kind(),
                format!("{during} failed: {error}"),
            ))
        }
    }
}

/// Finds the program that a command names, as `execvp` would: by `PATH` unless it has a slash.
///
/// # Errors
/// [`Exit::NotFound`] or [`Exit::NotExecutable`].
pub fn find_program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let shown = name.to_string_lossy();
    let not_found = |why: String| {
        Failure::new(
            format!("cannot run {shown}"),
            why,
            "check the command after --; a script in this directory needs ./ before its name",
        )
        .exit(Exit::NotFound)
    };
    let candidates: Vec<PathBuf> = if name.as_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else {
        std::env::split_paths(path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin")))
            .map(|dir| dir.join(name))
            .collect()
    };
    let mut refused = None;
    for candidate in candidates {
        let Ok(metadata) = candidate.metadata() else {
            continue;
        };
        if metadata.is_file()
            && nix::unistd::access(&candidate, nix::unistd::AccessFlags::X_OK).is_ok()
        {
            return Ok(candidate);
        }
        let why = if metadata.is_dir() {
            "is a directory"
        } else {
            "is not executable"
        };
        refused.get_or_insert(format!("{} {why}", candidate.display()));
    }
    match refused {
        Some(why) => Err(Failure::new(
            format!("cannot run {shown}"),
            why,
            "make it executable (chmod +x), or name its interpreter: -- python3 script.py",
        )
        .exit(Exit::NotExecutable)),
        None if name.as_bytes().contains(&b'/') => Err(not_found("there is no such file".into())),
        None => Err(not_found("no directory in PATH has it".into())),
    }
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid, free from now on.
    pub pid: u32,
    /// Its exit code, or the signal that killed it.
    pub status: Result<i32, i32>,
}

/// Collects every child that has ended, strangers that were re-parented to us included.
#[must_use]
pub fn reap() -> Vec<Ended> {
    let mut ended = Vec::new();
    loop {
        let (pid, status) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Ok(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Err(signal as i32)),
            Err(nix::errno::Errno::EINTR) => continue,
            // Nobody (more) has ended, or there are no children.
            _ => return ended,
        };
        ended.push(Ended {
            pid: pid.as_raw().unsigned_abs(),
            status,
        });
    }
}

/// Makes orphans among our descendants our children, so that they are reaped and their worker's
/// end is noticed (PID 1 of a container is that anyway).
///
/// # Errors
/// Those of `prctl(PR_SET_CHILD_SUBREAPER)`.
pub fn become_subreaper() -> io::Result<()> {
    // Any pid means "on" (prctl(2)).
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// The command line of a process, for messages; its pid alone when it is gone or hidden.
#[must_use]
pub fn describe(pid: u32) -> String {
    let mut line = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(4096).read_to_end(&mut line));
    let words: Vec<_> = line
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    if read.is_err() || words.is_empty() {
        return format!("pid {pid}");
    }
    format!("pid {pid} ({})", words.join(" "))
}

/// Whether a file descriptor is a terminal.
#[must_use]
pub fn is_terminal(fd: &impl std::os::fd::AsFd) -> bool {
    nix::unistd::isatty(fd.as_fd()).unwrap_or(false)
}
