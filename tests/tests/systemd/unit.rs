//! The unit file: that systemd accepts it, and that the launcher works with exactly its capabilities.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use kernel_tests::{
    cgroup::Delegated,
    gate,
    launcher::{Launch, Launcher, Site, binary},
    manager::Manager,
    process::Process,
    servers,
};

const NAME: &str = "reuseport-launch@.service";
const UNIT: &str = include_str!("../../../deploy/reuseport-launch@.service");

/// What the unit sets this to.
#[track_caller]
fn setting(name: &str) -> &'static str {
    let mut lines = UNIT.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("it has no {name}"))
}

/// Its capabilities, as setpriv calls them.
fn capabilities() -> Vec<String> {
    let names = setting("CapabilityBoundingSet").split(' ');
    names
        .map(|name| name.strip_prefix("CAP_").expect("CAP_…").to_lowercase())
        .collect()
}

/// A fleet of gunicorn, which tells that it is ready, as another user; with these capabilities.
#[track_caller]
fn start(place: &Delegated, manager: &Manager, capabilities: &[String]) -> Launcher {
    let site = Site::new();
    // As RuntimeDirectoryMode= has it.
    fs::set_permissions(site.runtime_dir(), Permissions::from_mode(0o755)).expect("ours");
    let set = capabilities.iter().map(|name| format!(",+{name}"));
    let set = format!("-all{}", set.collect::<String>());
    let setpriv = [
        &gate::path_of("setpriv"),
        "--bounding-set",
        &set,
        "--inh-caps=-all",
        "--no-new-privs",
    ];
    let wrapper = place.wrapper().into_iter();
    let launch = Launch::of(servers::gunicorn(8080))
        .at(&site)
        .options(["--workers", "2", "--user", "nobody", "--ready", "notify"])
        .options(["--stop-timeout", "3s"])
        .through(wrapper.chain(setpriv.map(str::to_owned)));
    manager.of(launch).start()
}

#[test]
fn systemd_accepts_it() {
    let Some(_netns) = gate::enter(&["systemd-analyze"]) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(NAME);
    let binary = binary().to_str().expect("UTF-8");
    let unit = UNIT.replace("/usr/bin/reuseport-launch", binary);
    assert_eq!(unit.matches(binary).count(), 2);
    fs::write(&file, unit).expect("written");
    let mut command = Command::new(gate::path_of("systemd-analyze"));
    let verified = Process::spawn(command.arg("verify").arg(&file)).finish();
    assert_eq!(verified.success(), "");
}

#[test]
fn its_capabilities_are_enough() {
    let Some(_netns) = gate::enter(&["gunicorn", "setpriv", "sh"]) else {
        return;
    };
    let place = Delegated::new().expect("the gate has asked for cgroup v2");
    let manager = Manager::of_file();
    let launcher = start(&place, &manager, &capabilities());
    manager.told(["STATUS=2 of 2 workers ready", "READY=1"]);

    assert!(setting("ExecStart").ends_with(" run --name %i $ARGS"));
    let reload = setting("ExecReload").replace("%i", launcher.site.name());
    let words: Vec<&str> = reload.split(' ').skip(1).collect();
    let _ = launcher.site.control(&words).success();
    manager.told(["RELOADING=1", "READY=1"]);
    let status = launcher.status();
    assert!(status.is_ready(0, 2) && status.is_ready(1, 2), "{status:?}");

    let (finished, _) = launcher.end(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    assert!(!finished.stderr.contains(" WARN "), "{}", finished.stderr);
    manager.told(["STOPPING=1"]);
}

#[test]
fn each_of_its_capabilities_is_needed() {
    let Some(_netns) = gate::enter(&["gunicorn", "setpriv", "sh"]) else {
        return;
    };
    let all = capabilities();
    for dropped in &all {
        let left: Vec<String> = all
            .iter()
            .filter(|name| *name != dropped)
            .cloned()
            .collect();
        let place = Delegated::new().expect("the gate has asked for cgroup v2");
        let manager = Manager::of_file();
        let launcher = start(&place, &manager, &left);
        let told = |why: &str| {
            launcher
                .process
                .wait_for(dropped, |line| line.contains(why));
        };
        match dropped.as_str() {
            "bpf" | "net_admin" | "perfmon" | "sys_ptrace" | "dac_read_search" => {
                told(&format!("CAP_{} is missing", dropped.to_uppercase()));
            }
            "setuid" => told("setting its user failed"),
            "setgid" => told("setting its groups failed"),
            "chown" => told("making its notification socket failed"),
            "kill" => {
                manager.told(["READY=1"]);
                launcher.process.signal(nix::sys::signal::Signal::SIGTERM);
                told("did not stop in time");
            }
            _ => panic!("what is {dropped} for?"),
        }
        drop(launcher.process);
    }
}
