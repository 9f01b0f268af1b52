//! The launcher as its users run it: built once, started with a name and a runtime directory that
//! nobody else has.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    cgroup, eventually,
    process::{Finished, Process},
    status::Status,
};

/// The environment variables that would change what the launcher does.
const OUR_VARIABLES: [&str; 8] = [
    "GODEBUG",
    "LISTEN_FDS",
    "NOTIFY_SOCKET",
    "NO_COLOR",
    "RUST_LOG",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "WEB_CONCURRENCY",
];

/// Where launchers pin what outlives them.
const PINS: &str = "/sys/fs/bpf/reuseport-launch";

/// The binary, built by the cargo that runs this test, with the same profile.
///
/// # Panics
/// When it can't be built.
pub fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
        build(&["-p", "reuseport-launch", "--bin", "reuseport-launch"]).join("reuseport-launch")
    });
    &BINARY
}

/// One of these tests' own programs, an example of this package, built likewise.
///
/// # Panics
/// When it can't be built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    example_of("kernel-tests", name)
}

/// An example of this package of the workspace, built likewise.
///
/// # Panics
/// When it can't be built.
#[must_use]
pub fn example_of(package: &str, name: &str) -> PathBuf {
    build(&["-p", package, "--example", name])
        .join("examples")
        .join(name)
}

/// Builds this, and returns the directory of the profile.
fn build(target: &[&str]) -> PathBuf {
    // TARGET/PROFILE/deps/TEST-HASH
    let test = env::current_exe().expect("/proc is mounted");
    let profile_dir = test.ancestors().nth(2).expect("cargo's layout").to_owned();
    let target_dir = profile_dir.parent().expect("cargo's layout");
    let profile = match profile_dir.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet"])
        .args(target)
        .args(["--profile", profile])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .status()
        .expect("cargo runs this test, so it can be run");
    assert!(built.success(), "{target:?} does not build");
    profile_dir
}

/// A name and a runtime directory: what successive launchers of one fleet have in common.
/// Dropping it kills and removes whatever is left of the fleet.
#[derive(Debug)]
pub struct Site {
    name: String,
    runtime_dir: TempDir,
}

impl Site {
    /// A name that no other launcher on this machine has.
    ///
    /// # Panics
    /// When no directory can be made.
    #[must_use]
    pub fn new() -> Arc<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            name: format!("test-{}-{number}", process::id()),
            runtime_dir: tempfile::tempdir().expect("a temporary directory"),
        })
    }

    /// The launcher's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its socket and state are.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        self.runtime_dir.path()
    }

    /// The fleet's cgroup directory, which may not exist (any more). `None`: no cgroup v2 is
    /// mounted.
    #[must_use]
    pub fn cgroup(&self) -> Option<PathBuf> {
        cgroup::of_fleet(&self.name)
    }

    /// Runs another command line of the binary (`status`, `ls`, `stop` …) on this runtime
    /// directory.
    #[track_caller]
    pub fn control(&self, arguments: &[&str]) -> Finished {
        self.begin(arguments).finish()
    }

    /// The same, but does not wait for its end.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, arguments: &[&str]) -> Process {
        let mut command = self.command(binary().as_os_str());
        Process::spawn(command.args(arguments))
    }

    /// Checks that the launchers of this site have left nothing: no process, no cgroup, no socket,
    /// no state, no pinned map.
    ///
    /// # Panics
    /// When they have.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        let cgroup = self.cgroup().expect("the launcher has found it, too");
        assert!(!cgroup.exists(), "{} is left", cgroup.display());
        // The lock's file stays (see `sys::runtime::Lock`), and where the next run is to hold
        // connections, if there were any.
        let stays = ["lock", "listened"].map(|end| format!("{}.{end}", self.name));
        let left: Vec<_> = fs::read_dir(self.runtime_dir())
            .expect("the site's directory")
            .map(|entry| entry.expect("readable").file_name())
            .filter(|name| stays.iter().all(|stays| name != stays.as_str()))
            .collect();
        assert!(left.is_empty(), "{left:?} are left");
        assert_eq!(self.pins(), Vec::<PathBuf>::new());
    }

    /// The directories of pinned objects of this name.
    #[must_use]
    pub fn pins(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(PINS).into_iter().flatten().flatten();
        let prefix = format!("{}-", self.name);
        let ours = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| name.starts_with(&prefix))
        });
        ours.map(|entry| entry.path()).collect()
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        for name in OUR_VARIABLES {
            command.env_remove(name);
        }
        command.env("REUSEPORT_LAUNCH_RUNTIME_DIR", self.runtime_dir.path());
        command
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(dir) = self.cgroup() {
            cgroup::remove(&dir);
        }
        for dir in self.pins() {
            // A launcher that was just killed has no one else to do it.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

/// A launcher to be started: `Launch::of(servers::node(8080)).options(["--workers", "4"]).start()`.
#[derive(Debug)]
pub struct Launch {
    site: Arc<Site>,
    executable: OsString,
    wrapper: Vec<OsString>,
    options: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Launch {
    /// Of this command, at a site of its own.
    #[must_use]
    pub fn of<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            site: Site::new(),
            executable: binary().into(),
            wrapper: Vec::new(),
            options: Vec::new(),
            command: command.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }

    /// With these options, besides `--name`.
    #[must_use]
    pub fn options<S: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        let options = options.into_iter().map(|option| option.as_ref().to_owned());
        self.options.extend(options);
        self
    }

    /// With this environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With the name and the runtime directory of another one.
    #[must_use]
    pub fn at(mut self, site: &Arc<Site>) -> Self {
        self.site = Arc::clone(site);
        self
    }

    /// Through a program that in the end executes the launcher in its place (`setpriv …`), so that
    /// its pid is the launcher's.
    #[must_use]
    pub fn through<S: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// From this copy of the binary.
    #[must_use]
    pub fn executable(mut self, executable: &Path) -> Self {
        self.executable = executable.into();
        self
    }

    /// Starts it, and returns at once.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Launcher {
        let Self {
            site,
            executable,
            wrapper,
            options,
            command,
            environment,
        } = self;
        let mut line = wrapper;
        line.push(executable);
        line.extend(["--name".into(), site.name.clone().into()]);
        line.extend(options);
        line.push("--".into());
        line.extend(command);
        let (program, arguments) = line.split_first().expect("the binary at least");
        let mut command = site.command(program);
        let process = Process::spawn(command.args(arguments).envs(environment));
        Launcher { process, site }
    }

    /// Starts it, and waits until all its workers are ready.
    #[must_use]
    #[track_caller]
    pub fn ready(self) -> Launcher {
        let launcher = self.start();
        launcher.ready();
        launcher
    }

    /// Starts one that is to end by itself, and waits for that.
    #[track_caller]
    pub fn run(self) -> Finished {
        let Launcher { process, site } = self.start();
        let finished = process.finish();
        drop(site);
        finished
    }
}

