//! What comes in the middle of an upgrade, and what the next executable must find as it was.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use kernel_tests::{
    PATIENCE, eventually, gate,
    launcher::{Launch, Launcher, binary},
    load::OpenLoad,
    procfs::{self, Handle},
    scripts,
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    PORT, RATE, address, crash, signal,
    takeover::{apps, kill},
    upgrade::Place,
};

/// An executable that takes its time over the check of an upgrade: until it is let go on.
struct Slow {
    place: Place,
    files: TempDir,
}

impl Slow {
    fn new() -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        Self {
            place: Place::new(),
            files,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Begins an upgrade to it, and returns when its check runs.
    #[track_caller]
    fn begin(&self, launcher: &Launcher) {
        let text = format!(
            "#!/bin/sh\nif [ \"$1\" = __check ]; then\n  : > {begun:?}\n  \
             while [ ! -e {go:?} ]; do {sleep} 0.01; done\nfi\nexec {binary:?} \"$@\"\n",
            begun = self.file("begun"),
            go = self.file("go"),
            sleep = gate::path_of("sleep"),
            binary = binary(),
        );
        self.place.install_script(&text, "755");
        launcher.process.signal(Signal::SIGUSR2);
        eventually("the check", || self.file("begun").exists().then_some(()));
    }

    fn go_on(&self) {
        fs::write(self.file("go"), "").expect("the test's own directory");
    }
}

#[test]
fn connections_that_wait_while_no_worker_runs_are_answered_after_an_upgrade() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let files = tempfile::tempdir().expect("a temporary directory");
    let broken = files.path().join("broken");
    let launcher = Launch::of(scripts::breakable(&broken, scripts::app(&[])))
        .options(["--workers", "1"])
        .ready();
    let load = OpenLoad::with(address(), RATE, "/", PATIENCE);
    load.wait_for(10);
    fs::write(&broken, "").expect("the test's own directory");
    let accepted = crash(&launcher, 0);
    // The next start is a while off by then.
    let before = launcher.status_when("a long backoff", |status| {
        let tries = status.worker(0)["restarts"].as_u64();
        status.state(0) == "backoff" && tries >= Some(5)
    });
    assert!(before.counter(PORT, "held_now") > 10, "{}", before.0);
    launcher.ask(&["upgrade"]);
    let after = launcher.status();
    assert!(
        after.counter(PORT, "held_now") >= before.counter(PORT, "held_now"),
        "{}",
        after.0
    );
    // More than a command may fail that has never worked.
    launcher.status_when("more failures", |status| {
        status.worker(0)["restarts"].as_u64() >= Some(6)
    });
    fs::remove_file(&broken).expect("it is there");
    launcher.status_when("a worker", |status| status.all_ready(1));
    load.wait_for(RATE.into());
    load.stop().assert_lost_only_of(&accepted);
    launcher.stop_clean();
}

#[test]
fn a_stop_in_the_middle_of_an_upgrade_is_not_lost() {
    let Some(_netns) = gate::enter(&["python3", "install", "sleep"]) else {
        return;
    };
    let slow = Slow::new();
    let launcher = apps(1, &[]).executable(&slow.place.path()).ready();
    slow.begin(&launcher);
    launcher.process.signal(Signal::SIGTERM);
    slow.go_on();
    let (finished, site) = {
        let Launcher { process, site } = launcher;
        (process.finish(), site)
    };
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("upgraded to"),
        "{}",
        finished.stderr
    );
    site.assert_nothing_left();
}

#[test]
fn a_stop_that_comes_right_after_the_wish_for_an_upgrade_is_not_lost() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    for _ in 0..4 {
        let launcher = apps(1, &[]).ready();
        launcher.process.signal(Signal::SIGUSR2);
        launcher.stop_clean();
    }
}

#[test]
fn a_reload_that_is_asked_for_in_the_middle_of_an_upgrade_is_made() {
    let Some(_netns) = gate::enter(&["python3", "install", "sleep"]) else {
        return;
    };
    let slow = Slow::new();
    let launcher = apps(1, &[]).executable(&slow.place.path()).ready();
    let incarnation = procfs::incarnation(launcher.process.pid());
    slow.begin(&launcher);
    launcher.process.signal(Signal::SIGHUP);
    slow.go_on();
    launcher.replaced(0, 2);
    assert_ne!(procfs::incarnation(launcher.process.pid()), incarnation);
    launcher.stop_clean();
}

#[test]
fn a_worker_may_say_that_it_is_ready_in_the_middle_of_an_upgrade() {
    let Some(_netns) = gate::enter(&["python3", "install", "sleep"]) else {
        return;
    };
    let slow = Slow::new();
    let launcher = Launch::of(scripts::app(&["notify"]))
        .executable(&slow.place.path())
        .options(["--workers", "1", "--ready", "notify"])
        .start();
    let listening = launcher.status_when("the worker to listen", |status| {
        status.workers().len() == 1 && status.state(0) == "listening"
    });
    slow.begin(&launcher);
    signal(listening.pid(0), Signal::SIGUSR1);
    launcher
        .process
        .wait_for("its word", |line| line == "0 is well");
    slow.go_on();
    let ready = launcher.replaced(0, 1);
    assert_eq!(ready.pid(0), listening.pid(0));
    launcher.stop_clean();
}

