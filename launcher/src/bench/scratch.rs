//! A directory for one benchmark.

use std::{
    env,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process,
};

/// How many names are tried.
const NUMBERS: u32 = 1000;

/// Where the launchers under measurement meet, apart from those that serve. Goes when dropped.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Creates it among the temporary directories.
    pub(super) fn create() -> io::Result<Self> {
        let parent = env::temp_dir();
        let mut taken = io::ErrorKind::AlreadyExists.into();
        // One that was killed has left its own, and its pid may be ours now.
        for number in 0..NUMBERS {
            let name = format!("reuseport-launch-bench-{}-{number}", process::id());
            let path = parent.join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left then is an empty directory among the temporary ones.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_a_directory_of_its_own_and_goes() {
        let [one, other] = [(); 2].map(|()| Scratch::create().unwrap());
        let paths = [&one, &other].map(|scratch| scratch.path().to_owned());
        assert_ne!(paths[0], paths[1]);
        assert!(paths.iter().all(|path| path.is_dir()));
        drop((one, other));
        assert!(!paths.iter().any(|path| path.exists()));
    }
}
