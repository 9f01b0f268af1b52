//! New versions of a server: those that do not work, and where they come from.

use std::{fs, os::unix::fs::symlink, path::Path};

use kernel_tests::{
    gate,
    launcher::Launch,
    load::{CLIENT_TIMEOUT, OpenLoad},
    scripts,
};

use crate::{RATE, address};

#[test]
fn acceptance_4_no_worker_is_stopped_because_the_new_one_is_slow() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let slow = dir.path().join("slow");
    // A version that never listens, while the file exists.
    let script = "test -e \"$0\" && exec sleep 1000; exec \"$@\"";
    let shell = [
        &gate::path_of("sh"),
        "-c",
        script,
        slow.to_str().expect("UTF-8"),
    ]
    .map(str::to_owned);
    let launcher = Launch::of(shell.into_iter().chain(scripts::app(&[])))
        .options(["--workers", "2", "--ready-timeout", "500ms"])
        .ready();
    let before = launcher.status();
    let load = OpenLoad::start(address(), RATE);
    fs::write(&slow, "").expect("the test's own directory");
    launcher.refuses(&["reload"], "not ready");
    let after = launcher.status_when("the new one to be gone", |status| status.all_ready(2));
    assert_eq!(after.pids(), before.pids());
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

#[test]
fn acceptance_10_a_version_that_fails_in_the_second_slot_leaves_the_first_replaced() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let script = "test {slot}$REUSEPORT_LAUNCH_GENERATION = 12 && exit 9; exec \"$@\"";
    let shell = [&gate::path_of("sh"), "-c", script, "sh"].map(str::to_owned);
    let launcher = Launch::of(shell.into_iter().chain(scripts::app(&[])))
        .options(["--workers", "3"])
        .ready();
    let before = launcher.status();
    let load = OpenLoad::start(address(), RATE);
    launcher.refuses(&["reload"], "exit code 9");
    let after = launcher.status_when("the new one to be gone", |status| status.all_ready(3));
    assert!(after.is_ready(0, 2), "{}", after.0);
    assert_eq!(after.pids()[1..], before.pids()[1..]);
    assert!(after.0["operation"].is_null(), "{}", after.0);
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}

/// A version of [`scripts::APP`], which says so under `/version`.
fn release(dir: &Path, version: &str) {
    let dir = dir.join(version);
    fs::create_dir(&dir).expect("a directory of the test's own");
    fs::write(dir.join("app.py"), scripts::APP).expect("a new directory");
    fs::write(dir.join("release"), version).expect("a new directory");
}

#[track_caller]
fn versions(requests: u64) -> Vec<String> {
    let load = OpenLoad::with(address(), RATE, "/version", CLIENT_TIMEOUT);
    load.wait_for(requests);
    let report = load.stop();
    report.assert_nothing_lost();
    report.answers.into_keys().collect()
}

#[test]
fn acceptance_48_the_working_directory_is_looked_up_again_at_each_start() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let current = dir.path().join("current");
    release(dir.path(), "1");
    release(dir.path(), "2");
    symlink("1", &current).expect("a new directory");
    let launcher = Launch::of([gate::path_of("python3"), "app.py".to_owned()])
        .options(["--workers", "2", "--chdir"])
        .options([&current])
        .ready();
    assert_eq!(versions(10), ["1"]);
    fs::remove_file(&current).expect("it was made");
    symlink("2", &current).expect("it was removed");
    assert_eq!(versions(10), ["1"]);
    launcher.reload();
    assert_eq!(versions(10), ["2"]);
    launcher.stop_clean();
}

#[test]
fn acceptance_47_the_environment_file_is_read_again_at_each_start() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("env");
    fs::write(&file, "VERSION=1\n").expect("a new directory");
    let launcher = Launch::of(scripts::app(&[]))
        .options(["--workers", "2", "--env-file"])
        .options([&file])
        .ready();
    assert_eq!(versions(10), ["1"]);
    fs::write(&file, "# of today\nVERSION=\"2 3\"\n").expect("it can be written again");
    launcher.reload();
    assert_eq!(versions(10), ["2 3"]);
    // One that can't be read is as a version that does not start.
    fs::remove_file(&file).expect("it was written");
    launcher.refuses(&["reload"], file.to_str().expect("UTF-8"));
    assert_eq!(versions(10), ["2 3"]);
    launcher.stop_clean();
}
