//! Starting a worker's process, and reaping.

use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    mem,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{
    io::{Errno, FdFlags, fcntl_setfd},
    process::{
        Resource, Rlimit, Signal, WaitOptions, chdir, getrlimit, set_parent_process_death_signal,
        setrlimit,
    },
    thread::{CpuSet, sched_setaffinity},
};

use super::{cgroup::WorkerCgroup, identity::Identity};
use crate::failure::{Failure, MORE_FILES};

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The program's path, from [`find_program`](super::program::find_program).
    pub program: &'a Path,
    /// The arguments; the first is the program's own name.
    pub arguments: &'a [OsString],
    /// The whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// The directory it starts in; entered as who we are, not as who it runs as.
    pub directory: &'a Path,
    /// The cgroup that the process joins before it runs the program.
    pub cgroup: &'a WorkerCgroup,
    /// The CPUs it may use; all that we may use when `None`.
    pub cpus: Option<&'a [u32]>,
    /// Who it runs as; like us when `None`.
    pub identity: Option<&'a Identity>,
    /// How many files it may open: what we were given, from [`raise_file_limit`].
    pub file_limit: Rlimit,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
    /// Its end of an IPC channel as Node's `fork` makes it: `NODE_CHANNEL_FD` will name it, and say
    /// that messages are lines of JSON.
    pub ipc: Option<OwnedFd>,
}

/// The steps between fork and exec, in order; what a child reports when one fails.
const STEPS: [&str; 8] = [
    "joining its cgroup",
    ENTERING,
    "passing on its IPC channel",
    "setting its file limit",
    "setting its CPUs",
    "setting its groups",
    "setting its user",
    "tying it to the launcher",
];

/// The step of which more is said.
const ENTERING: &str = "entering its directory";

