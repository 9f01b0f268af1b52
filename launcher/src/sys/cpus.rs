//! What the machine gives this process: the CPUs it may run on, where they are, and how much CPU
//! time its cgroups allow.
//!
//! Nothing here fails: what can't be read is unknown, and counts as no limit.

#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use rustix::thread::{CpuSet, sched_getaffinity};

/// What [`machine`] has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The CPUs of the calling thread's affinity, ascending; empty where it is unknown. Each is a
    /// number, a package and a core within the package. A CPU whose place is unknown has package
    /// `u32::MAX` and its own number as the core, so that it shares its core with no other.
    pub cpus: Vec<(u32, u32, u32)>,
    /// The smallest quota of the process's cgroups, if any has one.
    pub quota: Option<Quota>,
}

/// An upper limit of CPU time.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// In CPUs: 0.5 is half the time of one. Above 0.
    pub cpus: f64,
    /// Which limit it is: `cpu.max of /a/b`.
    pub source: String,
}

/// Reads the affinity, the topology and the quota; files are looked up below `root` (`/`).
#[must_use]
pub fn machine(root: &Path) -> Machine {
    Machine {
        cpus: affinity()
            .into_iter()
            .map(|cpu| locate(root, cpu))
            .collect(),
        quota: quota(root),
    }
}

/// Every CPU that the kernel shows, also those that the calling thread may not run on: a number, a NUMA
/// node, a package and a core within the package. An unknown node is `u32::MAX`; the rest is as for
/// [`Machine::cpus`].
#[must_use]
pub fn topology(root: &Path) -> Vec<(u32, u32, u32, u32)> {
    let numbered = |directory: &Path, prefix: &str| -> Vec<u32> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| {
            let name = entry.file_name();
            name.to_str()?.strip_prefix(prefix)?.parse().ok()
        };
        entries.filter_map(number).collect()
    };
    let directory = root.join("sys/devices/system/cpu");
    let mut cpus = numbered(&directory, "cpu");
    cpus.sort_unstable();
    cpus.into_iter()
        .map(|cpu| {
            let nodes = numbered(&directory.join(format!("cpu{cpu}")), "node");
            let (_, package, core) = locate(root, cpu);
            let node = nodes.first().copied().unwrap_or(u32::MAX);
            (cpu, node, package, core)
        })
        .collect()
}

/// The CPUs that the calling thread may run on, ascending.
fn affinity() -> Vec<u32> {
    // Fails on a kernel for more than 1024 CPUs, the size of the set.
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .map(|cpu| cpu as u32)
        .collect()
}

/// The number, package and core of a CPU.
fn locate(root: &Path, cpu: u32) -> (u32, u32, u32) {
    let topology = root.join(format!("sys/devices/system/cpu/cpu{cpu}/topology"));
    // The package is -1 on machines whose firmware doesn't tell it.
    match (
        number(&topology.join("physical_package_id")),
        number(&topology.join("core_id")),
    ) {
        (Some(package), Some(core)) => (cpu, package, core),
        _ => (cpu, u32::MAX, cpu),
    }
}

/// The smallest CPU quota of the process's cgroup and all its ancestors, as far as they are
/// visible, in both versions of the hierarchy: the cpu controller is in one of them, and the other
/// has no such files.
fn quota(root: &Path) -> Option<Quota> {
    let cgroups = fs::read(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read(root.join("proc/self/mountinfo")).ok()?;
    // Other mounts may have names that aren't UTF-8.
    let (cgroups, mounts) = (
        String::from_utf8_lossy(&cgroups),
        String::from_utf8_lossy(&mounts),
    );
    let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();

    let mut quotas = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let version = match (number, controllers) {
            ("0", "") => Version::V2,
            _ if has(controllers, "cpu") => Version::V1,
            _ => continue,
        };
        let mounts = mounts.iter().filter(|mount| mount.version == version);
        quotas.extend(quotas_along(root, mounts, Path::new(path)));
    }
    // The first of equals: the innermost.
    quotas.into_iter().min_by(|a, b| a.cpus.total_cmp(&b.cpus))
}

/// The quotas of the cgroup at `path` and of its ancestors up to the root of the mount that shows
/// most of them.
fn quotas_along<'a>(
    root: &Path,
    mounts: impl DoubleEndedIterator<Item = &'a Mount>,
    path: &Path,
) -> Vec<Quota> {
    // Of several that show as much, the last: it covers the others where they share a place.
    let Some((mount, below)) = mounts
        .rev()
        .map(|mount| (mount, mount.below(path)))
        .min_by_key(|(mount, below)| (below.is_none(), mount.root.components().count()))
    else {
        return Vec::new();
    };
    // A process in a container can be outside of what the container's mount shows.
    let below = below.unwrap_or(Path::new(""));
    below
        .ancestors()
        .filter_map(|ancestor| {
            let directory = root.join(relative(&mount.point)).join(ancestor);
            let (file, cpus) = mount.version.quota(&directory)?;
            let cgroup = mount.root.join(ancestor);
            // An empty last component would leave a slash at the end.
            let cgroup: PathBuf = cgroup.components().collect();
            Some(Quota {
                cpus,
                source: format!("{file} of {}", cgroup.display()),
            })
        })
        .collect()
}

/// The version of a cgroup hierarchy; of version 1 only the one with the cpu controller counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// The quota that is set in a cgroup's directory, in CPUs, and the name of its file.
    fn quota(self, directory: &Path) -> Option<(&'static str, f64)> {
        let (file, quota, period): (_, f64, f64) = match self {
            Self::V1 => {
                let file = "cpu.cfs_quota_us";
                let period = number(&directory.join("cpu.cfs_period_us"))?;
                (file, number(&directory.join(file))?, period)
            }
            Self::V2 => {
                let file = "cpu.max";
                let text = fs::read_to_string(directory.join(file)).ok()?;
                let (quota, period) = text.trim().split_once(' ')?;
                (file, quota.parse().ok()?, period.parse().ok()?)
            }
        };
        // Without a quota, version 1 has -1, and version 2 a word that doesn't parse.
        (quota > 0.0 && period > 0.0).then_some((file, quota / period))
    }
}

/// A mounted cgroup hierarchy.
#[derive(Debug)]
struct Mount {
    version: Version,
    /// The cgroup that the mount shows as its top directory.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
}

impl Mount {
    /// Parses a line of mountinfo (proc_pid_mountinfo(5)).
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        let version = match name {
            "cgroup2" => Version::V2,
            "cgroup" if has(options, "cpu") => Version::V1,
            _ => return None,
        };
        Some(Self {
            version,
            root: unescape(root).into(),
            point: unescape(point).into(),
        })
    }

    /// The cgroup at `path` as seen from the mount's root, if it is there or below.
    fn below<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let below = path.strip_prefix(&self.root).ok()?;
        let leaves = below.components().any(|part| part == Component::ParentDir);
        (!leaves).then_some(below)
    }
}

/// Whether a comma-separated list has `word`.
fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}

/// `path` without the slash at its start.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Undoes mountinfo's escapes: space, tab, newline and backslash are written in octal.
fn unescape(text: &str) -> String {
    // The backslash last, or what follows one could become an escape.
    text.replace(r"\040", " ")
        .replace(r"\011", "\t")
        .replace(r"\012", "\n")
        .replace(r"\134", r"\")
}

/// The number that a file holds.
fn number<T: FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
