//! What can't be done: without the privileges and kernel features it takes, with a command that
//! can't be run, with a command line that makes no sense.

use std::{ffi::OsStr, path::PathBuf};

use kernel_tests::{
    client::{self, address},
    gate,
    launcher::{Launch, Site},
    servers,
};

#[test]
fn a_wrong_command_line() {
    for (options, command, allowed) in [
        (&["--workers", "0"][..], &["true"][..], "allowed: auto, or "),
        (&["--workers", "many"], &["true"], "allowed: auto, or "),
        (
            &["--steer", "fastest"],
            &["true"],
            "round-robin, least-conn, hash, source, cpu, random, kernel",
        ),
        (
            &["--steer-udp", "least-conn"],
            &["true"],
            "no connections that could be counted; allowed: round-robin, hash",
        ),
        (
            &["--steer", "least-conn", "--port", "53/udp"],
            &["true"],
            "choose another policy",
        ),
        (&["--port", "0"], &["true"], "1"),
        (&[], &[], "reuseport-launch --workers auto -- ./myserver"),
    ] {
        let finished = Launch::of(command.iter().copied()).options(options).run();
        assert_eq!(finished.code(), 2, "{options:?}: {}", finished.stderr);
        assert!(
            finished.stderr.contains(allowed),
            "{options:?}: {}",
            finished.stderr
        );
        assert_eq!(finished.stdout, "");
    }
}

#[test]
fn a_wrong_number_of_workers_in_the_environment() {
    let finished = Launch::of(["true"]).env("WEB_CONCURRENCY", "0").run();
    assert_eq!(finished.code(), 2, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("WEB_CONCURRENCY"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_command_that_is_not_there_or_not_a_program() {
    let text = format!("{}/index.html", servers::FILES);
    for (command, code) in [
        ("reuseport-launch-no-such-program", 127),
        ("/no/such/directory/server", 127),
        (&text, 126),
        (servers::FILES, 126),
    ] {
        Launch::of([command]).run().assert_error(code, command);
    }
}

#[test]
fn a_launcher_that_cannot_start_leaves_nothing_pinned() {
    let Some(_netns) = gate::enter(&["sleep"]) else {
        return;
    };
    let site = Site::new();
    // Its programs are loaded and pinned before the control socket is opened, whose path has at most
    // 107 bytes.
    let deep = site.runtime_dir().join("d".repeat(100));
    let launch = sleeper()
        .at(&site)
        .options([OsStr::new("--runtime-dir"), deep.as_os_str()]);
    launch
        .run()
        .assert_error(1, "cannot open the control socket");
    assert_eq!(site.pins(), Vec::<PathBuf>::new());
    let cgroup = site.cgroup().expect("cgroup v2 is mounted");
    assert!(!cgroup.exists(), "{} is left", cgroup.display());
}

#[test]
fn missing_capabilities() {
    let Some(_netns) = gate::enter(&["setpriv", "sleep"]) else {
        return;
    };
    // CAP_SYS_ADMIN stands for the others.
    for (dropped, named) in [
        ("-all", "cannot"),
        ("-bpf,-sys_admin", "CAP_BPF is missing"),
        ("-net_admin,-sys_admin", "CAP_NET_ADMIN is missing"),
        ("-perfmon,-sys_admin", "CAP_PERFMON is missing"),
        (
            "-bpf,-sys_admin,-net_admin",
            "CAP_BPF and CAP_NET_ADMIN are missing",
        ),
    ] {
        let finished = sleeper().through(without(dropped)).run();
        finished.assert_error(69, named);
    }
}

#[test]
fn no_capability_to_look_into_workers_of_another_user() {
    let Some(_netns) = gate::enter(&["setpriv", "sleep"]) else {
        return;
    };
    for (dropped, named) in [
        ("-sys_ptrace", "CAP_SYS_PTRACE is missing"),
        (
            "-dac_read_search,-dac_override",
            "CAP_DAC_READ_SEARCH is missing",
        ),
    ] {
        sleeper()
            .options(["--user", "nobody"])
            .through(without(dropped))
            .run()
            .assert_error(69, named);
    }
}

#[test]
fn a_user_or_group_that_would_be_none() {
    let Some(_netns) = gate::enter(&["sleep"]) else {
        return;
    };
    for options in [
        ["--user", "4294967295", "--group", "0"],
        ["--user", "0", "--group", "4294967295"],
        // Other ways to write it.
        ["--user", "+4294967295", "--group", "0"],
        ["--user", "0", "--group", "04294967295"],
    ] {
        let finished = sleeper().options(options).run();
        finished.assert_error(2, "4294967295");
    }
}

#[test]
fn too_few_files_for_the_launcher_itself() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let sh = gate::path_of("sh");
    // It comes further with each.
    for limit in (10..=40).step_by(6) {
        let limited = format!("ulimit -n {limit} && exec \"$@\"");
        let finished = sleeper()
            .options(["--workers", "20"])
            .through([&sh, "-c", &limited, "sh"])
            .run();
        assert_ne!(finished.code(), 0, "{limit}: {}", finished.stderr);
        finished.assert_error(finished.code(), "ulimit -n");
    }
}

#[test]
fn no_cgroup_v2_and_no_way_to_mount_it() {
    let Some(_netns) = gate::enter(&["setpriv", "sleep", "unshare", "umount"]) else {
        return;
    };
    let wrapper = without_cgroup2().into_iter().chain(without("-sys_admin"));
    sleeper()
        .through(wrapper)
        .run()
        .assert_error(69, "cgroup v2");
}

#[test]
fn no_cgroup_v2_is_no_hindrance_where_it_can_be_mounted() {
    let Some(_netns) = gate::enter(&["node", "unshare", "umount"]) else {
        return;
    };
    let launch = Launch::of(servers::node(8080)).options(["--workers", "2"]);
    let launcher = launch.through(without_cgroup2()).start();
    launcher.ready();
    let answers = client::spread(address("127.0.0.1:8080"), 20);
    assert!(
        answers.len() == 2 && answers.values().all(|&count| count == 10),
        "{answers:?}"
    );
    assert_eq!(launcher.status().counter(8080, "selected_total"), 20);
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_kernel_that_does_not_know_a_feature() {
    let Some(_netns) = gate::enter(&["sleep", "strace"]) else {
        return;
    };
    sleeper()
        .through(gate::bpf_fails("EINVAL"))
        .run()
        .assert_error(69, "Linux 5.14 or later");
}

#[test]
fn a_container_that_forbids_ebpf() {
    let Some(_netns) = gate::enter(&["sleep", "strace"]) else {
        return;
    };
    sleeper()
        .through(gate::bpf_fails("EPERM"))
        .run()
        .assert_error(69, "seccomp");
}

/// A launcher that should not get as far as to start its workers.
fn sleeper() -> Launch {
    Launch::of([gate::path_of("sleep"), "60".to_owned()])
}

/// Runs a program without these capabilities.
fn without(capabilities: &str) -> Vec<String> {
    let setpriv = gate::path_of("setpriv");
    [
        &setpriv,
        "--bounding-set",
        capabilities,
        "--inh-caps",
        capabilities,
    ]
    .map(str::to_owned)
    .into()
}

/// Runs a program where no cgroup v2 hierarchy is mounted.
fn without_cgroup2() -> Vec<String> {
    let [unshare, umount] = ["unshare", "umount"].map(gate::path_of);
    let script = format!("{umount} --lazy --all --types cgroup2 && exec \"$@\"");
    [&unshare, "--mount", "/bin/sh", "-c", &script, "sh"]
        .map(str::to_owned)
        .into()
}
