//! Reloads: one slot after the other, the new worker first.

use kernel_tests::{
    gate,
    launcher::Launch,
    load::{Kind, OpenLoad},
    scripts, servers,
};
use nix::sys::signal::Signal;

use crate::{PORT, RATE, address, begin_reload, crash_of, two_apps, watched};

#[test]
fn acceptance_1_capacity_never_falls_below_n_in_a_reload() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let launcher = Launch::of(servers::node(PORT))
        .options(["--workers", "3"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    let ((), seen) = watched(&launcher, || (0..3).for_each(|_| launcher.reload()));
    load.stop().assert_nothing_lost();
    for status in seen {
        assert!(status.ready() >= 3, "{}", status.0);
    }
    launcher.stop_clean();
}

#[test]
fn never_more_are_replaced_at_once_than_max_surge_allows() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    for surge in [1, 3] {
        let launcher = Launch::of(scripts::app(&["after=0.3"]))
            .options(["--workers", "4", "--max-surge", &surge.to_string()])
            .ready();
        let ((), seen) = watched(&launcher, || launcher.reload());
        let most = seen.iter().map(|status| status.workers().len()).max();
        assert_eq!(most, Some(4 + surge));
        launcher.stop_clean();
    }
}

#[test]
fn acceptance_4_a_worker_that_boots_for_long_gets_nothing_before_it_listens() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&["after=1.5"], &[]);
    let load = OpenLoad::start(address(), RATE);
    let ((), seen) = watched(&launcher, || launcher.reload());
    let report = load.stop();
    report.assert_nothing_lost();
    // Nor does anything wait until it does.
    assert!(report.latency(1.0) < 1_000_000, "{report}");
    for status in seen {
        assert!(status.ready() >= 2, "{}", status.0);
    }
    launcher.stop_clean();
}

#[test]
fn acceptance_9_reload_upgrade_and_shutdown_reset_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = Launch::of(scripts::late())
        .options(["--workers", "2"])
        .ready();
    let load = OpenLoad::start(address(), RATE);
    launcher.reload();
    launcher.ask(&["upgrade"]);
    launcher.reload();
    load.wait_for(20);
    assert_eq!(load.lost(), 0);
    launcher.stop_clean();
    let report = load.stop();
    // Who comes when it is over is refused; nobody else was disappointed.
    assert!(report.count(Kind::Refused) > 0, "{report}");
    assert_eq!(report.count(Kind::Refused), report.lost.len(), "{report}");
}

#[test]
fn acceptance_11_a_second_reload_is_refused_while_one_is_under_way() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&["after=1.5"], &[]);
    let first = begin_reload(&launcher, &[]);
    launcher.refuses(&["reload"], "a reload is under way (0 of 2)");
    launcher.refuses(&["scale", "3"], "a reload is under way");
    launcher.refuses(&["restart", "0"], "a reload is under way");
    assert_eq!(first.finish().success(), "");
    let status = launcher.status();
    assert!(status.all_ready(2), "{}", status.0);
    assert!((0..2).all(|slot| status.is_ready(slot, 2)), "{}", status.0);
    launcher.stop_clean();
}

#[test]
fn a_client_that_goes_does_not_end_what_it_asked_for() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&["after=0.5"], &[]);
    drop(begin_reload(&launcher, &[]));
    let operation = launcher.status().0["operation"].clone();
    assert_eq!(operation["verb"], "reload", "{operation}");
    assert_eq!(operation["of"], 2, "{operation}");
    let status = launcher.status_when("the reload's end", |status| status.0["operation"].is_null());
    assert!((0..2).all(|slot| status.is_ready(slot, 2)), "{}", status.0);
    launcher.stop_clean();
}

#[test]
fn a_worker_that_dies_during_a_reload_is_not_in_its_way() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&["after=0.5"], &[]);
    let load = OpenLoad::start(address(), RATE);
    let reload = begin_reload(&launcher, &[]);
    let accepted = crash_of(&launcher, 1, 1);
    assert_eq!(reload.finish().success(), "");
    let status = launcher.status_when("both", |status| status.all_ready(2));
    assert!(status.generation(0) >= 2, "{}", status.0);
    assert!(status.generation(1) >= 2, "{}", status.0);
    load.stop().assert_lost_only_of(&accepted);
    launcher.stop_clean();
}

#[test]
fn hup_reloads() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let launcher = two_apps(&[], &[]);
    launcher.process.signal(Signal::SIGHUP);
    launcher.replaced(0, 2);
    launcher.replaced(1, 2);
    launcher.stop_clean();
}
