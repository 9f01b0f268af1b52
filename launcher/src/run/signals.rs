//! The signals that the launcher handles, and what they mean.

use std::{
    future::poll_fn,
    io::{self, IsTerminal as _},
    task::Poll,
};

use nix::sys::signal::{SigSet, SigmaskHow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::launcher::Launcher;
use crate::fleet::{self, Event, StopMode};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A child has ended.
    Reap,
    /// TERM.
    Stop,
    /// INT: the second one means now.
    Interrupt,
    /// QUIT.
    StopNow,
    /// HUP, on a terminal.
    HangUp,
    /// HUP elsewhere.
    Reload,
    /// TTIN and TTOU: so many workers more.
    ScaleBy(i32),
    /// USR2.
    Upgrade,
    /// A signal that other process managers act on and this one does not.
    Unused(&'static str),
}

/// The signals that the launcher handles.
pub(super) struct Signals {
    all: Vec<(Signal, Request)>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        // Asked now: a terminal that has hung up is not one any more.
        let hang_up = if io::stdin().is_terminal() {
            Request::HangUp
        } else {
            Request::Reload
        };
        let handled = [
            (SignalKind::child(), Request::Reap),
            (SignalKind::terminate(), Request::Stop),
            (SignalKind::interrupt(), Request::Interrupt),
            (SignalKind::quit(), Request::StopNow),
            (SignalKind::hangup(), hang_up),
            (SignalKind::user_defined1(), Request::Unused("USR1")),
            (SignalKind::user_defined2(), Request::Upgrade),
            (SignalKind::from_raw(libc::SIGTTIN), Request::ScaleBy(1)),
            (SignalKind::from_raw(libc::SIGTTOU), Request::ScaleBy(-1)),
        ];
        let all = handled
            .into_iter()
            .map(|(kind, request)| Ok((signal(kind)?, request)))
            .collect::<io::Result<_>>()?;
        // Those that came while a launcher was replacing itself; see `hold_back`.
        SigSet::empty().thread_set_mask()?;
        Ok(Self { all })
    }

    pub(super) async fn next(&mut self) -> Request {
        poll_fn(|context| {
            for (signal, request) in &mut self.all {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*request);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Has all signals wait, through exec, until somebody handles them again. Returns what was let
/// through before.
pub(super) fn hold_back() -> Option<SigSet> {
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).ok()
}

/// Undoes [`hold_back`].
pub(super) fn let_through(before: Option<&SigSet>) {
    if let Some(before) = before {
        // It fails for no set that the kernel has given us.
        let _ = before.thread_set_mask();
    }
}

impl Launcher {
    pub(super) fn on_signal(&mut self, request: Request) {
        match request {
            Request::Reap => self.on_children(),
            Request::Stop => self.stop(StopMode::Graceful, "TERM"),
            Request::Interrupt if self.is_stopping() => self.stop(StopMode::Now, "a second INT"),
            Request::Interrupt => self.stop(StopMode::Graceful, "INT"),
            Request::StopNow => self.stop(StopMode::Now, "QUIT"),
            // The terminal is gone, and with it whoever started us by hand.
            Request::HangUp => self.stop(StopMode::Graceful, "the terminal's hang-up"),
            Request::Reload => self.ask(
                fleet::Request::Reload {
                    drain_timeout: None,
                },
                None,
            ),
            Request::ScaleBy(by) => self.ask(fleet::Request::ScaleBy(by), None),
            Request::Upgrade => {
                if let Err((failure, _)) = self.prepare_upgrade(None) {
                    error!("{}: {}", failure.what, failure.why);
                }
            }
            Request::Unused(name) => warn!("{name} is ignored: it has no meaning in this version"),
        }
    }

    fn stop(&mut self, mode: StopMode, why: &str) {
        match mode {
            StopMode::Graceful => info!("stopping, because of {why}"),
            StopMode::Now => info!("killing the workers, because of {why}"),
        }
        self.feed(Event::Stop(mode));
    }
}