/// Starts a process in its own process group, with `/dev/null` as standard input, and returns its
/// pid, which is not recycled before [`reap`] has returned it.
///
/// # Errors
/// A sentence that names the step that failed: fork, one of [`STEPS`], or exec.
pub fn spawn(launch: Launch<'_>) -> io::Result<u32> {
    let Launch {
        program,
        arguments,
        environment,
        directory,
        cgroup,
        cpus,
        identity,
        file_limit,
        stdout,
        stderr,
        ipc,
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
    if let Some(ipc) = &ipc {
        command
            .env("NODE_CHANNEL_FD", ipc.as_raw_fd().to_string())
            .env("NODE_CHANNEL_SERIALIZATION_MODE", "json");
    }
    // std reports only an errno, which would leave exec's and ours indistinguishable.
    let (mut failed_step, report) = io::pipe()?;
    let procs = cgroup.procs().map(File::try_clone).transpose()?;
    // No later launcher would find it.
    let tied = cgroup.is_shared();
    let cpus = cpus.map(|cpus| {
        let mut set = CpuSet::new();
        for &cpu in cpus {
            set.set(cpu as usize);
        }
        set
    });
    let identity = identity.cloned();
    let to = CString::new(directory.as_os_str().as_bytes())?;
    let prepare = move || {
        let steps: [&dyn Fn() -> io::Result<()>; STEPS.len()] = [
            &|| {
                procs
                    .as_ref()
                    .map_or(Ok(()), |mut procs| procs.write_all(b"0"))
            },
            &|| Ok(chdir(&*to)?),
            // In the child only: no other process that is started meanwhile gets it.
            &|| {
                ipc.as_ref()
                    .map_or(Ok(()), |fd| Ok(fcntl_setfd(fd, FdFlags::empty())?))
            },
            &|| Ok(setrlimit(Resource::Nofile, file_limit)?),
            &|| {
                cpus.as_ref()
                    .map_or(Ok(()), |set| Ok(sched_setaffinity(None, set)?))
            },
            &|| identity.as_ref().map_or(Ok(()), Identity::assume_groups),
            &|| identity.as_ref().map_or(Ok(()), Identity::assume_user),
            // After that, which would undo it (prctl(2)).
            &|| match tied {
                true => Ok(set_parent_process_death_signal(Some(Signal::KILL))?),
                false => Ok(()),
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
    // nothing but plain system calls (write, chdir, fcntl, setrlimit, sched_setaffinity, setgroups,
    // setresgid, setresuid, prctl), on memory that was allocated before the fork. glibc's set*id would have
    // other threads follow, but the child of a fork has none.
    unsafe { command.pre_exec(prepare) };
    match command.spawn() {
        Ok(child) => Ok(child.id()),
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
            let during = match during {
                ENTERING => format!("entering its directory {}", directory.display()),
                _ => during.to_owned(),
            };
            Err(io::Error::new(
                error.kind(),
                format!("{during} failed: {error}"),
            ))
        }
    }
}

/// How many files the launcher needs open, whatever the number of workers.
const FILES: u64 = 64;

/// And how many more for each worker: its cgroup, its pipes, its IPC channel or notification socket,
/// the handle of its process, what waits for these, and what a start needs for a moment.
const FILES_PER_WORKER: u64 = 8;

/// Raises our own limit of open files as far as it goes, because each worker costs us a handful of
/// them, and returns what it was, which is what the workers get.
///
/// # Errors
/// When so many workers can't be had with what is allowed.
pub fn raise_file_limit(workers: u32) -> Result<Rlimit, Failure> {
    let given = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: given.maximum,
        ..given
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => given.maximum,
        Err(_) => given.current,
    };
    let needed = files_needed(workers);
    match limit {
        Some(limit) if limit < needed => Err(Failure::new(
            format!("cannot run {workers} workers"),
            format_args!("only {limit} files may be open at once, and about {needed} are needed"),
            MORE_FILES,
        )),
        _ => Ok(given),
    }
}

/// About how many files a launcher of so many workers has open at once.
#[must_use]
pub fn files_needed(workers: u32) -> u64 {
    FILES + FILES_PER_WORKER * u64::from(workers)
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
        // Not nix's, which fails after the child is gone when a real-time signal has killed it.
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let status = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Ok(code),
                    (None, Some(signal)) => Err(signal),
                    // Stopped or continued, which was not asked for.
                    (None, None) => continue,
                };
                ended.push(Ended {
                    pid: pid.as_raw_pid().unsigned_abs(),
                    status,
                });
            }
            Err(Errno::INTR) => {}
            // Nobody (more) has ended, or there are no children.
            Ok(None) | Err(_) => return ended,
        }
    }
}

