//! A limit of CPU time for a launcher.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use crate::gate::path_of;

/// A cgroup with a quota of CPU time; removed when dropped, which must come after the end of what
/// is in it.
#[derive(Debug)]
pub struct Quota(PathBuf);

impl Quota {
    /// Half a CPU. `None`: the cpu controller can't be used here.
    #[must_use]
    pub fn of_half_a_cpu() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let memberships = fs::read_to_string("/proc/self/cgroup").ok()?;
        mounts.lines().find_map(|mount| {
            let fields: Vec<&str> = mount.split(' ').collect();
            let [_, point, kind, options, ..] = fields[..] else {
                return None;
            };
            let own = memberships.lines().find_map(|membership| {
                let (_, membership) = membership.split_once(':')?;
                let (controllers, path) = membership.split_once(":/")?;
                let is_it = match kind {
                    "cgroup" => has(options, "cpu") && has(controllers, "cpu"),
                    "cgroup2" => controllers.is_empty(),
                    _ => false,
                };
                is_it.then_some(path)
            })?;
            let parent = Path::new(point).join(own);
            let quota = Self(parent.join(format!("test-quota-{}", process::id())));
            quota.create(&parent, kind == "cgroup2").ok()?;
            Some(quota)
        })
    }

    fn create(&self, parent: &Path, version_2: bool) -> io::Result<()> {
        let Self(dir) = self;
        if version_2 {
            // Refused where a process is in `parent`, unless that is the root.
            fs::write(parent.join("cgroup.subtree_control"), "+cpu")?;
        }
        fs::create_dir(dir)?;
        if version_2 {
            fs::write(dir.join("cpu.max"), "50000 100000")
        } else {
            fs::write(dir.join("cpu.cfs_period_us"), "100000")?;
            fs::write(dir.join("cpu.cfs_quota_us"), "50000")
        }
    }

    /// Runs a program in it, in the wrapper's place.
    ///
    /// # Panics
    /// When `sh` was not asked for.
    #[must_use]
    pub fn wrapper(&self) -> Vec<String> {
        let procs = self.0.join("cgroup.procs").display().to_string();
        let enter = "echo 0 > \"$0\" && exec \"$@\"";
        vec![path_of("sh"), "-c".to_owned(), enter.to_owned(), procs]
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // What was just killed may not have left it yet.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn has(list: &str, word: &str) -> bool {
    list.split(',').any(|item| item == word)
}
