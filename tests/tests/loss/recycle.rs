//! Workers that are replaced because they have served enough, grown too much or lived too long.

use kernel_tests::{
    client, gate,
    launcher::{Launch, Launcher},
    load::OpenLoad,
    scripts,
    status::Status,
};

use crate::{RATE, address, watched};

#[track_caller]
fn apps(workers: u32, options: &[&str]) -> Launcher {
    Launch::of(scripts::app(&[]))
        .options(["--workers", &workers.to_string()])
        .options(options)
        .ready()
}

/// Whether each of these slots has been replaced at least once, and is ready.
fn all_replaced(status: &Status, workers: u32) -> bool {
    status.all_ready(workers as usize) && (0..workers).all(|slot| status.generation(slot) > 1)
}

/// Asserts that never two workers were being replaced at once, and none before its successor was
/// ready.
#[track_caller]
fn assert_one_after_the_other(seen: &[Status], workers: usize) {
    for status in seen {
        assert!(status.workers().len() <= workers + 1, "{}", status.0);
        assert!(status.ready() >= workers, "{}", status.0);
    }
}

#[test]
fn acceptance_43_workers_that_have_served_enough_are_replaced_one_after_the_other() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(3, &["--max-connections", "60"]);
    let load = OpenLoad::start(address(), RATE);
    let ((), seen) = watched(&launcher, || {
        launcher.status_when("all to be replaced", |status| all_replaced(status, 3));
    });
    load.stop().assert_nothing_lost();
    assert_one_after_the_other(&seen, 3);
    for worker in seen.iter().flat_map(Status::workers) {
        // Jitter of a tenth, and what came until the successor was ready.
        if worker["generation"] == 1 {
            let served = worker["connections_total"].as_u64();
            assert!(served < Some(60 * 4), "{worker}");
        }
    }
    launcher.stop_clean();
}

#[test]
fn workers_that_have_lived_long_enough_are_replaced_one_after_the_other() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2, &["--max-age", "1s"]);
    let load = OpenLoad::start(address(), RATE);
    let ((), seen) = watched(&launcher, || {
        launcher.status_when("all to be replaced", |status| all_replaced(status, 2));
    });
    load.stop().assert_nothing_lost();
    assert_one_after_the_other(&seen, 2);
    launcher.stop_clean();
}

#[test]
fn acceptance_42_a_worker_that_has_grown_is_replaced_within_seconds() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = apps(2, &["--max-memory", "80M"]);
    let load = OpenLoad::start(address(), RATE);
    let before = launcher.status();
    let grown = client::get_path(address(), "/grow").expect("it is answered");
    let slot = (0..2).find(|&slot| before.pid(slot).to_string() == grown.body);
    let slot = slot.expect("one of the workers");
    let ((), seen) = watched(&launcher, || {
        launcher.replaced(slot, 2);
    });
    assert_one_after_the_other(&seen, 2);
    let after = launcher.status_when("the grown one to be gone", |status| status.all_ready(2));
    assert_eq!(after.pid(1 - slot), before.pid(1 - slot));
    load.stop().assert_nothing_lost();
    launcher.stop_clean();
}
