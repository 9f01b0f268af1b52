//! What a reload makes of a changed file.

use kernel_tests::{
    client::address,
    gate,
    launcher::{Launcher, Site},
    load::OpenLoad,
    process::Finished,
    procfs::Handle,
    scripts,
};
use nix::sys::signal::Signal;

use crate::{File, command, versions};

/// The lines that a reload prints.
fn lines(finished: Finished) -> Vec<String> {
    finished.success().lines().map(str::to_owned).collect()
}

#[test]
fn what_can_be_changed_is_changed_and_the_rest_is_named() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let app = command(&scripts::app(&[]));
    let text = |more: &str| format!("{app}stop-timeout = '3s'\n{more}");
    let file = File::new(&text("workers = 2\n[env]\nVERSION = 'one'\n"));
    let launcher = file.start();
    assert_eq!(versions(4), ["one"; 4]);
    let before = launcher.status().pids();
    // Nothing has changed: nothing is said.
    assert_eq!(lines(launcher.verb(&["reload"])), [""; 0]);
    assert_ne!(launcher.status().pids(), before);

    file.write(&text(
        "workers = 3\nsteer = 'least-conn'\nmax-surge = 2\nno-hold = true\ndrain-timeout = '5s'\n\
         health = 'http:/health'\n[env]\nVERSION = 'two'\n",
    ));
    let said = lines(launcher.verb(&["reload"]));
    let expected = [
        "changed: workers: 2 → 3",
        "changed: steer: not set → least-conn",
        "changed: health: not set → http:/health",
        "changed: drain-timeout: 30s → 5s",
        "changed: max-surge: 1 → 2",
        "changed: env.VERSION",
        "needs a restart: no-hold: false → true",
    ];
    assert_eq!(said, expected);
    let status = launcher.status_when("three workers", |status| status.all_ready(3));
    assert_eq!(status.0["steering"]["policy"], "least-conn");
    assert_eq!(status.0["hold"], true);
    assert_eq!(versions(6), ["two"; 6]);
    // What needs a restart does so until there is one.
    assert_eq!(
        lines(launcher.verb(&["reload"])),
        ["needs a restart: no-hold: false → true"]
    );
    launcher
        .process
        .wait_for("a health check", |line| line.ends_with(" probed"));

    // By a signal, and back.
    file.write(&text("workers = 2\n[env]\nVERSION = 'three'\n"));
    launcher.process.signal(Signal::SIGHUP);
    let status = launcher.status_when("two workers by round-robin", |status| {
        status.all_ready(2) && status.0["steering"]["policy"] == "round-robin"
    });
    assert_eq!(status.workers().len(), 2);
    assert_eq!(versions(4), ["three"; 4]);
    launcher.stop_clean();
}

#[test]
fn a_wrong_file_changes_nothing() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let app = command(&scripts::app(&[]));
    let file = File::new(&format!("{app}workers = 2\n[env]\nVERSION = 'one'\n"));
    let launcher = file.start();
    let before = launcher.status().pids();
    for (wrong, why) in [
        (
            format!("{app}workers = 0\n[env]\nVERSION = 'two'\n"),
            "line 2, column 11",
        ),
        (format!("{app}wokers = 2\n"), "did you mean `workers`?"),
        ("workers = 2\n".to_owned(), "has a command"),
        ("command = ['./none']\n".to_owned(), "none"),
        (
            format!("{app}steer = 'kernel'\nhealth = 'tcp'\n"),
            "--steer kernel",
        ),
        (
            format!("[app.a]\n{app}[app.b]\n"),
            "it has tables [app.NAME] by now",
        ),
    ] {
        file.write(&wrong);
        launcher.refuses(&["reload"], why);
    }
    std::fs::remove_file(file.path()).expect("it is there");
    launcher.refuses(&["reload"], "No such file");
    launcher.process.signal(Signal::SIGHUP);
    launcher
        .process
        .wait_until("the signal's refusal", |lines| {
            let errors = lines
                .iter()
                .filter(|line| line.text.contains("No such file"));
            (errors.count() == 2).then_some(())
        });
    assert_eq!(launcher.status().pids(), before);
    assert_eq!(versions(4), ["one"; 4]);
    launcher.stop_clean();
}