#[test]
fn signals_that_come_while_the_launcher_starts_do_not_end_it() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(1, &[]).start();
    let lock = format!("{}.lock", launcher.site.name());
    let lock = launcher.site.runtime_dir().join(lock);
    eventually("its lock", || lock.exists().then_some(()));
    launcher.process.signal(Signal::SIGHUP);
    launcher.process.signal(Signal::SIGUSR1);
    launcher.ready();
    launcher.stop_clean();
}

#[test]
fn what_was_passed_on_reaches_no_child() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(scripts::node_ipc())
        .options(["--workers", "2", "--ipc", "node"])
        .ready();
    launcher.ask(&["upgrade"]);
    crash(&launcher, 1);
    launcher.replaced(1, 2);
    let pid = launcher.process.pid();
    let ours: Vec<String> = procfs::files(pid).into_values().collect();
    let children = procfs::children(pid);
    // Two workers, and what prints the output of those before the upgrade and after it.
    assert_eq!(children.len(), 4);
    for child in children {
        for file in procfs::files(child).into_values() {
            let private = file.starts_with("socket:") || file.ends_with(".lock");
            assert!(!private || !ours.contains(&file), "{child} has {file}");
        }
    }
    launcher.stop_clean();
}

#[test]
fn workers_are_given_the_same_limit_of_files_after_an_upgrade() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let limited = "ulimit -Sn 500; ulimit -Hn 1500; exec \"$0\" \"$@\"";
    let launcher = apps(1, &[])
        .through([gate::path_of("sh").as_str(), "-c", limited])
        .ready();
    let limits = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let mut words = files.unwrap_or_default().split_whitespace().skip(3);
        (
            words.next().map(str::to_owned),
            words.next().map(str::to_owned),
        )
    };
    let expected = (Some("500".to_owned()), Some("1500".to_owned()));
    assert_eq!(limits(launcher.status().pid(0)), expected);
    for generation in [2, 3] {
        launcher.ask(&["upgrade"]);
        crash(&launcher, 0);
        let status = launcher.replaced(0, generation);
        assert_eq!(limits(status.pid(0)), expected);
    }
    launcher.stop_clean();
}

#[test]
fn an_upgrade_follows_a_link_in_the_name_that_the_launcher_was_started_by() {
    let Some(_netns) = gate::enter(&["python3", "install"]) else {
        return;
    };
    let (first, second) = (Place::new(), Place::new());
    let links = tempfile::tempdir().expect("a temporary directory");
    let current = links.path().join("current");
    symlink(first.path().parent().expect("a directory"), &current).expect("a link");
    let name = current.join(first.path().file_name().expect("a name"));
    let launcher = apps(1, &[]).executable(&name).ready();
    let pid = launcher.process.pid();
    assert!(first.is_run_by(pid));
    for next in [&second, &first] {
        fs::remove_file(&current).expect("it is there");
        symlink(next.path().parent().expect("a directory"), &current).expect("a link");
        launcher.ask(&["upgrade"]);
        assert!(next.is_run_by(pid));
    }
    launcher.stop_clean();
}

#[test]
fn an_upgrade_that_fails_leaves_no_descriptor_and_no_changed_signal() {
    let Some(_netns) = gate::enter(&["node", "install"]) else {
        return;
    };
    let place = Place::new();
    let launcher = Launch::of(scripts::node_ipc())
        .executable(&place.path())
        .options(["--workers", "1", "--ipc", "node"])
        .ready();
    let pid = launcher.process.pid();
    let look = || {
        let signals = ["SigBlk", "SigIgn", "SigCgt"].map(|field| procfs::status(pid, field));
        (signals, procfs::files(pid).len())
    };
    let before = look();
    // It is gone when it has passed the check.
    place.install_script(
        "#!/bin/sh\nrm \"$0\"\necho reuseport-launch accepts this command line\n",
        "755",
    );
    launcher.refuses(&["upgrade"], "No such file");
    // What asked has gone, and with it its connection.
    eventually("the descriptors that there were before", || {
        (look() == before).then_some(())
    });
    launcher.stop_clean();
}

#[test]
fn a_takeover_with_another_command_says_what_to_do() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let mut first = apps(1, &[]).ready();
    let worker = Handle::of(first.status().pid(0));
    kill(&mut first);
    let second = apps(1, &["after=0"]).at(&first.site).ready();
    second.process.wait_for("a word on it", |line| {
        line.contains("the workers of the earlier command go on; reload")
    });
    assert_eq!(second.status().pid(0), worker.pid());
    second.reload();
    let arguments = procfs::arguments(second.status().pid(0));
    assert_eq!(arguments.last().map(String::as_str), Some("after=0"));
    second.stop_clean();
}
