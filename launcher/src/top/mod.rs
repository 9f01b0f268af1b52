//! `top`: the status on a terminal, as it changes, and keys that ask the launcher for something.
//!
//! ```text
//!   keys      ─┐
//!   signals   ─┼─▶ Event ─▶ App ─▶ draw
//!   statuses  ─┤              └──▶ ask (a thread each, while it lasts)
//!   answers   ─┘
//! ```
//!
//! Each source is a thread, because each waits in a call of its own. They have nothing in common but
//! the channel; one loop owns the state and the screen, and the process ends with that loop.

mod app;
mod draw;
mod screen;
#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, IsTerminal as _},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self, KeyEvent};

pub use self::screen::Screen;
use self::{
    app::{Action, App},
    draw::draw,
};
use crate::{
    control::{client, protocol::Request},
    failure::Failure,
    observe::Snapshot,
    sys::runtime::{Name, RuntimeDir},
};

/// Events that may wait to be seen to.
const EVENTS: usize = 64;
/// How often in a row the launcher may not answer before it counts as gone.
const MISSED_MAX: u32 = 3;

/// What happens.
enum Event {
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The terminal can't be read any more.
    Unreadable(io::Error),
    /// A signal that asks for the end.
    Ended,
    /// The launcher has said how it is, or has not, at this time.
    Status(Box<Result<Snapshot, Failure>>, Instant),
    /// What was asked for is done, or not.
    Answered(String, Result<(), Failure>),
}

/// Shows the launcher called `name`, or the only one that runs, until a key, a signal or its end, and
/// leaves the terminal as it was. It is asked each `interval`, and after each answer.
///
/// # Errors
/// When this is no terminal, the launcher can't be chosen or reached, or it has gone away.
pub fn run(directory: &RuntimeDir, name: Option<&Name>, interval: Duration) -> Result<(), Failure> {
    for (end, is_terminal) in [
        ("input", io::stdin().is_terminal()),
        ("output", io::stdout().is_terminal()),
    ] {
        if !is_terminal {
            return Err(Failure::new(
                "cannot show what changes",
                format_args!("standard {end} is not a terminal"),
                "use `reuseport-launch status`, or on a terminal `top`",
            ));
        }
    }
    let name = client::choose(directory, name)?;
    let first = client::ask_status(directory, &name)?;
    let mut app = App::new(first, colours());

    let (events, happened) = sync_channel(EVENTS);
    let (wake, woken) = sync_channel(1);
    let unusable = |error: io::Error| cannot_use(&error);
    let ends = ends().map_err(|error| unusable(error.into()))?;
    let mut screen = Screen::open().map_err(unusable)?;
    start(&events, move |events| tell_signals(&ends, events)).map_err(unusable)?;
    start(&events, tell_keys).map_err(unusable)?;
    let asked = (directory.clone(), name.clone());
    start(&events, move |events| {
        tell_statuses(&asked.0, &asked.1, interval, &woken, events);
    })
    .map_err(unusable)?;

    let mut missed = 0;
    loop {
        screen
            .draw(|frame| draw(&mut app, frame))
            .map_err(unusable)?;
        // The sender here never goes, so there is always an end to wait for.
        let Ok(event) = happened.recv() else {
            return Ok(());
        };
        match event {
            Event::Resized => {}
            Event::Ended => return Ok(()),
            Event::Unreadable(error) => return Err(cannot_use(&error)),
            Event::Key(key) => match app.on_key(key) {
                None => {}
                Some(Action::Quit) => return Ok(()),
                Some(Action::Ask(what, request)) => {
                    let (directory, name) = (directory.clone(), name.clone());
                    start(&events, move |events| {
                        let answer = client::operate(&directory, Some(&name), &request);
                        // Fails only where nobody waits any more.
                        let _ = events.send(Event::Answered(what, answer));
                    })
                    .map_err(unusable)?;
                }
            },
            Event::Answered(what, answer) => {
                app.on_answer(&what, answer);
                // Where it is full, a look is due anyway.
                let _ = wake.try_send(());
            }
            Event::Status(status, at) => match *status {
                Ok(snapshot) => {
                    missed = 0;
                    app.on_status(snapshot, at);
                }
                Err(failure) => {
                    missed += 1;
                    if missed == MISSED_MAX {
                        return Err(gone(&name, failure));
                    }
                    app.on_silence(&failure);
                }
            },
        }
    }
}

fn gone(name: &Name, failure: Failure) -> Failure {
    let Failure {
        what, why, hint, ..
    } = failure;
    Failure::new(
        format!("the launcher {name} has gone away"),
        format_args!("{what}: {why}"),
        hint,
    )
}

fn cannot_use(error: &io::Error) -> Failure {
    Failure::io(
        "cannot use the terminal",
        "it",
        error,
        "use `reuseport-launch status` instead",
    )
}

/// Whether the terminal has colours, and may use them.
fn colours() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_some_and(|term| term != "dumb")
}

fn start(
    events: &SyncSender<Event>,
    tell: impl FnOnce(&SyncSender<Event>) + Send + 'static,
) -> io::Result<()> {
    let events = events.clone();
    thread::Builder::new()
        .spawn(move || tell(&events))
        .map(drop)
}

/// Has the signals that would end us wait, for all threads, until one is taken.
fn ends() -> nix::Result<SigSet> {
    let mut ends = SigSet::empty();
    ends.extend([
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
    ]);
    ends.thread_block()?;
    Ok(ends)
}

fn tell_signals(ends: &SigSet, events: &SyncSender<Event>) {
    // It fails for no set that could be blocked.
    let _ = ends.wait();
    let _ = events.send(Event::Ended);
}

fn tell_keys(events: &SyncSender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) if key.is_press() => Event::Key(key),
            Ok(event::Event::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            Err(error) => {
                let _ = events.send(Event::Unreadable(error));
                return;
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

fn tell_statuses(
    directory: &RuntimeDir,
    name: &Name,
    interval: Duration,
    woken: &Receiver<()>,
    events: &SyncSender<Event>,
) {
    while woken.recv_timeout(interval) != Err(RecvTimeoutError::Disconnected) {
        let status = client::ask_status(directory, name);
        let event = Event::Status(Box::new(status), Instant::now());
        if events.send(event).is_err() {
            return;
        }
    }
}

/// What was asked for, as it is shown: `restart slot 1`.
fn shown(request: &Request) -> String {
    match request {
        Request::Drain { slot } => format!("drain slot {slot}"),
        Request::Undrain { slot } => format!("undrain slot {slot}"),
        Request::Restart { slot } => format!("restart slot {slot}"),
        Request::Steer { policy, .. } => format!("steer {policy}"),
        other => other.verb().to_owned(),
    }
}