#[test]
fn a_reload_that_is_called_off_leaves_the_configuration_from_before() {
    let Some(_netns) = gate::enter(&["python3", "false"]) else {
        return;
    };
    let app = command(&scripts::app(&[]));
    let broken = command(&[gate::path_of("false")]);
    let good = format!("{app}workers = 2\n[env]\nVERSION = 'one'\n");
    let file = File::new(&good);
    let launcher = file.start();
    file.write(&format!(
        "{broken}workers = 3\nsteer = 'hash'\n[env]\nVERSION = 'two'\n"
    ));
    launcher.refuses(&["reload"], "exit code 1");
    // A worker that dies afterwards comes back as it was.
    let status = launcher.status();
    assert_eq!(
        (status.workers().len(), &status.0["steering"]["policy"]),
        (2, &"round-robin".into())
    );
    Handle::of(status.pid(0)).kill();
    launcher.status_when("its successor", |now| {
        now.all_ready(2) && now.pid(0) != status.pid(0)
    });
    assert_eq!(versions(4), ["one"; 4]);
    // The file is what counts the next time.
    file.write(&good.replace("'one'", "'three'"));
    assert_eq!(lines(launcher.verb(&["reload"])), ["changed: env.VERSION"]);
    launcher.stop_clean();
}

#[test]
fn an_upgrade_reads_the_file_too() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let app = command(&scripts::app(&[]));
    let file = File::new(&format!("{app}workers = 2\n"));
    let launcher = file.start();
    file.write("workrs = 3\n");
    launcher.refuses(&["upgrade"], "did you mean `workers`?");
    file.write(&format!("{app}workers = 3\n"));
    let pids = launcher.status().pids();
    launcher.ask(&["upgrade"]);
    let status = launcher.status_when("a third worker", |status| status.all_ready(3));
    assert!(
        pids.iter().all(|pid| status.pids().contains(pid)),
        "the others go on"
    );
    launcher.stop_clean();
}

#[test]
fn an_upgrade_does_not_leave_the_workers_behind_for_another_name() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let site = Site::new();
    let app = command(&scripts::app(&[]));
    let text = |name: &str| format!("name = '{name}'\nworkers = 1\n{app}");
    let file = File::new(&text(site.name()));
    let process = site.begin(&["run", "--config", &file.word()]);
    let launcher = Launcher { process, site };
    launcher.ready();
    file.write(&text("another"));
    launcher.refuses(&["upgrade"], "the configuration calls it another by now");
    let said = lines(launcher.verb(&["reload"]));
    let name = launcher.site.name();
    assert_eq!(said, [format!("needs a restart: name: {name} → another")]);
    launcher.stop_clean();
}

#[test]
fn nothing_is_lost_while_the_configuration_changes() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let app = command(&scripts::app(&[]));
    let file = File::new(&format!("{app}workers = 2\n"));
    let launcher = file.start();
    let load = OpenLoad::start(address("127.0.0.1:8080"), 100);
    for more in [
        "workers = 4\nsteer = 'least-conn'\nmax-surge = 4\nhealth = 'http:/health'\n",
        "workers = 1\nsteer = 'hash'\nstall-timeout = 'off'\nmax-memory = '1G'\n",
        "workers = 2\n[env]\nVERSION = 'last'\n",
    ] {
        file.write(&format!("{app}{more}"));
        assert_ne!(lines(launcher.verb(&["reload"])), [""; 0]);
    }
    load.stop().assert_nothing_lost();
    assert_eq!(versions(4), ["last"; 4]);
    launcher.stop_clean();
}
