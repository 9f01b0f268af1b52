//! The launcher's executable replaced by another version: one that works, and some that do not.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use kernel_tests::{
    eventually, gate,
    launcher::{Launch, Launcher, binary},
    load::OpenLoad,
    procfs::{self, Handle},
    scripts,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    PORT, RATE, address, begin_reload, crash,
    drain::{ask, read_until},
    signal,
    takeover::apps,
};

/// Where an executable is installed, as a package manager does: the other version takes the place of
/// the file, whose process keeps what it runs.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        place.install(binary(), "755");
        place
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("reuseport-launch")
    }

    /// Copies in a process of its own: what this one has open for writing could be open in a child
    /// that another test is starting, and can't be executed as long.
    #[track_caller]
    pub(crate) fn install(&self, file: &Path, mode: &str) {
        let next = self.0.path().join("next");
        let installed = Command::new(gate::path_of("install"))
            .args(["-m", mode])
            .args([file, &next])
            .status();
        assert!(installed.is_ok_and(|status| status.success()), "{file:?}");
        fs::rename(next, self.path()).expect("in the same directory");
    }

    #[track_caller]
    pub(crate) fn install_script(&self, text: &str, mode: &str) {
        let file = self.0.path().join("text");
        fs::write(&file, text).expect("the test's own directory");
        self.install(&file, mode);
    }

    /// Whether a process runs what is installed.
    pub(crate) fn is_run_by(&self, pid: u32) -> bool {
        let inode = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let runs = inode(Path::new(&format!("/proc/{pid}/exe")));
        runs.is_some() && runs == inode(&self.path())
    }
}

/// Has a worker told something, and waits until it says so: its channel works.
#[track_caller]
fn talk(launcher: &Launcher, word: &str) {
    let message = format!("{word:?}");
    launcher.ask(&["send", "0", &message]);
    let told = format!("0 {message}");
    launcher.process.wait_for(&told, |line| line == told);
}

