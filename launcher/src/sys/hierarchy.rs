//! Where the cgroup v2 hierarchy is: mounted alone (unified), beside version 1 (hybrid), or not at
//! all, in which case it is mounted for this process alone.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::cgroup::FleetCgroup;
use crate::failure::{Exit, Failure};

/// Where the cgroup v2 hierarchy can be reached.
#[derive(Debug)]
pub struct Hierarchy {
    root: PathBuf,
    /// Our own cgroup, relative to `root`.
    own: PathBuf,
    /// A mount that nobody else sees, when the machine has mounted none.
    _private: Option<OwnedFd>,
}

impl Hierarchy {
    /// Finds the cgroup v2 mount (unified or hybrid), or makes one that only this process sees.
    ///
    /// # Errors
    /// When there is none and none can be mounted.
    pub fn find() -> Result<Self, Failure> {
        let mounts = read("/proc/self/mountinfo")?;
        let own = read("/proc/self/cgroup")?;
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default();
        if let Some((root, mount)) = mounts.lines().find_map(cgroup2_mount) {
            // In a cgroup namespace the path can lie outside of what is mounted; then the mount's
            // root is the best place we can reach.
            let own = Path::new("/").join(own);
            let own = own.strip_prefix(root).unwrap_or(Path::new(""));
            let own = if own.starts_with("..") {
                Path::new("")
            } else {
                own
            };
            return Ok(Self {
                root: mount,
                own: own.to_owned(),
                _private: None,
            });
        }
        let mount = mount_privately().map_err(|error| {
            Failure::io(
                CANNOT,
                "no cgroup v2 hierarchy is mounted, and mounting one",
                &error,
                "mount -t cgroup2 none /sys/fs/cgroup/unified, or run with CAP_SYS_ADMIN",
            )
            .exit(Exit::Unavailable)
        })?;
        Ok(Self {
            // A detached mount has no path of its own; this one works in this process.
            root: PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())),
            own: PathBuf::from(own),
            _private: Some(mount),
        })
    }

    /// Where the fleet of this name lives, relative to the hierarchy's root: what a later launcher
    /// needs to find it again.
    #[must_use]
    pub fn fleet_path(&self, name: &str) -> PathBuf {
        self.own.join(format!("reuseport-launch.{name}"))
    }

    /// The directory of the fleet of this name, for who only looks at it; there may be none.
    #[must_use]
    pub fn fleet_directory(&self, name: &str) -> PathBuf {
        self.root.join(self.fleet_path(name))
    }

    /// Our own cgroup's directory.
    #[must_use]
    pub fn own_directory(&self) -> PathBuf {
        self.root.join(&self.own)
    }

    /// Whether nobody has mounted the hierarchy, so that we did, for ourselves.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self._private.is_some()
    }

    /// Creates the fleet's directory. Where the file system is read-only, as it is in most containers,
    /// the fleet shares our own cgroup.
    ///
    /// # Errors
    /// When we may not write there, or our own cgroup can't be found in what is mounted.
    pub fn create_fleet(&self, name: &str) -> Result<FleetCgroup, Failure> {
        let path = self.root.join(self.fleet_path(name));
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error)
                if error.kind() == io::ErrorKind::ReadOnlyFilesystem
                    && let Some(fleet) = self.share_own(name).transpose()? =>
            {
                return Ok(fleet);
            }
            Err(error) => {
                return Err(Failure::io(
                    CANNOT,
                    format_args!("creating the cgroup {}", path.display()),
                    &error,
                    "run as root, or delegate this cgroup (systemd: Delegate=yes; containers: a writable cgroup mount)",
                )
                .exit(Exit::Unavailable));
            }
        }
        FleetCgroup::lock(path.clone()).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                return Failure::new(
                    format!("cannot start a launcher named {name}"),
                    "one of that name already runs in this cgroup, with another runtime directory",
                    "stop it, or choose another name: --name NAME",
                );
            }
            Failure::io(
                CANNOT,
                format_args!("opening the cgroup {}", path.display()),
                &error,
                "try again; if that does not help, look at the permissions of the cgroup",
            )
            .exit(Exit::Unavailable)
        })
    }

    /// Our own cgroup, for a fleet that can have none; `None` when it can't be found.
    fn share_own(&self, name: &str) -> Option<Result<FleetCgroup, Failure>> {
        match FleetCgroup::shared(self.own_directory()) {
            Ok(fleet) => Some(Ok(fleet)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Err(Failure::new(
                format!("cannot start the launcher {name}"),
                "no cgroup can be made here (the file system is read-only), and another launcher uses \
                 the one that there is",
                "give it a container of its own, or mount the cgroup file system writable",
            )
            .exit(Exit::Unavailable))),
            Err(_) => None,
        }
    }

    /// Goes on with the fleet's directory, which was passed on open and locked.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub fn resume_fleet(&self, name: &str, directory: OwnedFd) -> io::Result<FleetCgroup> {
        let path = self.root.join(self.fleet_path(name));
        FleetCgroup::locked(path, directory.into())
    }

    /// A fleet that an earlier launcher left at this path, if it is still there and nobody's.
    #[must_use]
    pub fn left_behind(&self, path: &Path) -> Option<FleetCgroup> {
        let path = self.root.join(path);
        FleetCgroup::lock(path).ok()
    }
}

const CANNOT: &str = "cannot capture sockets";

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        let hint = "mount /proc: mount -t proc proc /proc";
        Failure::io(CANNOT, format_args!("reading {path}"), &error, hint).exit(Exit::Unavailable)
    })
}

/// The mount's root and mount point, if this line of `/proc/self/mountinfo` is a cgroup v2 mount
/// (proc(5): the type follows the separator `-`).
fn cgroup2_mount(line: &str) -> Option<(&Path, PathBuf)> {
    let (mount, details) = line.split_once(" - ")?;
    if details.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let root = fields.next()?;
    // Space, tab, newline and backslash are written as octal escapes.
    let point = fields.next()?.replace("\\040", " ");
    Some((Path::new(root), PathBuf::from(point)))
}

fn mount_privately() -> io::Result<OwnedFd> {
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_mount_is_found() {
        let line = "42 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 none rw";
        assert_eq!(
            cgroup2_mount(line),
            Some((Path::new("/"), PathBuf::from("/sys/fs/cgroup/unified")))
        );
    }

    #[test]
    fn a_version_1_mount_is_not_taken_for_it() {
        let line = "42 31 0:38 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu";
        assert_eq!(cgroup2_mount(line), None);
    }

    #[test]
    fn a_mount_point_with_a_space_is_unescaped() {
        let line = "42 31 0:38 /a /mnt/my\\040cgroups rw - cgroup2 none rw";
        assert_eq!(
            cgroup2_mount(line),
            Some((Path::new("/a"), PathBuf::from("/mnt/my cgroups")))
        );
    }
}
