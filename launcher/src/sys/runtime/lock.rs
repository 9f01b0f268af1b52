//! One launcher per name: a file lock, which the kernel drops when its holder ends, however it ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use super::{Name, RuntimeDir};
use crate::failure::Failure;

/// Held for as long as the launcher of a name runs.
///
/// The file stays when the lock is dropped. Were it removed, one launcher could hold the lock of
/// the removed file while the next one locks a new file of the same name.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<OwnedFd> for Lock {
    /// Goes on with a lock that was passed on through exec.
    fn from(fd: OwnedFd) -> Self {
        Self { file: fd.into() }
    }
}

impl Lock {
    /// Takes the lock of `name`, without waiting, and leaves this process's pid in the file. The
    /// directory must be [prepared](RuntimeDir::prepare).
    ///
    /// # Errors
    /// When another process holds it, whose pid is then named, or the file cannot be written.
    pub fn acquire(directory: &RuntimeDir, name: &Name) -> Result<Self, Failure> {
        let path = directory.lock(name);
        let failed = |error: io::Error| {
            Failure::new(
                format!("cannot lock {}", path.display()),
                error,
                "check the directory, or choose another with --runtime-dir DIR",
            )
        };
        // Readable for the owner only: whoever can open the file could lock it.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(&mut file, name)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self { file })
    }
}

fn busy(file: &mut File, name: &Name) -> Failure {
    // The holder may be about to write its pid.
    let mut text = String::new();
    let holder = match file
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok())
    {
        Some(pid) => format!("a launcher named {name} already runs (pid {pid})"),
        None => format!("a launcher named {name} already runs"),
    };
    Failure::new(
        format!("cannot start as {name}"),
        holder,
        format!(
            "stop it with `reuseport-launch stop {name}`, or choose another name: --name OTHER"
        ),
    )
}
