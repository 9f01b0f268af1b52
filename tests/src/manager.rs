//! A service manager: hears what the launcher tells it (sd_notify(3)).

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Instant,
};

use tempfile::TempDir;

use crate::{PATIENCE, launcher::Launch};

/// What ends the thread that reads.
const END: &str = "END OF THE TEST";

/// The service manager of a launcher. It reads all the time, as one does: the kernel lets few messages
/// wait.
#[derive(Debug)]
pub struct Manager {
    address: SocketAddr,
    name: String,
    lines: Receiver<String>,
    /// All that was received of them.
    heard: Mutex<Vec<String>>,
    _dir: Option<TempDir>,
}

impl Manager {
    /// One whose socket is a file.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn of_file() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("notify");
        let address = SocketAddr::from_pathname(&path).expect("short enough");
        let name = path.to_str().expect("UTF-8").to_owned();
        Self::new(address, name, Some(dir))
    }

    /// One whose socket has an abstract name.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn of_name() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("reuseport-launch-test-{}-{number}", process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("short enough");
        Self::new(address, format!("@{name}"), None)
    }

    fn new(address: SocketAddr, name: String, dir: Option<TempDir>) -> Self {
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else's");
        let (hear, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let message = String::from_utf8_lossy(&message[..length]);
                for line in message.lines() {
                    if line == END || hear.send(line.to_owned()).is_err() {
                        return;
                    }
                }
            }
        });
        Self {
            address,
            name,
            lines,
            heard: Mutex::default(),
            _dir: dir,
        }
    }

    /// The same launcher, told of it.
    #[must_use]
    pub fn of(&self, launch: Launch) -> Launch {
        launch.env("NOTIFY_SOCKET", &self.name)
    }

    /// Its address, as in `NOTIFY_SOCKET`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it has been told lines that start like these, in this order, after those that it was
    /// asked for before; and returns them.
    ///
    /// # Panics
    /// When it is not within [`PATIENCE`].
    #[track_caller]
    pub fn told<const N: usize>(&self, wanted: [&str; N]) -> [String; N] {
        let deadline = Instant::now() + PATIENCE;
        wanted.map(|wanted| {
            loop {
                match self.next(deadline) {
                    Ok(line) if line.starts_with(wanted) => return line,
                    Ok(_) => {}
                    Err(error) => {
                        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                        panic!("waited in vain for {wanted} ({error}): {heard:#?}")
                    }
                }
            }
        })
    }

    /// All that it has been told, now that the launcher has ended.
    #[must_use]
    pub fn heard(self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        self.end();
        while self.next(deadline).is_ok() {}
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut heard)
    }

    fn next(&self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left)?;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(line.clone());
        Ok(line)
    }

    fn end(&self) {
        // When it has ended, there is nobody to tell.
        let _ = UnixDatagram::unbound()
            .and_then(|socket| socket.send_to_addr(END.as_bytes(), &self.address));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.end();
    }
}
