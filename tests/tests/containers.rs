//! In a container, as far as namespaces make one: the launcher is PID 1 in namespaces of its own for
//! processes, mounts, the network and cgroups, whose file system can be written or only read.

use std::time::{Duration, Instant};

use kernel_tests::{
    cgroup::{self, Delegated},
    client::{address, spread},
    eventually, gate,
    launcher::{Launch, Launcher, Site, binary},
    process::{Finished, Process},
    procfs, scripts, servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What a test of a container runs, besides its server.
const PROGRAMS: [&str; 4] = ["mount", "sh", "umount", "unshare"];

/// A container: what goes with its end is what its cgroup has.
struct Container {
    place: Delegated,
    writable: bool,
}

impl Container {
    #[track_caller]
    fn new(writable: bool) -> Self {
        let place = Delegated::new().expect("the gate has asked for cgroup v2");
        Self { place, writable }
    }

    /// Runs a program as its first process.
    fn wrapper(&self) -> Vec<String> {
        let [unshare, sh, mount, umount] = ["unshare", "sh", "mount", "umount"].map(gate::path_of);
        // A container sees one hierarchy only, and the first process of it at the top.
        let read_only = match self.writable {
            true => String::new(),
            false => format!("{mount} -o remount,bind,ro /sys/fs/cgroup &&"),
        };
        let script = format!(
            "{umount} --lazy --all --types cgroup2 && {mount} -t cgroup2 none /sys/fs/cgroup && \
             {read_only} exec \"$@\""
        );
        let namespaces = [
            "--pid",
            "--fork",
            "--kill-child",
            "--mount",
            "--mount-proc",
            "--cgroup",
        ];
        let mut words = self.place.wrapper();
        words.push(unshare);
        words.extend(namespaces.map(str::to_owned));
        words.extend([sh, "-c".to_owned(), script, "sh".to_owned()]);
        words
    }

    fn start(&self, launch: Launch) -> Launcher {
        launch.through(self.wrapper()).start()
    }

    /// Whether no process is left in it but these.
    fn processes(&self) -> Vec<u32> {
        cgroup::processes(self.place.path())
    }
}

/// The container's first process, as seen from here: the only child of `unshare`.
#[track_caller]
fn first(launcher: &Launcher) -> u32 {
    eventually("the container's first process", || {
        match procfs::children(launcher.process.pid())[..] {
            [first] => Some(first),
            _ => None,
        }
    })
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("it runs");
}

/// Does what `docker stop` does, which kills after ten seconds; and checks that it need not.
#[track_caller]
fn stop(container: &Container, launcher: Launcher) -> Finished {
    let asked = Instant::now();
    signal(first(&launcher), Signal::SIGTERM);
    let Launcher { process, site } = launcher;
    let finished = process.finish();
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert_eq!(container.processes(), Vec::<u32>::new());
    site.assert_nothing_left();
    finished
}

/// The workers' processes as seen from here: children of the first process that run this.
#[track_caller]
fn workers(launcher: &Launcher, program: &str) -> Vec<u32> {
    let children = procfs::children(first(launcher)).into_iter();
    children
        .filter(|&pid| {
            let arguments = procfs::arguments(pid);
            arguments.iter().any(|argument| argument.contains(program))
        })
        .collect()
}

#[test]
fn a_server_is_shared_replaced_and_stopped() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["node"]].concat()) else {
        return;
    };
    for writable in [true, false] {
        let container = Container::new(writable);
        let launch = Launch::of(servers::node(8080)).options(["--workers", "2"]);
        let launcher = container.start(launch);
        launcher.ready();
        let status = launcher.status();
        assert_eq!(status.0["pid"], 1);
        let capture = ["cgroup of the launcher", "cgroup"][usize::from(writable)];
        assert_eq!(status.0["capture"], capture);
        let served = spread(address("127.0.0.1:8080"), 20);
        let pids = [0, 1].map(|slot| status.pid(slot).to_string());
        assert_eq!(served, pids.map(|pid| (pid, 10)).into());
        launcher.status().assert_selected(8080, 20);

        launcher.reload();
        let status = launcher.status();
        assert!(status.is_ready(0, 2) && status.is_ready(1, 2), "{status:?}");
        let killed = workers(&launcher, "node.js");
        assert_eq!(killed.len(), 2, "{killed:?}");
        signal(killed[0], Signal::SIGKILL);
        launcher.status_when("another worker", |status| {
            status.all_ready(2) && (status.generation(0) > 2 || status.generation(1) > 2)
        });
        let served = spread(address("127.0.0.1:8080"), 20);
        assert!(
            served.len() == 2 && served.values().all(|&count| count == 10),
            "{served:?}"
        );
        let finished = stop(&container, launcher);
        let warned = finished.stderr.contains("no cgroup can be made here");
        assert_eq!(warned, !writable, "{}", finished.stderr);
    }
}