/// How a process that is no child of ours has ended: its exit code, or the signal that killed it.
///
/// `None` where its parent has not reaped it with `patience` (`poll` tells that by `POLLHUP`, after
/// the `POLLIN` of its end), and where the kernel does not say (before Linux 6.15).
#[must_use]
pub fn exit_status(pidfd: &impl AsFd, patience: Duration) -> Option<Result<i32, i32>> {
    // Told whether it is asked for or not (poll(2)).
    let mut reaped = [PollFd::new(pidfd.as_fd(), PollFlags::empty())];
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    // Also when that takes too long, the kernel is asked.
    let _ = poll(&mut reaped, patience);
    // SAFETY: plain data, for which zeros are valid.
    let mut info: libc::pidfd_info = unsafe { mem::zeroed() };
    info.mask = libc::PIDFD_INFO_EXIT.into();
    // SAFETY: this request reads and writes a `pidfd_info`, whose size is part of its number, and
    // which outlives the call.
    let result = unsafe {
        libc::ioctl(
            pidfd.as_fd().as_raw_fd(),
            libc::PIDFD_GET_INFO,
            &raw mut info,
        )
    };
    // The mask comes back with what the kernel has filled in.
    if result != 0 || info.mask & u64::from(libc::PIDFD_INFO_EXIT) == 0 {
        return None;
    }
    let status = ExitStatus::from_raw(info.exit_code);
    match (status.code(), status.signal()) {
        (Some(code), _) => Some(Ok(code)),
        (None, Some(signal)) => Some(Err(signal)),
        (None, None) => None,
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

/// Whether a process is our child: whether [`reap`] will tell of its end.
#[must_use]
pub fn is_child(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have any character; what follows it does not.
    let parent = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(1));
    parent.and_then(|parent| parent.parse().ok()) == Some(std::process::id())
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

#[cfg(test)]
mod tests {
    use std::{fs, io::pipe, os::unix::net::UnixStream};

    use rustix::{
        fs::fstat,
        process::{Pid, PidfdFlags, pidfd_open},
    };

    use super::*;
    use crate::sys::cgroup::FleetCgroup;

    /// Starts a shell script in `directory`, and returns what it writes, when it has ended.
    fn run(script: &str, directory: &Path, ipc: Option<OwnedFd>) -> io::Result<String> {
        // No cgroup: joining one is to write to a file.
        let place = tempfile::tempdir()?;
        fs::create_dir(place.path().join("worker"))?;
        fs::write(place.path().join("worker/cgroup.procs"), "")?;
        let cgroups = FleetCgroup::lock(place.path().to_owned())?.workers()?;
        let (mut output, stdout) = pipe()?;
        let pid = spawn(Launch {
            program: Path::new("/bin/sh"),
            arguments: &["sh", "-c", script].map(OsString::from),
            environment: &[("NODE_CHANNEL_FD".into(), "not this one".into())],
            directory,
            cgroup: &cgroups[0],
            cpus: None,
            identity: None,
            file_limit: getrlimit(Resource::Nofile),
            stdout: stdout.into(),
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
            ipc,
        })?;
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        let pid = Pid::from_raw(pid.cast_signed());
        rustix::process::waitpid(pid, WaitOptions::empty())?;
        Ok(text)
    }

    #[test]
    fn a_process_starts_in_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().canonicalize().expect("there");
        let shown = run("pwd -P", &path, None).expect("started");
        assert_eq!(shown.trim_end(), path.to_str().expect("text"));
    }

    #[test]
    fn a_directory_that_is_gone_is_named() {
        let gone = Path::new("/nonexistent/current");
        let error = run("true", gone, None).expect_err("no such directory");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            "entering its directory /nonexistent/current failed: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_process_gets_its_end_of_the_channel_and_nobody_else_has_it() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let inode = fstat(&theirs).expect("open").st_ino;
        let script = "echo $NODE_CHANNEL_SERIALIZATION_MODE
                      readlink /proc/self/fd/$NODE_CHANNEL_FD";
        let shown = run(script, Path::new("/"), Some(theirs.into())).expect("started");
        assert_eq!(shown, format!("json\nsocket:[{inode}]\n"));
        // The end of the stream, because the process has ended.
        assert_eq!(ours.read(&mut [0]).expect("readable"), 0);
    }

    #[test]
    fn how_a_process_has_ended_is_told_once_it_is_reaped() {
        for (script, expected) in [("exit 3", Ok(3)), ("kill -9 $$", Err(9))] {
            let mut child = Command::new("/bin/sh")
                .args(["-c", &format!("read _; {script}")])
                .stdin(Stdio::piped())
                .spawn()
                .expect("started");
            let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a handle");
            assert_eq!(exit_status(&pidfd, Duration::ZERO), None);
            child.wait().expect("ended");
            // Closed by `wait`, which ends the script's `read`.
            let told = exit_status(&pidfd, Duration::ZERO);
            // A kernel before 6.15 says nothing.
            assert!(
                told == Some(expected) || told.is_none() && !tells_exits(),
                "{told:?}"
            );
        }
    }

    /// Whether this kernel is Linux 6.15 or later.
    fn tells_exits() -> bool {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let mut numbers = release
            .split(['.', '-'])
            .map(|number| number.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(6), Some(15))
    }
}
