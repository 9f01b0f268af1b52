//! `doctor`: what it says of a machine that has everything, and of one that lacks something.

use std::{collections::BTreeMap, path::Path, process::Command};

use kernel_tests::{
    cgroup, gate,
    launcher::binary,
    process::{Finished, Process},
};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../docs/DOCTOR.md");

/// Runs it with these arguments through a program that executes it in its place.
#[track_caller]
fn doctor<S: AsRef<str>>(wrapper: &[S], arguments: &[&str]) -> Finished {
    let binary = binary().to_str().expect("the target directory is UTF-8");
    let mut line: Vec<&str> = wrapper.iter().map(AsRef::as_ref).collect();
    line.extend([binary, "doctor"]);
    line.extend(arguments);
    let (program, arguments) = line.split_first().expect("the binary at least");
    let mut command = Command::new(program);
    for name in ["LC_ALL", "LC_CTYPE", "NO_COLOR"] {
        command.env_remove(name);
    }
    let process = Process::spawn(command.args(arguments).env("LANG", "C"));
    let pid = process.pid();
    let finished = process.finish();
    assert_nothing_left(pid);
    finished
}

/// What it tries is named after its pid.
#[track_caller]
fn assert_nothing_left(pid: u32) {
    let name = format!("doctor-{pid}");
    if let Some(directory) = cgroup::of_fleet(&name) {
        assert!(!directory.exists(), "{} is left", directory.display());
    }
    let pins = Path::new("/sys/fs/bpf/reuseport-launch");
    let left = pins.read_dir().into_iter().flatten().flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|entry| entry.to_string_lossy().starts_with(&format!("{name}-")))
        .collect();
    assert!(left.is_empty(), "{left:?} are left");
}

/// Its report, which is all it prints, and the state of each check in it.
#[track_caller]
fn report(finished: &Finished) -> (Value, BTreeMap<String, String>) {
    let Finished { stdout, stderr, .. } = finished;
    let report: Value = serde_json::from_str(stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}): {stdout}{stderr}"));
    let checks = report["checks"].as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let states = checks
        .iter()
        .map(|check| (text(&check["id"]), text(&check["state"])))
        .collect();
    (report, states)
}

fn without(capabilities: &str) -> Vec<String> {
    let setpriv = gate::path_of("setpriv");
    let words = ["--bounding-set", capabilities, "--inh-caps", capabilities];
    [setpriv]
        .into_iter()
        .chain(words.map(str::to_owned))
        .collect()
}

#[test]
fn a_machine_that_has_everything() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let finished = doctor::<&str>(&[], &["--json"]);
    let (report, states) = report(&finished);
    assert_eq!(finished.code(), 0, "{report:#}");
    assert_eq!(report["usable"], true);
    assert_eq!(report["rung"], "ebpf-with-migration");
    assert_eq!(report["raise"].as_array().map(Vec::len), Some(0));
    for id in [
        "cap-bpf",
        "cgroup-mount",
        "cgroup-writable",
        "ring-buffer",
        "socket-storage",
        "bind-hooks",
        "sock-ops",
        "array-of-maps",
        "socket-array",
        "sk-reuseport",
        "capture",
        "steering",
        "migration",
        "pidfd-getfd",
        "cgroup-kill",
        "bpffs",
    ] {
        assert_eq!(states.get(id).map(String::as_str), Some("ok"), "{id}");
    }
}

