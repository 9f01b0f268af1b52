//! Several apps in one file: a launcher for each, below a supervisor.

use std::sync::Arc;

use kernel_tests::{
    client, eventually, gate,
    launcher::Site,
    process::Process,
    procfs::{self, Handle},
    servers,
    status::Status,
};
use nix::sys::signal::Signal;

use crate::{File, command};

/// Two apps, on the ports 8080 and 8081.
struct Apps {
    // Killed first.
    supervisor: Process,
    file: File,
    sites: [Arc<Site>; 2],
}

/// The file of two apps with these names.
fn text(names: [&str; 2], more: &str) -> String {
    let [web, api] = [8080, 8081].map(|port| command(&servers::node(port)));
    let [one, other] = names;
    format!(
        "workers = 2\nstop-timeout = '3s'\n{more}\n[app.{one}]\n{web}port = 8080\n[app.{other}]\n{api}port = 8081\n"
    )
}

impl Apps {
    fn start() -> Self {
        let sites = [Site::new(), Site::new()];
        let file = File::new(&text([sites[0].name(), sites[1].name()], ""));
        let supervisor = sites[0].begin(&["run", "--config", &file.word()]);
        let apps = Self {
            supervisor,
            file,
            sites,
        };
        apps.wait_for_startup_lines(2);
        apps
    }

    fn wait_for_startup_lines(&self, count: usize) {
        self.supervisor.wait_until("the startup lines", |lines| {
            let startup = lines.iter().filter(|line| line.text.contains(" · steer "));
            (startup.count() == count).then_some(())
        });
    }

    fn names(&self) -> [&str; 2] {
        [self.sites[0].name(), self.sites[1].name()]
    }

    /// The status of an app, once it is as wanted.
    #[track_caller]
    fn status(&self, app: usize, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        eventually(what, || {
            let finished = self.verb(&["status", "--json", self.names()[app]]);
            let status = Status(serde_json::from_str(&finished.ok()?).ok()?);
            wanted(&status).then_some(status)
        })
    }

    /// What a verb prints that succeeds.
    fn verb(&self, words: &[&str]) -> Result<String, String> {
        let finished = self.sites[0].control(words);
        if finished.code() == 0 {
            Ok(finished.stdout)
        } else {
            Err(finished.stderr)
        }
    }

    /// The pids of the launchers.
    fn launchers(&self) -> [u32; 2] {
        [0, 1].map(|app| {
            let status = self.status(app, "an answer", |_| true);
            u32::try_from(status.0["pid"].as_u64().expect("a number")).expect("a pid")
        })
    }

    fn workers(&self, app: usize) -> Vec<u32> {
        self.status(app, "two workers", |status| status.all_ready(2))
            .pids()
    }

    fn serve(&self) {
        for port in [8080, 8081] {
            let served = client::spread(client::address(&format!("127.0.0.1:{port}")), 4);
            assert_eq!(served.len(), 2, "{served:?}");
        }
    }

    /// Stops all, and checks that nothing is left.
    fn stop_clean(self) {
        self.supervisor.signal(Signal::SIGTERM);
        let Self {
            supervisor,
            file: _file,
            sites,
        } = self;
        let finished = supervisor.finish();
        assert_eq!(finished.code(), 0, "{}", finished.stderr);
        for site in &sites {
            assert!(!site.cgroup().expect("a hierarchy").exists());
            assert!(site.pins().is_empty());
        }
    }
}

#[test]
fn each_app_has_its_own_fleet_name_and_verbs() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let apps = Apps::start();
    apps.serve();
    let launchers = apps.launchers();
    let pid = apps.supervisor.pid();
    for launcher in launchers {
        assert_eq!(procfs::status(launcher, "PPid"), pid.to_string());
    }
    let [web, api] = apps.names();
    for name in [web, api] {
        let own = format!("app{{name={name}}}: ");
        let startup = |line: &str| line.contains(&own) && line.contains(" · steer ");
        apps.supervisor.wait_for("its own startup line", startup);
    }
    assert!(procfs::arguments(launchers[1]).ends_with(&["--app".to_owned(), api.to_owned()]));
    let listed = apps.verb(&["ls"]).expect("it succeeds");
    assert!(listed.contains(web) && listed.contains(api), "{listed}");

    let before = [apps.workers(0), apps.workers(1)];
    assert_eq!(apps.verb(&["reload", web]), Ok(String::new()));
    apps.verb(&["scale", "3", api]).expect("it succeeds");
    assert!(apps.workers(0).iter().all(|pid| !before[0].contains(pid)));
    let status = apps.status(1, "three workers", |status| status.all_ready(3));
    assert!(before[1].iter().all(|pid| status.pids().contains(pid)));

    // One is stopped, the other goes on.
    apps.verb(&["stop", api]).expect("it succeeds");
    apps.supervisor
        .wait_for("the end of one", |line| line.contains("has ended"));
    assert_eq!(apps.workers(0).len(), 2);
    apps.stop_clean();
}

