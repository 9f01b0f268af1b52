//! Where eBPF objects are kept alive beyond the launcher: a directory of a bpffs for each fleet.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};

/// Where every distribution has its bpffs; systemd mounts it, and so do bpftool and iproute2.
const BPFFS: &str = "/sys/fs/bpf";

/// Where all fleets have theirs.
const DIRECTORY: &str = "reuseport-launch";

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// The directory of a fleet. Dropping it removes it, unless it [stays](Pins::stay): a launcher that can't
/// start leaves nothing.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    stays: bool,
}

impl Pins {
    /// Whether a bpffs is mounted where it is looked for.
    ///
    /// # Errors
    /// Those of `statfs`.
    pub fn can_be_had() -> io::Result<bool> {
        // `f_type` has another width and sign on other machines.
        Ok(statfs(BPFFS)?.f_type as u64 == BPF_FS_MAGIC)
    }

    /// Makes the directory of the fleet with this name and cgroup id, or finds the one that an
    /// earlier launcher of that fleet has left. Mounts the bpffs if nobody has.
    ///
    /// # Errors
    /// When it can't be mounted or written to.
    pub fn prepare(name: &str, cgroup: u64) -> io::Result<Self> {
        let root = Path::new(BPFFS);
        if !Self::can_be_had()? {
            mount(
                "bpf",
                root,
                "bpf",
                MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
                Some(c"mode=0700"),
            )?;
        }
        // A bpffs allows no dots in names (`bpf_lookup` in the kernel's `kernel/bpf/inode.c`).
        let name = name.replace('.', "_");
        let path = root.join(DIRECTORY).join(format!("{name}-{cgroup}"));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(Self { path, stays: false })
    }

    /// What an earlier launcher has left in another place, because its fleet had another cgroup. `None`
    /// when this is not the path of such a directory.
    #[must_use]
    pub fn left_behind(path: &Path) -> Option<Self> {
        let parent = Path::new(BPFFS).join(DIRECTORY);
        (path.parent() == Some(&parent) && path.is_dir()).then(|| Self {
            path: path.to_owned(),
            stays: true,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has it outlive this process, however that ends, from now on: workers depend on what is pinned
    /// there.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// Removes it: what is pinned there, and in use by nothing else, ends.
    ///
    /// # Errors
    /// Those of `unlink` and `rmdir`.
    pub fn remove(mut self) -> io::Result<()> {
        // Not a second time.
        self.stays = true;
        remove(&self.path)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if !self.stays {
            // What is left is removed by the next launcher of this name.
            let _ = remove(&self.path);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)?;
    // With another fleet's directory still in it, it stays.
    if let Some(parent) = path.parent() {
        let _ = fs::remove_dir(parent);
    }
    Ok(())
}
