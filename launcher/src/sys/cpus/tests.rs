//! Quotas and topology on made-up trees.

use std::{fs, path::Path};

use super::{Quota, affinity, locate, machine, quota, topology};

/// A machine's files below a temporary directory.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(cgroup: &str, mountinfo: &str) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.with("proc/self/cgroup", cgroup)
            .with("proc/self/mountinfo", mountinfo)
    }

    fn with(self, path: &str, content: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// The quota found: its CPUs and its source.
    fn quota(&self) -> Option<(f64, String)> {
        quota(self.root()).map(|Quota { cpus, source }| (cpus, source))
    }
}

fn found(cpus: f64, source: &str) -> Option<(f64, String)> {
    Some((cpus, source.to_owned()))
}

const UNIFIED: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
";

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn unified() {
    let tree = Tree::new("0::/user.slice/app\n", UNIFIED)
        .with("sys/fs/cgroup/user.slice/app/cpu.max", "750000 100000\n")
        .with("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n");
    assert_eq!(tree.quota(), found(7.5, "cpu.max of /user.slice/app"));
}

#[test]
fn the_smallest_of_nested_quotas_wins() {
    let tree = Tree::new("0::/a/b/c\n", UNIFIED)
        .with("sys/fs/cgroup/a/cpu.max", "400000 100000\n")
        .with("sys/fs/cgroup/a/b/cpu.max", "150000 50000\n")
        .with("sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n")
        .with("sys/fs/cgroup/a/sibling/cpu.max", "10000 100000\n");
    assert_eq!(tree.quota(), found(3.0, "cpu.max of /a/b"));
}

#[test]
fn of_equal_quotas_the_innermost_is_named() {
    let tree = Tree::new("0::/a/b\n", UNIFIED)
        .with("sys/fs/cgroup/a/cpu.max", "200000 100000\n")
        .with("sys/fs/cgroup/a/b/cpu.max", "100000 50000\n");
    assert_eq!(tree.quota(), found(2.0, "cpu.max of /a/b"));
}

