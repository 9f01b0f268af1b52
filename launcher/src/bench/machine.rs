//! The machine that is measured on, and which of its CPUs are whose.

use std::{fs, path::Path};

use super::model::Host;
use crate::sys::cpus::{self, Machine};

/// Where cgroup hierarchies with a memory controller are mounted, and the file of the limit.
const MEMORY: [(&str, &str, &str); 3] = [
    ("", "sys/fs/cgroup", "memory.max"),
    ("", "sys/fs/cgroup/unified", "memory.max"),
    ("memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes"),
];

/// The most threads that the generator has.
const GENERATOR_CPUS: usize = 2;

/// What is told about the machine. `machine` is what its CPUs are, `own_namespace` whether the calling
/// thread is in a network namespace of its own.
pub(super) fn host(machine: &Machine, own_namespace: bool) -> Host {
    let root = Path::new("/");
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    Host {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        cpu: cpu_model(),
        cpus: online(),
        affinity: machine.cpus.len() as u32,
        cpu_limit: machine.quota.as_ref().map(|quota| quota.cpus),
        memory_limit: memory_limit(root),
        somaxconn: somaxconn.trim().parse().unwrap_or(0),
        own_namespace,
    }
}

/// The CPU's model, as the kernel calls it.
pub(super) fn cpu_model() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown CPU".to_owned(), |(_, model)| model.to_owned())
}

/// How many CPUs are online.
fn online() -> u32 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = stat.lines().filter(|line| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    lines.count() as u32
}

/// The smallest memory limit of our cgroups and their ancestors, as far as they are visible below
/// `root`, in bytes.
fn memory_limit(root: &Path) -> Option<u64> {
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = cgroups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        let path = fields.next().unwrap_or_default().trim_start_matches('/');
        let mounts = MEMORY
            .iter()
            .filter(move |(controller, ..)| controllers.split(',').any(|name| name == *controller));
        mounts.flat_map(move |(_, mount, file)| {
            Path::new(path).ancestors().filter_map(move |cgroup| {
                let file = root.join(mount).join(cgroup).join(file);
                fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()
            })
        })
    });
    // Without a limit, version 2 has a word that does not parse, and version 1 about 2⁶³.
    limits.min().filter(|&limit| limit < 1 << 62)
}

/// Sets CPUs apart: those of the workers (and of a dispatcher), and those of the load generator. `None`
/// where they have to share them.
///
/// They are set apart where there are at least twice as many CPUs as workers. The generator then gets
/// one or two at the end, as long as each worker and a dispatcher keep one of their own; SMT siblings
/// stand beside each other, so that they are cut apart at one place at most.
pub(super) fn set_apart(machine: &Machine, workers: u32) -> Option<(Vec<usize>, Vec<usize>)> {
    let workers = workers as usize;
    let mut cpus = machine.cpus.clone();
    if cpus.len() < 2 || cpus.len() < 2 * workers {
        return None;
    }
    // By package, then core.
    cpus.sort_unstable_by_key(|&(cpu, package, core)| (package, core, cpu));
    let mut cpus: Vec<usize> = cpus.into_iter().map(|(cpu, ..)| cpu as usize).collect();
    let spare = cpus.len().saturating_sub(workers + 1);
    let generator = cpus.split_off(cpus.len() - spare.clamp(1, GENERATOR_CPUS));
    Some((cpus, generator))
}

/// What this process may use.
pub(super) fn read() -> Machine {
    cpus::machine(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cpus: &[(u32, u32, u32)]) -> Machine {
        Machine {
            cpus: cpus.to_vec(),
            quota: None,
        }
    }

    #[test]
    fn the_generator_is_set_apart_where_there_are_cpus_enough() {
        let two = of(&[(0, 0, 0), (1, 0, 1)]);
        assert_eq!(set_apart(&two, 1), Some((vec![0], vec![1])));
        assert_eq!(set_apart(&two, 2), None);
        assert_eq!(set_apart(&of(&[(0, 0, 0)]), 1), None);
        assert_eq!(set_apart(&of(&[]), 1), None);
        let eight: Vec<_> = (0..8).map(|cpu| (cpu, 0, cpu)).collect();
        let eight = of(&eight);
        assert_eq!(
            set_apart(&eight, 4),
            Some((vec![0, 1, 2, 3, 4, 5], vec![6, 7]))
        );
        assert_eq!(set_apart(&eight, 5), None);
        let four = of(&[(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3)]);
        assert_eq!(set_apart(&four, 2), Some((vec![0, 1, 2], vec![3])));
    }

    #[test]
    fn siblings_stay_together() {
        // 0 and 4 share a core, as do 1 and 5, …
        let cpus: Vec<_> = (0..8).map(|cpu| (cpu, 0, cpu % 4)).collect();
        let (workers, generator) = set_apart(&of(&cpus), 2).unwrap();
        assert_eq!((workers, generator), (vec![0, 4, 1, 5, 2, 6], vec![3, 7]));
    }

    #[test]
    fn memory_limits_of_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(memory_limit(root.path()), None);
        write("proc/self/cgroup", "3:cpu,memory:/a/b\n0::/c/d\n");
        assert_eq!(memory_limit(root.path()), None);
        write(
            "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "9223372036854771712\n",
        );
        write("sys/fs/cgroup/unified/c/d/memory.max", "max\n");
        assert_eq!(memory_limit(root.path()), None);
        write("sys/fs/cgroup/unified/c/memory.max", "2000\n");
        assert_eq!(memory_limit(root.path()), Some(2000));
        write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n");
        assert_eq!(memory_limit(root.path()), Some(1000));
    }
}
