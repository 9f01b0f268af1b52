//! How many workers there are by default, and which CPUs they may use.

use std::collections::BTreeSet;

use kernel_tests::{
    gate,
    launcher::Launch,
    procfs,
    quota::Quota,
    scripts::{self, idler, start_idlers},
};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};

/// The CPUs that this test may use.
fn allowed_cpus() -> Vec<u32> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("a thread can ask for its own");
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu) == Ok(true))
        .map(|cpu| cpu as u32)
        .collect()
}

/// Starts workers with `--pin`, and returns the CPUs of each as the kernel has them, once they are
/// those that status shows.
#[track_caller]
fn pinned(pin: &str, workers: u32) -> Vec<String> {
    let count = workers.to_string();
    let launch = Launch::of(idler()).options(["--workers", &count, "--pin", pin]);
    let (launcher, pids) = start_idlers(launch, workers);
    let status = launcher.status();
    let cpus: Vec<String> = pids
        .iter()
        .map(|&pid| procfs::status(pid, "Cpus_allowed_list"))
        .collect();
    for (slot, cpus) in (0..).zip(&cpus) {
        let shown = status.worker(slot)["cpus"].to_string();
        let expected = match pin {
            "none" => "[]".to_owned(),
            _ => format!("[{cpus}]"),
        };
        assert_eq!(shown, expected);
    }
    assert_eq!(launcher.stop(), 0);
    cpus
}

#[test]
fn pin_auto_gives_each_slot_a_cpu_of_its_own_as_far_as_there_are() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let allowed = allowed_cpus();
    let workers = allowed.len().min(4) as u32;
    let cpus = pinned("auto", workers + 1);
    let distinct: BTreeSet<&String> = cpus.iter().collect();
    assert_eq!(distinct.len(), workers as usize, "{cpus:?}");
    assert!(
        cpus.iter()
            .all(|cpu| cpu.parse().is_ok_and(|cpu| allowed.contains(&cpu))),
        "{cpus:?} of {allowed:?}"
    );
    if workers as usize == allowed.len() {
        assert_eq!(cpus.first(), cpus.last(), "the slots start over");
    }
}

#[test]
fn a_pin_list_is_dealt_out_by_slot() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let allowed = allowed_cpus();
    let (first, last) = (allowed[0], allowed[allowed.len() - 1]);
    let cpus = pinned(&format!("{last},{first}"), 3);
    let [first, last] = [first, last].map(|cpu| cpu.to_string());
    assert_eq!(cpus, [&last, &first, &last].map(String::clone));
}

#[test]
fn without_pin_workers_may_use_the_launchers_cpus() {
    let Some(_netns) = gate::enter(&["sh", "sleep"]) else {
        return;
    };
    let own = procfs::status(std::process::id(), "Cpus_allowed_list");
    assert_eq!(pinned("none", 2), [own.clone(), own]);
}

#[test]
fn the_number_of_workers_is_that_of_the_allowed_cpus() {
    let Some(_netns) = gate::enter(&["python3", "taskset"]) else {
        return;
    };
    let cpu = allowed_cpus()[0].to_string();
    let launcher = Launch::of(scripts::witness())
        .through([&gate::path_of("taskset"), "--cpu-list", &cpu])
        .start();
    let line = launcher.ready();
    assert!(line.contains("1 worker (affinity 1"), "{line}");
    assert_eq!(launcher.status().workers().len(), 1);
    assert_eq!(launcher.stop(), 0);
}

#[test]
fn a_cpu_quota_limits_the_number_of_workers() {
    let Some(_netns) = gate::enter(&["python3", "sh"]) else {
        return;
    };
    let Some(quota) = Quota::of_half_a_cpu() else {
        gate::skip("needs the cpu controller in a cgroup hierarchy that can be written to");
        return;
    };
    let launcher = Launch::of(scripts::witness())
        .through(quota.wrapper())
        .start();
    let line = launcher.ready();
    let reason = format!(
        "1 worker (affinity {}, cpu.max 0.5 → 1)",
        allowed_cpus().len()
    );
    assert!(line.contains(&reason), "{line}");
    assert_eq!(launcher.status().workers().len(), 1);
    assert_eq!(launcher.stop(), 0);
}