#[test]
fn an_executable_that_was_replaced_is_gone_over_to() {
    let Some(_netns) = gate::enter(&["python3", "install"]) else {
        return;
    };
    let place = Place::new();
    let launcher = apps(2, &[]).executable(&place.path()).ready();
    let load = OpenLoad::start(address(), RATE);
    let pid = launcher.process.pid();
    let before = launcher.status();
    // From the second time on, the one that is replaced was itself gone over to.
    for _ in 0..2 {
        place.install(binary(), "755");
        assert!(!place.is_run_by(pid));
        launcher.ask(&["upgrade"]);
        assert!(place.is_run_by(pid));
        assert_eq!(launcher.status().pids(), before.pids());
    }
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn a_broken_executable_changes_nothing_until_it_is_mended() {
    let Some(_netns) = gate::enter(&["node", "install", "sleep"]) else {
        return;
    };
    let place = Place::new();
    let launcher = Launch::of(scripts::node_ipc())
        .executable(&place.path())
        .options(["--workers", "1", "--ipc", "node"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    let pid = launcher.process.pid();
    let (before, incarnation) = (launcher.status(), procfs::incarnation(pid));
    let hang = format!("#!/bin/sh\nexec {} 1000\n", gate::path_of("sleep"));
    let child = place.0.path().join("child");
    let lingering = format!(
        "#!/bin/sh\n{} 1000 &\necho $! > {}\necho no more >&2\nexit 1\n",
        gate::path_of("sleep"),
        child.display()
    );
    let broken = [
        (
            "#!/bin/sh\necho no such option >&2\nexit 1\n",
            "755",
            "no such option",
        ),
        ("#!/bin/sh\nkill -SEGV $$\n", "755", "signal"),
        ("#!/bin/sh\nexit 1\n", "644", "Permission denied"),
        ("", "755", "Exec format error"),
        ("#!/no/such/shell\n", "755", "No such file"),
        (&hang, "755", "no answer in 3 s"),
        // Another program.
        ("#!/bin/sh\nexit 0\n", "755", "exit status: 0"),
        // It leaves a child behind, which has its output open.
        (&lingering, "755", "no more"),
        // It goes when everything has been handed on to it.
        (
            "#!/bin/sh\nrm \"$0\"\necho reuseport-launch accepts this command line\n",
            "755",
            "No such file",
        ),
    ];
    for (number, (text, mode, why)) in broken.into_iter().enumerate() {
        place.install_script(text, mode);
        launcher.refuses(&["upgrade"], why);
        assert_eq!(procfs::incarnation(pid), incarnation, "{text}");
        assert_eq!(launcher.status().pids(), before.pids());
        talk(&launcher, &format!("still there {number}"));
    }
    let child = fs::read_to_string(child).expect("it was started");
    Handle::of(child.trim().parse().expect("a pid")).kill();
    // It still has all that it was about to hand on: its name, what holds connections, and how
    // it starts workers.
    let other = Launch::of(scripts::node_ipc()).at(&launcher.site).run();
    other.assert_error(1, launcher.site.name());
    load.wait_for(20);
    let accepted = crash(&launcher, 0);
    launcher.replaced(0, 2);
    assert!(launcher.status().counter(PORT, "held_total") > 0);
    talk(&launcher, "a new one");
    let ours: Vec<String> = procfs::files(pid).into_values().collect();
    for file in procfs::files(launcher.status().pid(0)).into_values() {
        let private = file.starts_with("socket:") || file.ends_with(".lock");
        assert!(!private || !ours.contains(&file), "{file} is inherited");
    }

    place.install(binary(), "755");
    launcher.ask(&["upgrade"]);
    assert!(place.is_run_by(pid));
    talk(&launcher, "and after an upgrade");
    load.stop().assert_lost_only_of(&accepted);
    launcher.stop_clean();
}

#[test]
fn an_upgrade_waits_for_no_reload_but_is_refused_meanwhile() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(1, &["after=1"]).ready();
    let reload = begin_reload(&launcher, &[]);
    launcher.refuses(&["upgrade"], "a reload is under way (0 of 1)");
    assert_eq!(reload.finish().success(), "");
    launcher.ask(&["upgrade"]);
    launcher.stop_clean();
}

#[test]
fn a_connection_that_a_worker_finishes_is_not_cut_by_an_upgrade() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "1", "--health", "http:/health"])
        .options(["--health-interval", "100ms", "--health-threshold", "2"])
        .ready();
    let old = Handle::of(launcher.status().pid(0));
    let mut slow = ask("/slow");
    read_until(&mut slow, "\r\n\r\n");
    // It is replaced without anybody asking for it, and finishes that.
    signal(old.pid(), Signal::SIGUSR2);
    launcher.replaced(0, 2);
    let draining = |status: &kernel_tests::status::Status| {
        let mut workers = status.workers().iter();
        workers.any(|worker| worker["pid"] == old.pid() && worker["state"] == "draining")
    };
    launcher.status_when("the drain", draining);
    let incarnation = procfs::incarnation(launcher.process.pid());
    launcher.ask(&["upgrade"]);
    assert_ne!(procfs::incarnation(launcher.process.pid()), incarnation);
    assert!(draining(&launcher.status()), "it still drains");
    read_until(&mut slow, &".".repeat(20));
    drop(slow);
    old.wait();
    eventually("one worker to be left", || {
        launcher.status().all_ready(1).then_some(())
    });
    assert!(launcher.status().is_ready(0, 2));
    launcher.stop_clean();
}

#[test]
fn an_upgrade_while_no_worker_runs_keeps_what_is_held_and_never_gives_up() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broken = dir.path().join("broken");
    let launcher = Launch::of(scripts::breakable(&broken, scripts::app(&[])))
        .options(["--workers", "1"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    load.wait_for(20);
    fs::write(&broken, "").expect("the test's own directory");
    let accepted = crash(&launcher, 0);
    launcher.status_when("a pause that is long enough", |status| {
        status.state(0) == "backoff" && status.generation(0) >= 4
    });
    launcher.ask(&["upgrade"]);
    // More often in a row than one that has never worked is tried.
    let failed = launcher.status().generation(0);
    launcher.status_when("more failures", |status| status.generation(0) >= failed + 5);
    fs::remove_file(&broken).expect("it was written");
    launcher.status_when("a worker", |status| status.all_ready(1));
    load.wait_for(20);
    load.stop().assert_lost_only_of(&accepted);
    launcher.stop_clean();
}

#[test]
fn an_upgrade_is_refused_when_the_pins_are_gone() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2, &[]).ready();
    let load = OpenLoad::start(address(), RATE);
    let before = launcher.status();
    for dir in launcher.site.pins() {
        fs::remove_dir_all(dir).expect("the objects are in use without it");
    }
    launcher.refuses(&["upgrade"], "bpffs");
    assert_eq!(launcher.status().pids(), before.pids());
    launcher.reload();
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}