#[test]
fn a_launcher_that_is_killed_is_started_again_and_loses_nothing() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let apps = Apps::start();
    let [launcher, other] = apps.launchers();
    let workers = apps.workers(0);
    Handle::of(launcher).kill();
    apps.supervisor
        .wait_for("the takeover", |line| line.contains("took over 2 workers"));
    assert_eq!(apps.workers(0), workers);
    let now = apps.launchers();
    assert_ne!(now[0], launcher);
    assert_eq!(now[1], other);
    apps.serve();
    apps.stop_clean();
}

#[test]
fn where_the_supervisor_is_killed_the_next_one_takes_all_over() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let mut apps = Apps::start();
    let launchers = apps.launchers().map(Handle::of);
    let workers = [apps.workers(0), apps.workers(1)];
    apps.supervisor.signal(Signal::SIGKILL);
    launchers.iter().for_each(Handle::wait);
    apps.serve();
    apps.supervisor = apps.sites[0].begin(&["run", "--config", &apps.file.word()]);
    apps.supervisor.wait_until("both takeovers", |lines| {
        let taken = lines
            .iter()
            .filter(|line| line.text.contains("took over 2 workers"));
        (taken.count() == 2).then_some(())
    });
    assert_eq!([apps.workers(0), apps.workers(1)], workers);
    apps.serve();
    apps.stop_clean();
}

#[test]
fn a_hang_up_reloads_all_and_starts_what_is_new() {
    let Some(_netns) = gate::enter(&["node", "sleep"]) else {
        return;
    };
    let apps = Apps::start();
    let before = [apps.workers(0), apps.workers(1)];
    apps.file.write("workers = 0\n");
    apps.supervisor.signal(Signal::SIGHUP);
    apps.supervisor.wait_for("the refusal", |line| {
        line.contains("cannot reload: cannot use")
    });
    assert_eq!([apps.workers(0), apps.workers(1)], before);

    let third = Site::new();
    let [web, api] = apps.names();
    let sleep = command(&[gate::path_of("sleep"), "1000".to_owned()]);
    let more = format!("[app.{}]\n{sleep}", third.name());
    apps.file
        .write(&(text([web, api], "drain-timeout = '5s'") + &more));
    apps.supervisor.signal(Signal::SIGHUP);
    for (app, before) in before.iter().enumerate() {
        apps.status(app, "other workers", |status| {
            status.all_ready(2) && status.pids().iter().all(|pid| !before.contains(pid))
        });
    }
    eventually("the third app", || {
        apps.verb(&["status", third.name()]).ok()
    });
    apps.stop_clean();
    assert!(!third.cgroup().expect("a hierarchy").exists());
}

#[test]
fn one_that_gives_up_does_not_end_the_others_but_is_not_forgotten() {
    let Some(_netns) = gate::enter(&["node", "false"]) else {
        return;
    };
    let sites = [Site::new(), Site::new()];
    let [good, bad] = [sites[0].name(), sites[1].name()];
    let (node, fails) = (
        command(&servers::node(8080)),
        command(&[gate::path_of("false")]),
    );
    let file = File::new(&format!(
        "workers = 1\n[app.{good}]\n{node}[app.{bad}]\n{fails}"
    ));
    let supervisor = sites[0].begin(&["run", "--config", &file.word()]);
    supervisor.wait_for("its end", |line| {
        line.contains(&format!("{bad} ended with exit code 1"))
    });
    supervisor.wait_for("the other's start", |line| line.contains(" · steer "));
    client::get(client::address("127.0.0.1:8080")).expect("an answer");
    supervisor.signal(Signal::SIGTERM);
    supervisor
        .finish()
        .assert_error(1, &format!("the launcher of {bad} ended with exit code 1"));
}

#[test]
fn nothing_is_started_when_one_of_them_could_not_be() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let site = Site::new();
    let good = command(&servers::node(8080));
    let name = site.name();
    for (bad, code, why) in [
        ("command = ['./none']", 127, "app bad: cannot run ./none"),
        ("command = ['true']\nport = 8080", 78, "that of the app"),
        (
            "command = ['true']\nchdir = 'none'",
            78,
            "app bad: cannot start workers in",
        ),
    ] {
        let file = File::new(&format!(
            "[app.{name}]\nport = 8080\n{good}[app.bad]\n{bad}\n"
        ));
        let finished = site.control(&["run", "--config", &file.word()]);
        finished.assert_error(code, why);
        assert!(!site.cgroup().expect("a hierarchy").exists(), "{bad}");
    }
}
