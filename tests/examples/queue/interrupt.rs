//! Ctrl-C and its like: the benchmark ends early, and takes down what it has started.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use nix::sys::signal::{SigSet, Signal};

/// Whether INT, TERM or HUP has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on these signals end the process no more. To be called before a thread is started:
    /// each would end it.
    pub(crate) fn watch() -> io::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .collect();
        // The processes that are started have them unblocked again: `Command` sees to it.
        signals.thread_block()?;
        let came = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&came);
        thread::spawn(move || {
            // It fails for no set of existing signals.
            let _ = signals.wait();
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self(came))
    }

    /// Whether one has come.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