#[test]
fn half_a_cpu() {
    let tree = Tree::new("0::/a\n", UNIFIED).with("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    assert_eq!(tree.quota(), found(0.5, "cpu.max of /a"));
}

#[test]
fn hybrid() {
    let cgroup = "4:memory:/\n3:cpuset:/x\n2:cpu,cpuacct:/a/b\n0::/user.slice\n";
    let tree = Tree::new(cgroup, HYBRID)
        .with("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
        .with("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
        .with("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "250000\n")
        .with("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n")
        .with("sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n")
        .with(
            "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us",
            "100000\n",
        )
        .with("sys/fs/cgroup/unified/user.slice/cgroup.procs", "");
    assert_eq!(tree.quota(), found(2.5, "cpu.cfs_quota_us of /a"));
}

#[test]
fn none() {
    assert_eq!(Tree::new("0::/a\n", UNIFIED).quota(), None);
    let unlimited = Tree::new("0::/a\n", UNIFIED).with("sys/fs/cgroup/a/cpu.max", "max 100000\n");
    assert_eq!(unlimited.quota(), None);
    assert_eq!(Tree::new("0::/a\n", "").quota(), None);
    assert_eq!(quota(tempfile::tempdir().unwrap().path()), None);
}

#[test]
fn nonsense_is_no_quota() {
    for content in [
        "",
        "\n",
        "max\n",
        "0 100000\n",
        "100000 0\n",
        "-5 100000\n",
        "a b\n",
        "nan 1\n",
    ] {
        let tree = Tree::new("::\n0:\n\n0::/a\n", UNIFIED).with("sys/fs/cgroup/a/cpu.max", content);
        assert_eq!(tree.quota(), None, "{content:?}");
    }
}

#[test]
fn a_namespace_hides_what_is_above() {
    // With its own cgroup namespace, a container's cgroup is the root, and has a quota.
    let tree = Tree::new("0::/\n", UNIFIED).with("sys/fs/cgroup/cpu.max", "150000 100000\n");
    assert_eq!(tree.quota(), found(1.5, "cpu.max of /"));
}

#[test]
fn a_mount_shows_only_the_containers_cgroup() {
    let mountinfo = "30 22 0:26 /docker/1f /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
    let tree = Tree::new("0::/docker/1f/app\n", mountinfo)
        .with("sys/fs/cgroup/cpu.max", "100000 100000\n")
        .with("sys/fs/cgroup/app/cpu.max", "200000 100000\n");
    assert_eq!(tree.quota(), found(1.0, "cpu.max of /docker/1f"));
}

#[test]
fn a_cgroup_outside_of_the_mount_counts_as_its_root() {
    for (root, path) in [
        ("/docker/1f", "/docker/other"),
        ("/", "/../sibling"),
        ("/../..", "/"),
        ("/..", "/../../a"),
    ] {
        let mountinfo = format!("30 22 0:26 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
        let tree = Tree::new(&format!("0::{path}\n"), &mountinfo)
            .with("sys/fs/cgroup/cpu.max", "100000 100000\n");
        assert_eq!(
            tree.quota(),
            found(1.0, &format!("cpu.max of {root}")),
            "{path}"
        );
    }
}

#[test]
fn the_mount_that_shows_most_is_used() {
    let mountinfo = "\
30 22 0:26 /other /var/lib/other rw - cgroup2 cgroup2 rw
31 22 0:26 /a/b /mnt/b rw - cgroup2 cgroup2 rw
32 22 0:26 / /mnt/a\\040cgroup\\134040 rw master:3 propagate_from:1 - cgroup2 cgroup2 rw
33 22 0:26 /a /mnt/part rw - cgroup2 cgroup2 rw
";
    let tree = Tree::new("0::/a/b\n", mountinfo)
        .with("var/lib/other/cpu.max", "10000 100000\n")
        .with("mnt/a cgroup\\040/a/cpu.max", "300000 100000\n");
    assert_eq!(tree.quota(), found(3.0, "cpu.max of /a"));
}

#[test]
fn a_cgroup_that_was_removed_leaves_its_ancestors() {
    let tree = Tree::new("0::/a/b (deleted)\n", UNIFIED)
        .with("sys/fs/cgroup/a/cpu.max", "100000 100000\n");
    assert_eq!(tree.quota(), found(1.0, "cpu.max of /a"));
}

#[test]
fn cpus_are_located() {
    let tree = Tree::new("", "")
        .with(
            "sys/devices/system/cpu/cpu3/topology/physical_package_id",
            "1\n",
        )
        .with("sys/devices/system/cpu/cpu3/topology/core_id", "7\n")
        .with(
            "sys/devices/system/cpu/cpu4/topology/physical_package_id",
            "-1\n",
        )
        .with("sys/devices/system/cpu/cpu4/topology/core_id", "7\n");
    assert_eq!(locate(tree.root(), 3), (3, 1, 7));
    assert_eq!(locate(tree.root(), 4), (4, u32::MAX, 4));
    assert_eq!(locate(tree.root(), 5), (5, u32::MAX, 5));
}

#[test]
fn this_machine_has_cpus() {
    let cpus: Vec<u32> = machine(Path::new("/"))
        .cpus
        .iter()
        .map(|&(id, ..)| id)
        .collect();
    assert!(!cpus.is_empty());
    assert_eq!(cpus, affinity());
}

#[test]
fn every_cpu_has_its_place() {
    let tree = Tree::new("", "")
        .with(
            "sys/devices/system/cpu/cpu1/topology/physical_package_id",
            "1\n",
        )
        .with("sys/devices/system/cpu/cpu1/topology/core_id", "4\n")
        .with("sys/devices/system/cpu/cpu1/node2/cpulist", "1\n")
        .with("sys/devices/system/cpu/cpu0/online", "1\n")
        .with("sys/devices/system/cpu/cpufreq/boost", "0\n");
    let unknown = u32::MAX;
    assert_eq!(
        topology(tree.root()),
        [(0, unknown, unknown, 0), (1, 2, 1, 4)]
    );
    assert_eq!(topology(Path::new("/none")), []);
}
