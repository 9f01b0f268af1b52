//! Commands that do not work, or do not serve.

use kernel_tests::{gate, launcher::Launch};
use nix::sys::signal::Signal;

use crate::finish;

#[test]
fn a_command_that_ends_at_once_is_given_up_with_its_last_words() {
    let Some(_netns) = gate::enter(&["sh"]) else {
        return;
    };
    let script = "echo cannot open the database >&2; echo to stdout; exit 3";
    let launcher = Launch::of(["sh", "-c", script])
        .options(["--workers", "2"])
        .start();
    let (finished, site) = finish(launcher);
    assert_eq!(finished.code(), 1, "{}", finished.stderr);
    let (_, error) = finished
        .stderr
        .split_once("error: gave up: ")
        .expect("the error says what was done");
    for part in [
        "failed 5 times in a row, last of exit code 3",
        "the last lines of worker",
        "\n    cannot open the database\n",
        "→ start the command by hand",
    ] {
        assert!(error.contains(part), "{part:?} in {}", finished.stderr);
    }
    assert!(!error.contains("to stdout"), "{error}");
    site.assert_nothing_left();
}

#[test]
fn a_command_that_never_listens_is_warned_about_and_left_alone() {
    let Some(_netns) = gate::enter(&["sleep"]) else {
        return;
    };
    let launcher = Launch::of(["sleep", "1000"])
        .options(["--workers", "2"])
        .start();
    for worker in ["0.1", "1.1"] {
        launcher.process.wait_for("the warning", |line| {
            line.contains("WARN") && line.contains(&format!("worker {worker} does not listen"))
        });
    }
    assert!(launcher.ready().contains("no listening socket"));
    let status = launcher.status();
    for slot in 0..2 {
        assert_eq!(status.worker(slot)["generation"], 1);
        assert_eq!(status.worker(slot)["restarts"], 0);
    }
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}

#[test]
fn a_stop_while_the_workers_start_or_wait_for_a_restart_is_as_clean() {
    let Some(_netns) = gate::enter(&["sh"]) else {
        return;
    };
    // Slot 0 never listens; slot 1 fails, and is waiting most of the time.
    let script = "test {slot} = 1 && exit 1; echo started; exec sleep 1000";
    let launcher = Launch::of(["sh", "-c", script])
        .options(["--workers", "2"])
        .start();
    launcher
        .process
        .wait_for("worker 0", |line| line == "started");
    launcher
        .process
        .wait_for("worker 1", |line| line.contains("worker 1.2 ended"));
    let (finished, site) = launcher.end(Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    site.assert_nothing_left();
}
