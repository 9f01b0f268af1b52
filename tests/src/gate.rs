//! What a test needs of the machine. A test that can't run says so loudly, and fails where
//! `REUSEPORT_LAUNCH_REQUIRE_KERNEL_TESTS` is set, as it is in continuous integration.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::say;

/// Set to anything but the empty string: a test that can't run fails.
pub const REQUIRE: &str = "REUSEPORT_LAUNCH_REQUIRE_KERNEL_TESTS";

/// CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF, by their bits (capabilities(7)).
const CAPABILITIES: [(&str, u32); 3] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_BPF", 39),
];

/// The calling thread's network namespace, new and with only `lo` in it. The processes that the
/// thread starts inherit it, so each test has all ports to itself.
#[derive(Debug)]
pub struct Netns(());

/// Checks that this test can run, and gives its thread a network namespace. `programs` are the
/// programs it runs. `None`: the test is skipped, and should return.
///
/// # Panics
/// When it can't run and [`REQUIRE`] is set, or when the namespace can't be set up.
#[must_use]
pub fn enter(programs: &[&str]) -> Option<Netns> {
    if let Some(why) = missing(programs) {
        skip(&why);
        return None;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("CAP_SYS_ADMIN was checked");
    let up = Command::new(path_of("ip"))
        .args(["link", "set", "lo", "up"])
        .status()
        .expect("ip was found");
    assert!(up.success(), "cannot bring up lo");
    Some(Netns(()))
}

/// Says that this test is skipped, and why.
///
/// # Panics
/// When [`REQUIRE`] is set.
pub fn skip(why: &str) {
    let thread = thread::current();
    let line = format!("SKIPPED ({why}): {}", thread.name().unwrap_or("?"));
    assert!(
        env::var_os(REQUIRE).is_none_or(|value| value.is_empty()),
        "{line}, although {REQUIRE} is set"
    );
    say(&line);
}

fn missing(programs: &[&str]) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    for (name, bit) in CAPABILITIES {
        if effective & (1 << bit) == 0 {
            return Some(format!("needs root with {name}"));
        }
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.contains("cgroup2") {
        return Some("needs a kernel with cgroup v2".to_owned());
    }
    let missing = ["ip"]
        .iter()
        .chain(programs)
        .find(|name| program(name).is_none())?;
    Some(format!("needs {missing}: cargo xtask setup"))
}

/// Finds a program. The system's own directories come first: a version manager's stand-ins (pyenv,
/// nvm) can't be run by other users, and start slowly.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    system
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

/// The path of a program that [`enter`] was asked for.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn path_of(name: &str) -> String {
    let found = program(name).unwrap_or_else(|| panic!("{name} was not asked for in gate::enter"));
    found
        .to_str()
        .expect("program directories have UTF-8 names")
        .to_owned()
}

/// Runs a program for which every `bpf` call fails: the words before its own. (`strace` has to be asked
/// for.)
#[must_use]
pub fn bpf_fails(errno: &str) -> Vec<String> {
    let inject = format!("inject=bpf:error={errno}");
    let strace = path_of("strace");
    [
        &strace,
        "-f",
        "-o",
        "/dev/null",
        "-e",
        "trace=bpf",
        "-e",
        &inject,
    ]
    .map(str::to_owned)
    .into()
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
