//! Ctrl-C and its like: a measurement ends early, and takes down what it has started.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::failure::Failure;

/// Whether INT, TERM or HUP has come.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on these signals end the process no more.
    pub(super) fn watch() -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        drop(entered);
        let flag = Arc::clone(&came);
        thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hang_up.recv() => {}
                    }
                });
                flag.store(true, Ordering::Relaxed);
            })?;
        Ok(Self(came))
    }

    /// Whether one has come.
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Turns one that has come into an error.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.came() {
            return Err(Failure::new(
                "not measured to the end",
                "interrupted by a signal",
                "everything that was started has been stopped",
            ));
        }
        Ok(())
    }
}