#[test]
fn workers_of_several_processes_are_told_apart_without_cgroups() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["gunicorn"]].concat()) else {
        return;
    };
    let container = Container::new(false);
    let launch = Launch::of(servers::gunicorn(8080)).options(["--workers", "3"]);
    let launcher = container.start(launch);
    launcher.ready();
    let served = spread(address("127.0.0.1:8080"), 30);
    assert!(
        served.len() == 3 && served.values().all(|&count| count == 10),
        "{served:?}"
    );
    launcher.scale(1);
    let status = launcher.status();
    assert_eq!(status.workers().len(), 1);
    let served = spread(address("127.0.0.1:8080"), 10);
    assert_eq!(served.into_values().collect::<Vec<_>>(), [10]);
    stop(&container, launcher);
}

#[test]
fn orphans_are_reaped_and_end_with_their_worker() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["python3"]].concat()) else {
        return;
    };
    for writable in [true, false] {
        let container = Container::new(writable);
        let launch = Launch::of(scripts::orphans()).options(["--workers", "2"]);
        let launcher = container.start(launch);
        launcher.process.wait_until("40 orphans", |lines| {
            let adopted = lines.iter().filter(|line| line.text == "adopted");
            (adopted.count() == 40).then_some(())
        });
        let first = first(&launcher);
        eventually("the first process to reap them", || {
            let mut children = procfs::children(first).into_iter();
            let zombie = |pid| procfs::status(pid, "State").starts_with('Z');
            (!children.any(zombie)).then_some(())
        });
        stop(&container, launcher);
    }
}

#[test]
fn an_orphan_that_stays_is_stopped_with_its_worker() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["sleep"]].concat()) else {
        return;
    };
    let container = Container::new(false);
    // The first sleep is given to the launcher when the inner shell has ended.
    let script = "sh -c 'sleep 1000 & echo \"left $!\"'; exec sleep 2000";
    let launch = Launch::of([gate::path_of("sh"), "-c".to_owned(), script.to_owned()]);
    let launcher = container.start(launch.options(["--workers", "1"]));
    launcher
        .process
        .wait_for("the orphan", |line| line.starts_with("left "));
    let left = eventually("it to be the launcher's", || {
        workers(&launcher, "1000").first().copied()
    });
    // Its worker is killed, and it must not stay behind.
    let ended = procfs::Handle::of(left);
    let worker = eventually("the worker", || workers(&launcher, "2000").first().copied());
    signal(worker, Signal::SIGKILL);
    ended.wait();
    stop(&container, launcher);
}

#[test]
fn a_stubborn_server_and_an_early_stop_take_less_than_ten_seconds() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["python3"]].concat()) else {
        return;
    };
    let container = Container::new(false);
    let launch = Launch::of(scripts::stubborn_witness()).options(["--workers", "2"]);
    let launcher = container.start(launch);
    launcher.ready();
    stop(&container, launcher);

    // Before it has an event loop: to PID 1 the kernel sends only signals that it has asked for.
    let site = Site::new();
    let launch = Launch::of(scripts::witness())
        .at(&site)
        .options(["--workers", "2"]);
    let launcher = container.start(launch);
    let lock = site.runtime_dir().join(format!("{}.lock", site.name()));
    eventually("the launcher to begin", || lock.exists().then_some(()));
    stop(&container, launcher);
}