/// A launcher that was started. Dropping it kills it and its workers.
#[derive(Debug)]
pub struct Launcher {
    /// Its process: output and signals.
    pub process: Process,
    /// Its name and runtime directory. After the process, so that it is dropped after it.
    pub site: Arc<Site>,
}

impl Launcher {
    /// Waits for the startup line, which is printed once every worker is ready, and returns it.
    #[track_caller]
    pub fn ready(&self) -> String {
        self.process
            .wait_for("the startup line", |line| line.contains(" · steer "))
    }

    /// What `status --json` prints.
    ///
    /// # Panics
    /// When it fails or prints anything but one JSON object.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Status {
        self.try_status()
            .unwrap_or_else(|error| panic!("status: {error}"))
    }

    /// Waits until there is a status, and it is as `wanted`, and returns it. A launcher that starts
    /// has none yet.
    #[track_caller]
    pub fn status_when(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            self.try_status().ok().filter(|status| wanted(status))
        })
    }

    #[track_caller]
    fn try_status(&self) -> Result<Status, String> {
        let Finished {
            status,
            stdout,
            stderr,
        } = self.site.control(&["status", self.site.name(), "--json"]);
        if !status.success() {
            return Err(stderr);
        }
        let value = serde_json::from_str(&stdout);
        let value =
            value.unwrap_or_else(|error| panic!("status prints no JSON ({error}): {stdout}"));
        Ok(Status(value))
    }

    /// Runs a verb on it, such as `scale 4`, and waits for its end.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> Finished {
        self.begin(words).finish()
    }

    /// The same, but does not wait for its end.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, words: &[&str]) -> Process {
        let arguments: Vec<&str> = words.iter().copied().chain([self.site.name()]).collect();
        self.site.begin(&arguments)
    }

    /// Runs a verb that is to succeed, and to have nothing to say.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) {
        assert_eq!(self.verb(words).success(), "", "{words:?}");
    }

    /// Runs a verb that is to fail for this reason.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn refuses(&self, words: &[&str], why: &str) {
        self.verb(words).assert_error(1, why);
    }

    /// Replaces its workers, one after the other.
    #[track_caller]
    pub fn reload(&self) {
        self.ask(&["reload"]);
    }

    /// Changes the number of its workers.
    #[track_caller]
    pub fn scale(&self, workers: u32) {
        self.ask(&["scale", &workers.to_string()]);
    }

    /// Waits until a worker of this slot and generation is ready.
    #[track_caller]
    pub fn replaced(&self, slot: u32, generation: u64) -> Status {
        self.status_when("the replacement", |status| {
            status.is_ready(slot, generation)
        })
    }

    /// Sends it a signal, and waits until it has ended.
    #[track_caller]
    pub fn end(self, signal: Signal) -> (Finished, Arc<Site>) {
        self.process.signal(signal);
        let Self { process, site } = self;
        (process.finish(), site)
    }

    /// Stops it with TERM, and checks that it ends well and leaves nothing.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn stop_clean(self) {
        let (finished, site) = self.end(Signal::SIGTERM);
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        site.assert_nothing_left();
    }

    /// Waits until the groups together have this many members: a worker is ready with its first
    /// socket, and may open more.
    #[track_caller]
    pub fn members(&self, count: u64) -> Status {
        self.status_when("every socket to be a member", |status| {
            let members = status
                .groups()
                .iter()
                .filter_map(|group| group["members"].as_u64());
            members.sum::<u64>() == count
        })
    }

    /// Stops it with TERM, waits for its end and returns its exit code.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait();
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}
