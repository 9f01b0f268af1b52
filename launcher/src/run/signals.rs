//! The signals that the launcher handles, and what they mean.

use std::{
    future::poll_fn,
    io::{self, IsTerminal as _},
    task::Poll,
};

use nix::sys::signal::{self as nix_signal, SigSet, SigmaskHow};
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
    /// USR1.
    Reopen,
}

/// The signals that the launcher handles.
pub(super) struct Signals {
    all: Vec<(Signal, Request)>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        // Asked now: a terminal that has hung up is not one any more.
        let on_terminal = io::stdin().is_terminal();
        let hang_up = if on_terminal {
            Request::HangUp
        } else {
            Request::Reload
        };
        let mut handled = vec![
            (SignalKind::child(), Request::Reap),
            (SignalKind::terminate(), Request::Stop),
            (SignalKind::interrupt(), Request::Interrupt),
            (SignalKind::quit(), Request::StopNow),
            (SignalKind::hangup(), hang_up),
            (SignalKind::user_defined1(), Request::Reopen),
            (SignalKind::user_defined2(), Request::Upgrade),
        ];
        // A terminal sends these to jobs in the background that read from it or write to it.
        if !on_terminal {
            handled.push((SignalKind::from_raw(libc::SIGTTIN), Request::ScaleBy(1)));
            handled.push((SignalKind::from_raw(libc::SIGTTOU), Request::ScaleBy(-1)));
        }
        let all = handled
            .into_iter()
            .map(|(kind, request)| Ok((signal(kind)?, request)))
            .collect::<io::Result<_>>()?;
        // Those that came since [`hold_back`], here or in the launcher that has replaced itself.
        SigSet::empty().thread_set_mask()?;
        Ok(Self { all })
    }

    /// Those that have come and were not asked for, each once; waits for none.
    pub(super) async fn come(&mut self) -> Vec<Request> {
        // The runtime itself learns of them when it looks at its descriptors, which it does before
        // it goes on with who has yielded.
        tokio::task::yield_now().await;
        poll_fn(|context| {
            let come = self.all.iter_mut().filter_map(|(signal, request)| {
                let has_come = signal.poll_recv(context).is_ready();
                has_come.then_some(*request)
            });
            Poll::Ready(come.collect())
        })
        .await
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

/// Has the signals that ask for something wait, for this thread and those that it starts from then
/// on: through exec, until a launcher's event loop handles them.
pub fn hold_back() {
    // It fails for no set like this.
    let _ = requests().thread_block();
}

/// The signals that ask for something. The others are left alone, because what is started meanwhile
/// is told of its faults by them.
fn requests() -> SigSet {
    [
        nix_signal::SIGHUP,
        nix_signal::SIGINT,
        nix_signal::SIGQUIT,
        nix_signal::SIGTERM,
        nix_signal::SIGTTIN,
        nix_signal::SIGTTOU,
        nix_signal::SIGUSR1,
        nix_signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

/// As [`hold_back`], and lets them through again when it is dropped.
#[derive(Debug)]
pub(super) struct HeldBack(Option<SigSet>);

impl HeldBack {
    pub(super) fn new() -> Self {
        let before = requests().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        Self(before.ok())
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It fails for no set that the kernel has given us.
            let _ = before.thread_set_mask();
        }
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
            Request::Reload => {
                self.service.on_reload_asked();
                self.reload(None, None);
            }
            Request::ScaleBy(by) => self.ask(fleet::Request::ScaleBy(by), None),
            Request::Upgrade => {
                if let Err((failure, _)) = self.prepare_upgrade(None) {
                    error!("{}: {}", failure.what, failure.why);
                }
            }
            Request::Reopen if self.plan.output.file.is_none() => {
                warn!("USR1 is ignored: there is no --log-file to open anew");
            }
            Request::Reopen => self.output.reopen(),
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