/// The capabilities that the Deployment has, as setpriv calls them.
#[track_caller]
fn capabilities() -> Vec<String> {
    let deployment = include_str!("../../deploy/kubernetes.yaml");
    let (_, list) = deployment.split_once("add: [").expect("it adds some");
    let (list, _) = list.split_once(']').expect("a list");
    let words = list.split(", ").map(|name| name.trim_matches('"'));
    words.map(str::to_lowercase).collect()
}

#[test]
fn the_capabilities_of_image_and_deployment_are_the_same_and_enough() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["node", "setpriv"]].concat()) else {
        return;
    };
    let capabilities = capabilities();
    let list = format!("--cap-add {} ", capabilities.join(","));
    for file in [
        include_str!("../../deploy/Containerfile"),
        include_str!("../../docs/CONTAINERS.md"),
    ] {
        assert!(file.contains(&list), "{list} in {file}");
    }
    let set: String = capabilities
        .iter()
        .map(|name| format!(",+{name}"))
        .collect();
    let setpriv = gate::path_of("setpriv");
    for writable in [true, false] {
        let container = Container::new(writable);
        let mut wrapper = container.wrapper();
        wrapper.extend([
            setpriv.clone(),
            "--bounding-set".to_owned(),
            format!("-all{set}"),
        ]);
        wrapper.extend(["--inh-caps=-all", "--no-new-privs"].map(str::to_owned));
        let launcher = Launch::of(servers::node(8080))
            .options(["--workers", "2", "--user", "nobody"])
            .through(wrapper)
            .ready();
        let served = spread(address("127.0.0.1:8080"), 20);
        assert!(
            served.len() == 2 && served.values().all(|&count| count == 10),
            "{served:?}"
        );
        launcher.reload();
        let finished = stop(&container, launcher);
        assert!(
            !finished.stderr.contains("did not stop in time"),
            "{}",
            finished.stderr
        );
    }
}

#[test]
fn two_launchers_in_one_cgroup_are_refused() {
    let Some(_netns) = gate::enter(&[&PROGRAMS[..], &["node"]].concat()) else {
        return;
    };
    let container = Container::new(false);
    let launch = Launch::of(servers::node(8080)).options(["--workers", "1"]);
    let launcher = container.start(launch);
    launcher.ready();
    let another = Launch::of(servers::node(8081)).through(container.wrapper());
    another.run().assert_error(69, "another launcher uses");
    let finished = launcher.verb(&["upgrade"]);
    finished.assert_error(1, "no cgroups of their own");
    stop(&container, launcher);
}

#[test]
fn the_doctor_says_that_it_can_be_done() {
    let Some(_netns) = gate::enter(&PROGRAMS) else {
        return;
    };
    let container = Container::new(false);
    let words = container.wrapper();
    let (program, arguments) = words.split_first().expect("a wrapper");
    let mut command = std::process::Command::new(program);
    command
        .args(arguments)
        .arg(binary())
        .args(["doctor", "--json"]);
    let finished = Process::spawn(&mut command).finish();
    assert_eq!(finished.code(), 0, "{}{}", finished.stdout, finished.stderr);
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(report["rung"], "ebpf-with-migration");
    let checks = report["checks"].as_array().expect("a list").iter();
    let warned: Vec<_> = checks
        .filter(|check| check["state"] == "warn")
        .map(|check| check["id"].as_str().expect("text"))
        .collect();
    assert!(warned.contains(&"cgroup-writable"), "{warned:?}");
    assert_eq!(container.processes(), Vec::<u32>::new());
}