#[test]
fn the_document_has_every_command_every_id_and_every_key() {
    let Some(_netns) = gate::enter(&[]) else {
        return;
    };
    let blocks = DOCUMENT.split("```sh\n").skip(1);
    let lines = blocks
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines);
    let commands: Vec<Vec<&str>> = lines.map(|line| line.split(' ').collect()).collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        let [name, verb, arguments @ ..] = &command[..] else {
            panic!("{command:?}");
        };
        assert_eq!((*name, *verb), ("reuseport-launch", "doctor"));
        let _ = doctor::<&str>(&[], arguments).success();
    }
    let (report, states) = report(&doctor::<&str>(&[], &["--json"]));
    let keys = report.as_object().expect("an object").keys();
    let check = report["checks"][0].as_object().expect("an object");
    let values = report["checks"].as_array().expect("a list").iter();
    let areas = values.filter_map(|check| check["area"].as_str().map(str::to_owned));
    for word in keys
        .chain(check.keys())
        .cloned()
        .chain(states.keys().cloned())
        .chain(areas)
    {
        assert!(DOCUMENT.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn a_capability_that_is_missing_is_named() {
    let Some(_netns) = gate::enter(&["setpriv"]) else {
        return;
    };
    // CAP_SYS_ADMIN stands for these.
    for name in ["bpf", "net_admin", "perfmon"] {
        let wrapper = without(&format!("-sys_admin,-{name}"));
        let finished = doctor(&wrapper, &["--json"]);
        assert_eq!(finished.code(), 69, "{name}");
        let (report, states) = report(&finished);
        assert_eq!(report["usable"], false);
        assert_eq!(report["rung"], "none");
        let failed: Vec<_> = states
            .iter()
            .filter(|(_, state)| *state == "failed")
            .collect();
        let id = format!("cap-{}", name.replace('_', "-"));
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(*failed[0].0, id);
        let raise = report["raise"][0].as_str().expect("a sentence");
        assert!(
            raise.starts_with(&format!("CAP_{}", name.to_uppercase())),
            "{raise}"
        );
        assert!(raise.contains("setcap"), "{raise}");
    }
}

#[test]
fn a_capability_that_only_some_need_is_named_and_no_hindrance() {
    let Some(_netns) = gate::enter(&["setpriv"]) else {
        return;
    };
    for name in [
        "sys_ptrace",
        "setuid",
        "setgid",
        "kill",
        "chown",
        "sys_admin",
    ] {
        let finished = doctor(&without(&format!("-{name}")), &["--json"]);
        let (report, states) = report(&finished);
        assert_eq!(finished.code(), 0, "{name}: {report:#}");
        assert_eq!(report["rung"], "ebpf-with-migration", "{name}");
        let id = format!("cap-{}", name.replace('_', "-"));
        assert_eq!(states[&id], "warn");
        let warned = states
            .iter()
            .filter(|(id, state)| id.starts_with("cap-") && *state != "ok");
        assert_eq!(warned.count(), 1, "{name}");
    }
}

#[test]
fn a_cgroup_file_system_that_can_only_be_read() {
    let Some(_netns) = gate::enter(&["unshare", "mount"]) else {
        return;
    };
    let mount = cgroup::of_fleet("x").expect("the gate has asked for cgroup v2");
    let mount = mount.parent().expect("the hierarchy").display().to_string();
    let script = format!(
        "{0} --bind {mount} {mount} && {0} -o remount,ro,bind {mount} && exec \"$@\"",
        gate::path_of("mount")
    );
    let unshare = gate::path_of("unshare");
    let wrapper = [&unshare, "--mount", "/bin/sh", "-c", &script, "sh"];
    let finished = doctor(&wrapper, &["--json"]);
    assert_eq!(finished.code(), 69);
    let (report, states) = report(&finished);
    assert_eq!(states["cgroup-writable"], "failed");
    assert_eq!(states["capture"], "unknown");
    let raise = report["raise"][0].as_str().expect("a sentence");
    assert!(raise.contains("Delegate=yes"), "{raise}");
}

#[test]
fn a_container_that_forbids_ebpf() {
    let Some(_netns) = gate::enter(&["strace"]) else {
        return;
    };
    let wrapper = gate::bpf_fails("EPERM");
    let finished = doctor(&wrapper, &["--json"]);
    assert_eq!(finished.code(), 69);
    let (report, states) = report(&finished);
    for id in ["ring-buffer", "sk-reuseport", "capture"] {
        assert_eq!(states[id], "failed", "{id}");
    }
    let raise = report["raise"].as_array().expect("a list");
    assert_eq!(raise.len(), 1, "{raise:?}");
    assert!(
        raise[0]
            .as_str()
            .is_some_and(|advice| advice.contains("seccomp"))
    );
}

#[test]
fn the_marks_follow_the_locale() {
    let Some(_netns) = gate::enter(&["env"]) else {
        return;
    };
    let env = gate::path_of("env");
    let plain = doctor::<&str>(&[], &[]).success();
    assert!(plain.is_ascii(), "{plain}");
    assert!(plain.contains("\n  ok CAP_BPF"), "{plain}");
    for locale in ["LANG=de_DE.UTF-8", "LC_ALL=C.utf8"] {
        let pretty = doctor(&[&env, locale], &[]).success();
        assert!(pretty.contains("\n  ✓ CAP_BPF"), "{pretty}");
        assert!(pretty.contains("\nUsable, with all there is: "), "{pretty}");
        assert!(!pretty.contains('\x1b'), "no terminal, no colours");
    }
    let plain = doctor(&[&env, "LANG=de_DE.UTF-8", "LC_ALL=C"], &[]).success();
    assert!(plain.is_ascii(), "{plain}");
}
