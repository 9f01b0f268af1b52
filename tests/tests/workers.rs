//! What a worker is given: its environment, arguments, user, files, process group and cgroup.

use std::collections::BTreeMap;

use kernel_tests::{
    cgroup, client, gate,
    launcher::{Launch, Launcher, Site},
    process::Stream,
    procfs,
    scripts::{self, WITNESS_PORT, idler, start_idlers},
    servers,
};
use nix::unistd::{Group, Pid, User, getpgid};

#[test]
fn the_environment_says_who_a_worker_is_and_keeps_what_is_ours_from_it() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let ours = [
        "WEB_CONCURRENCY",
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    ];
    let launch = Launch::of(idler())
        .env("GODEBUG", "gctrace=1")
        .env("KEPT", "a b=c");
    let launch = ours
        .iter()
        .fold(launch, |launch, name| launch.env(name, "3"));
    let (launcher, pids) = start_idlers(launch, 3);
    for (slot, pid) in pids.into_iter().enumerate() {
        let environment = procfs::environment(pid);
        let slot = slot.to_string();
        for (name, value) in [
            ("REUSEPORT_LAUNCH_SLOT", slot.as_str()),
            ("REUSEPORT_LAUNCH_GENERATION", "1"),
            ("REUSEPORT_LAUNCH_WORKERS", "3"),
            ("NODE_APP_INSTANCE", &slot),
            ("GODEBUG", "gctrace=1,multipathtcp=0"),
            ("KEPT", "a b=c"),
        ] {
            let found = environment.get(name).map(String::as_str);
            assert_eq!(found, Some(value), "{name}");
        }
        for name in ours {
            assert_eq!(environment.get(name), None, "{name}");
        }
    }
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn the_slot_is_put_into_the_arguments() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let script = "echo started; exec sleep 1000{slot} \"$@\"";
    let launch =
        Launch::of(["sh", "-c", script, "{slot}", "7{slot}{slot}"]).options(["--workers", "2"]);
    let (launcher, pids) = start_idlers(launch, 2);
    let arguments: Vec<Vec<String>> = pids.iter().map(|&pid| procfs::arguments(pid)).collect();
    assert_eq!(
        arguments,
        [["sleep", "10000", "700"], ["sleep", "10001", "711"]]
    );
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_worker_has_its_own_process_group_no_signal_blocked_and_no_file_of_ours() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let launch = Launch::of(idler()).options(["--workers", "2"]);
    let (launcher, pids) = start_idlers(launch, 2);
    for pid in pids {
        let raw = Pid::from_raw(pid.cast_signed());
        assert_eq!(getpgid(Some(raw)), Ok(raw));
        for name in ["SigBlk", "SigIgn"] {
            let mask = u64::from_str_radix(&procfs::status(pid, name), 16);
            // 32 and 33 are glibc's own, whose `posix_spawn` leaves them ignored.
            assert_eq!(mask.map(|mask| mask & 0x7fff_ffff), Ok(0), "{name}");
        }
        let files = procfs::files(pid);
        // Apart from what this test itself was given, which no program on the way closes.
        let inherited = procfs::files(std::process::id())
            .into_keys()
            .filter(|&file| file > 2 && procfs::is_inherited(file));
        let expected: Vec<u32> = [0, 1, 2].into_iter().chain(inherited).collect();
        assert!(
            files.keys().eq(&expected),
            "{files:?} instead of {expected:?}"
        );
        assert_eq!(files[&0], "/dev/null");
        assert!(files[&1].starts_with("pipe:"), "{files:?}");
        assert!(files[&2].starts_with("pipe:"), "{files:?}");
        assert_ne!(files[&1], files[&2]);
    }
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn workers_of_another_user_share_their_port_as_well() {
    let Some(_netns) = gate::enter(&["python3"]) else {
        return;
    };
    let (Ok(Some(user)), Ok(Some(group))) =
        (User::from_name("nobody"), Group::from_name("nogroup"))
    else {
        gate::skip("needs the user nobody and the group nogroup");
        return;
    };
    let launcher = Launch::of(scripts::witness())
        .options(["--workers", "4", "--user", "nobody", "--group", "nogroup"])
        .ready();
    let status = launcher.status();
    let four_times = |id: u32| {
        [
            id.to_string(),
            id.to_string(),
            id.to_string(),
            id.to_string(),
        ]
    };
    for slot in 0..4 {
        let pid = status.pid(slot);
        let ids = |field| {
            let text = procfs::status(pid, field);
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(ids("Uid"), four_times(user.uid.as_raw()));
        assert_eq!(ids("Gid"), four_times(group.gid.as_raw()));
        assert_eq!(ids("Groups"), [group.gid.as_raw().to_string()]);
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(procfs::status(pid, set), "0000000000000000", "{set}");
        }
        let environment = procfs::environment(pid);
        assert_eq!(environment["USER"], "nobody");
        assert_eq!(environment["LOGNAME"], "nobody");
        assert_eq!(environment["HOME"], user.dir.to_string_lossy());
    }

    let served = client::spread(client::address("127.0.0.1:8080"), 40);
    for slot in 0..4 {
        let count = served.get(&status.pid(slot).to_string());
        assert_eq!(count.copied(), Some(10), "{served:?}");
    }
    let status = launcher.status();
    assert_eq!(status.counter(WITNESS_PORT, "selected_total"), 40);
    assert_eq!(status.counter(WITNESS_PORT, "fell_through_total"), 0);
    let expected: BTreeMap<u64, u64> = (0..4).map(|slot| (slot, 10)).collect();
    assert_eq!(status.connections(), expected);
    launcher
        .process
        .wait_until("a line for each request", |lines| {
            let logged = lines.iter().filter(|line| line.text.contains("\"GET / "));
            (logged.count() == 40).then_some(())
        });
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_low_limit_of_files_is_the_workers_and_not_the_launchers() {
    let Some(_netns) = gate::enter(&["busybox", "sh"]) else {
        return;
    };
    let sh = gate::path_of("sh");
    let tell = "ulimit -Sn; ulimit -Sn >&2; exec \"$@\"";
    let command = [&sh, "-c", tell, "sh"].map(str::to_owned);
    let launcher = Launch::of(command.into_iter().chain(servers::busybox(WITNESS_PORT)))
        .options(["--workers", "20"])
        .through([&sh, "-c", "ulimit -Sn 64 && exec \"$@\"", "sh"])
        .ready();
    launcher.process.wait_until("all their output", |lines| {
        let complete = [Stream::Out, Stream::Err].iter().all(|&stream| {
            let told = lines
                .iter()
                .filter(|line| line.stream == stream && line.text == "64");
            told.count() == 20
        });
        complete.then_some(())
    });
    client::spread(client::address("127.0.0.1:8080"), 40);
    let status = launcher.status();
    let expected: BTreeMap<u64, u64> = (0..20).map(|slot| (slot, 2)).collect();
    assert_eq!(status.connections(), expected);
    for worker in status.workers() {
        assert_eq!(worker["restarts"], 0, "{worker}");
    }
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_worker_that_moves_to_a_cgroup_of_its_own_making_is_steered_to() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let launcher = in_inner_cgroups(&[]);
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_worker_in_a_cgroup_of_its_own_making_and_in_another_pid_namespace_is_steered_to() {
    let Some(_netns) = gate::enter(&["python3", "sh", "unshare"]) else {
        return;
    };
    let unshare = gate::path_of("unshare");
    let launcher = in_inner_cgroups(&[&unshare, "--pid", "--fork", "--mount-proc", "--kill-child"]);
    // The process that this test has started is not the launcher, which it waits for.
    let stopped = launcher.site.control(&["stop", launcher.site.name()]);
    assert_eq!(stopped.code(), 0, "{}", stopped.stderr);
    assert_eq!(launcher.process.finish().code(), 0);
}

/// Starts two servers, each of which moves itself to a cgroup below its own before it binds, and
/// checks that they are steered to.
#[track_caller]
fn in_inner_cgroups(wrapper: &[&str]) -> Launcher {
    let site = Site::new();
    let fleet = site.cgroup().expect("cgroup v2 is mounted");
    let inner = fleet.join("{slot}.1/inner");
    let move_in = "mkdir \"$0\" && echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";
    let command = ["sh", "-c", move_in, &inner.to_string_lossy()].map(str::to_owned);
    let launcher = Launch::of(command.into_iter().chain(scripts::witness()))
        .at(&site)
        .options(["--workers", "2"])
        .through(wrapper.iter().copied())
        .ready();
    for slot in 0..2 {
        let inner = fleet.join(format!("{slot}.1/inner"));
        assert_eq!(cgroup::processes(&inner).len(), 1);
    }
    let pids = [0, 1].map(|slot| launcher.status().pid(slot).to_string());
    let served = client::spread(client::address("127.0.0.1:8080"), 20);
    assert_eq!(served, pids.map(|pid| (pid, 10)).into());
    launcher.status().assert_selected(WITNESS_PORT, 20);
    launcher
}
