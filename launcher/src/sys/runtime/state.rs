//! What a launcher leaves for the next one of its name, should it be killed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::{Name, RuntimeDir};

/// The contents of `NAME.state`: it exists while a launcher runs and after one that was killed. Only
/// the holder of the name's [`Lock`](super::Lock) writes or removes it.
///
/// `F` is what it says of the fleet; who does not ask for that reads it as `IgnoredAny`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State<F = IgnoredAny> {
    /// The launcher's process id.
    pub pid: u32,
    /// The fleet's cgroup directory; empty where there is none.
    pub cgroup: String,
    /// RFC 3339.
    pub started_at: String,
    /// The launcher's name.
    pub name: String,
    /// The workers and their steering.
    pub fleet: F,
}

impl<F: DeserializeOwned> State<F> {
    /// Reads the state of `name`; `None` when there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what [`write`](Self::write) writes.
    pub fn read(directory: &RuntimeDir, name: &Name) -> io::Result<Option<Self>> {
        match fs::read(directory.state(name)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<F: Serialize> State<F> {
    /// Replaces the state of `name` atomically: a reader sees the old or the new one, whole.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, directory: &RuntimeDir, name: &Name) -> io::Result<()> {
        let path = directory.state(name);
        // No name ends a path in `.tmp`, so this is nobody else's file.
        let new = path.with_added_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        file.write_all(&text)?;
        fs::rename(new, path)
    }
}

impl<F> State<F> {
    /// Removes the state of `name`: its launcher has ended and left nothing behind.
    ///
    /// # Errors
    /// When it cannot be removed; that there is none is no error.
    pub fn remove(directory: &RuntimeDir, name: &Name) -> io::Result<()> {
        match fs::remove_file(directory.state(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
