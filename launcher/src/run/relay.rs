//! What the launchers of several apps say of themselves, for the service manager that has started
//! their supervisor: it is told of all of them together.

use std::{ffi::OsString, io};

use tokio::sync::mpsc;
use tracing::warn;

use super::{
    news::{News, Notify},
    service::{Service, Told},
};
use crate::{
    sys::{notify::NotifySocket, runtime::RuntimeDir},
    worker::WorkerId,
};

/// The service manager, and the way by which launchers are heard.
pub(super) struct Relay {
    pub(super) service: Service,
    directory: RuntimeDir,
    wake: mpsc::Sender<News>,
    words: mpsc::Receiver<News>,
}

/// What one launcher has said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) ready: bool,
    pub(super) reloading: bool,
    status: String,
    notify: Option<(OsString, Notify)>,
}

impl Relay {
    pub(super) fn new(directory: RuntimeDir) -> Self {
        let (wake, words) = mpsc::channel(64);
        Self {
            service: Service::from_environment(),
            directory,
            wake,
            words,
        }
    }

    /// Returns when a launcher has said something.
    pub(super) async fn heard(&mut self) {
        // We have a sender ourselves, so there is no end of it.
        self.words.recv().await;
    }

    /// The socket that the launcher of this app is to tell; `None` where nobody wants to know.
    pub(super) fn socket(&self, app: &str, said: &mut Said) -> Option<OsString> {
        if !self.service.is_wanted() {
            return None;
        }
        if said.notify.is_none() {
            match self.listen(app) {
                Ok(notify) => said.notify = Some(notify),
                Err(error) => {
                    warn!("the service manager is not told of the app {app}: {error}");
                }
            }
        }
        said.notify.as_ref().map(|(path, _)| path.clone())
    }

    fn listen(&self, app: &str) -> io::Result<(OsString, Notify)> {
        /// All sockets are looked at, whoever it was.
        const SOMEBODY: WorkerId = WorkerId {
            slot: 0,
            generation: 0,
        };
        self.directory.prepare().map_err(io::Error::other)?;
        let path = self.directory.path().join(format!("{app}.app.notify"));
        let socket = NotifySocket::bind(&path, None)?;
        Ok((path.into(), Notify::new(&self.wake, SOMEBODY, socket)?))
    }

    /// Tells the service manager what has changed. `apps` are those that run, or are to run.
    pub(super) fn tell<'a>(
        &mut self,
        apps: impl Iterator<Item = (&'a str, &'a mut Said)>,
        stopping: bool,
    ) {
        let mut now = Told {
            ready: true,
            reloading: false,
            stopping,
            status: String::new(),
        };
        for (name, said) in apps {
            said.listen();
            // Of one that can't be heard nothing is awaited.
            now.ready &= said.ready || said.notify.is_none();
            now.reloading |= said.reloading;
            if !said.status.is_empty() {
                let separator = if now.status.is_empty() { "" } else { "; " };
                now.status += &format!("{separator}{name}: {}", said.status);
            }
        }
        self.service.update(now);
    }
}

impl Said {
    fn listen(&mut self) {
        let Some((_, notify)) = &self.notify else {
            return;
        };
        while let Some(word) = notify.socket.receive() {
            if word.reloading {
                self.reloading = true;
            }
            if word.ready {
                self.ready = true;
                self.reloading = false;
            }
            if let Some(status) = word.status {
                self.status = status;
            }
        }
    }

    /// Its launcher has ended.
    pub(super) fn end(&mut self) {
        self.listen();
        self.reloading = false;
        self.status.clear();
    }
}
