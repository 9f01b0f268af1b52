//! Several apps of one file: a supervisor that starts a launcher for each, and stays with them.
//!
//! ```text
//!   start ──▶ runs ── killed, crashed ──▶ started again, later each time; it takes its workers over
//!               ├── ended as asked ─────▶ gone, until a reload (HUP)
//!               └── gave up ────────────▶ gone, and the supervisor ends with a failure in the end
//! ```
//!
//! The launchers end with the supervisor (a signal that the kernel sends), but not their workers: the
//! next supervisor's launchers take those over, too.

use std::{
    env,
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal,
};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::{
    failed,
    relay::{Relay, Said},
    signals::{HeldBack, Request, Signals},
    upgrade::own_executable,
};
use crate::{
    config::Config,
    failure::{Exit, Failure},
    sys::{
        process::{self, Ended},
        runtime::RuntimeDir,
    },
};

/// Tells a launcher the pid of its supervisor.
const SUPERVISOR: &str = "REUSEPORT_LAUNCH_SUPERVISOR";

/// The first delay before a launcher that was killed is started again; it doubles each time.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// What the doubling stops at, and how long one must have run for it to begin anew.
const DELAY_MAX: Duration = Duration::from_secs(30);

/// How many launchers may die while they stop an app.
const ENDS_MAX: u32 = 3;

/// The exit codes by which a launcher says that another try would end likewise.
const GIVEN_UP: [Exit; 6] = [
    Exit::Failed,
    Exit::Usage,
    Exit::Unavailable,
    Exit::Config,
    Exit::NotExecutable,
    Exit::NotFound,
];

/// Runs the launchers of all apps, until the last one has ended. The directory is for what they say, where
/// a service manager wants to know.
///
/// # Errors
/// When that can't be done, or one of them has given up.
pub fn supervise(config: Config, runtime_dir: RuntimeDir) -> Result<Exit, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start the event loop", &error))?
        .block_on(serve(config, runtime_dir))
}

/// Has this launcher end with the supervisor that has started it, if one has.
pub fn follow_supervisor() {
    let told = env::var(SUPERVISOR)
        .ok()
        .and_then(|pid| pid.parse::<i32>().ok());
    let Some(supervisor) = told else {
        return;
    };
    // Of a launcher further out: not our parent.
    if getppid().map(Pid::as_raw_pid) != Some(supervisor) {
        return;
    }
    // It fails for no such signal. Should the supervisor have ended a moment ago, we go on without one.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

async fn serve(config: Config, runtime_dir: RuntimeDir) -> Result<Exit, Failure> {
    let mut signals = Signals::new().map_err(|error| failed("handle signals", &error))?;
    let executable = own_executable().map_err(|error| failed("find this executable", &error))?;
    let names = config.apps.iter().filter_map(|app| app.name.clone());
    let mut supervisor = Supervisor {
        executable,
        apps: names.map(App::new).collect(),
        config,
        stopping: None,
        relay: Relay::new(runtime_dir),
    };
    supervisor.start_due();
    while supervisor
        .apps
        .iter()
        .any(|app| !matches!(app.state, State::Gone))
    {
        supervisor.tell();
        let due = supervisor.next_start();
        let ping = supervisor.relay.service.next();
        tokio::select! {
            request = signals.next() => supervisor.on_signal(request),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = sleep_until(ping.unwrap_or_else(Instant::now)), if ping.is_some() => {}
            () = supervisor.relay.heard() => {}
        }
        supervisor.relay.service.ping();
        supervisor.start_due();
    }
    supervisor.relay.service.stop();
    let given_up: Vec<String> = supervisor
        .apps
        .into_iter()
        .filter_map(|app| app.given_up)
        .collect();
    if given_up.is_empty() {
        info!("all apps have ended");
        return Ok(Exit::Clean);
    }
    Err(Failure::new(
        "not all apps have run to their end",
        given_up.join("; "),
        "see the messages above",
    ))
}

/// All launchers.
struct Supervisor {
    executable: PathBuf,
    config: Config,
    apps: Vec<App>,
    /// The signal by which all were told to end.
    stopping: Option<Signal>,
    relay: Relay,
}

/// One launcher.
struct App {
    name: String,
    state: State,
    /// How often in a row it was killed soon.
    deaths: u32,
    /// How it gave up, if it did.
    given_up: Option<String>,
    said: Said,
}

enum State {
    /// To be started then.
    Due(Instant),
    Runs {
        pid: u32,
        handle: OwnedFd,
        since: Instant,
    },
    Gone,
}

impl App {
    fn new(name: String) -> Self {
        Self {
            name,
            state: State::Due(Instant::now()),
            deaths: 0,
            given_up: None,
            said: Said::default(),
        }
    }

    fn send(&self, signal: Signal) {
        if let State::Runs { handle, .. } = &self.state {
            // It may have ended already.
            let _ = pidfd_send_signal(handle, signal);
        }
    }

    /// It has died, and is to be started again.
    fn delay(&mut self, lived: Duration) {
        if lived >= DELAY_MAX {
            self.deaths = 0;
        }
        let delay = DELAY_MIN
            .saturating_mul(1 << self.deaths.min(20))
            .min(DELAY_MAX);
        self.deaths += 1;
        self.state = State::Due(Instant::now() + delay);
    }
}

impl Supervisor {
    fn next_start(&self) -> Option<Instant> {
        let due = self.apps.iter().filter_map(|app| match app.state {
            State::Due(at) => Some(at),
            State::Runs { .. } | State::Gone => None,
        });
        due.min()
    }

    /// Starts what is due.
    fn start_due(&mut self) {
        let now = Instant::now();
        for number in 0..self.apps.len() {
            let Some(app) = self.apps.get_mut(number) else {
                return;
            };
            if !matches!(app.state, State::Due(at) if at <= now) {
                continue;
            }
            let name = app.name.clone();
            let socket = self.relay.socket(&name, &mut app.said);
            let started = self.start(&name, socket);
            let Some(app) = self.apps.get_mut(number) else {
                return;
            };
            match started {
                Ok((pid, handle)) => {
                    app.state = State::Runs {
                        pid,
                        handle,
                        since: now,
                    };
                    // It is there only for its workers' sake, which nobody else would stop.
                    if let Some(signal) = self.stopping {
                        app.send(signal);
                    }
                }
                Err(error) => {
                    error!(
                        "the launcher of the app {} can't be started: {error}",
                        app.name
                    );
                    app.delay(Duration::ZERO);
                }
            }
        }
    }

    /// The same command line, for one app.
    fn start(&self, name: &str, notify: Option<OsString>) -> io::Result<(u32, OwnedFd)> {
        let mut words: Vec<OsString> = env::args_os().skip(1).collect();
        // There is no command behind it.
        words.retain(|word| word != "--");
        let mut command = Command::new(&self.executable);
        command
            .args(words)
            .args(["--app", name])
            .env(SUPERVISOR, std::process::id().to_string())
            .stdin(Stdio::null())
            // What the terminal sends to all of its foreground comes once, from here.
            .process_group(0);
        // The service manager's are for us.
        for ours in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(ours);
        }
        command.envs(notify.map(|socket| ("NOTIFY_SOCKET", socket)));
        // Until it handles them, signals wait.
        let held_back = HeldBack::new();
        let child = command.spawn()?;
        drop(held_back);
        // It was not reaped, so the pid is still its own.
        let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok((child.id(), handle))
    }

    fn on_signal(&mut self, request: Request) {
        match request {
            Request::Reap => process::reap().iter().for_each(|ended| self.on_end(ended)),
            Request::Stop => self.stop(Signal::TERM, "TERM"),
            Request::Interrupt => self.stop(Signal::INT, "INT"),
            Request::StopNow => self.stop(Signal::QUIT, "QUIT"),
            Request::HangUp => self.stop(Signal::TERM, "the terminal's hang-up"),
            Request::Reload => self.reload(),
            Request::ScaleBy(_) => {
                warn!("TTIN and TTOU are for one app: reuseport-launch scale N NAME");
            }
            Request::Upgrade => {
                info!(
                    "each app's launcher is told to upgrade itself; this supervisor stays as it is"
                );
                self.send(Signal::USR2);
            }
            Request::Reopen => self.send(Signal::USR1),
        }
    }

    /// Tells the service manager what has changed.
    fn tell(&mut self) {
        let apps = self.apps.iter_mut();
        let apps = apps.filter(|app| !matches!(app.state, State::Gone));
        let said = apps.map(|app| (app.name.as_str(), &mut app.said));
        self.relay.tell(said, self.stopping.is_some());
    }

    fn send(&self, signal: Signal) {
        self.apps.iter().for_each(|app| app.send(signal));
    }

    fn stop(&mut self, signal: Signal, why: &str) {
        info!("stopping all apps, because of {why}");
        self.stopping = Some(signal);
        self.send(signal);
        // One that is to be started again has workers that run.
        for app in &mut self.apps {
            if let State::Due(at) = &mut app.state {
                *at = Instant::now();
            }
        }
    }

    /// Has every app reload, starts those that do not run, and leaves those alone that are not in the
    /// file any more.
    fn reload(&mut self) {
        self.relay.service.on_reload_asked();
        let config = match self.config.reread() {
            Ok(config) => config,
            Err(failure) => {
                error!("cannot reload: {}: {}", failure.what, failure.why);
                return;
            }
        };
        if self.stopping.is_some() {
            return;
        }
        let names: Vec<String> = config
            .apps
            .iter()
            .filter_map(|app| app.name.clone())
            .collect();
        self.send(Signal::HUP);
        for app in &mut self.apps {
            // It will say when that is done, which it does once it was ready.
            app.said.reloading = matches!(app.state, State::Runs { .. }) && app.said.ready;
        }
        for app in &mut self.apps {
            let is_there = names.contains(&app.name);
            match app.state {
                State::Gone if is_there => *app = App::new(app.name.clone()),
                State::Runs { .. } if !is_there => warn!(
                    "the app {} is not in the file any more; it goes on until it is stopped: \
                     reuseport-launch stop {}",
                    app.name, app.name
                ),
                State::Due(_) | State::Runs { .. } | State::Gone => {}
            }
        }
        for name in names {
            if self.apps.iter().all(|app| app.name != name) {
                info!("the app {name} is new");
                self.apps.push(App::new(name));
            }
        }
        self.config = config;
    }

    /// A child has ended: a launcher, or an orphan.
    fn on_end(&mut self, ended: &Ended) {
        let mut apps = self.apps.iter_mut();
        let app = apps.find(|app| matches!(app.state, State::Runs { pid, .. } if pid == ended.pid));
        let Some(app) = app else {
            return;
        };
        let lived = match app.state {
            State::Runs { since, .. } => since.elapsed(),
            State::Due(_) | State::Gone => return,
        };
        app.said.end();
        let name = &app.name;
        let (how, again) = match ended.status {
            Ok(0) => {
                info!("the launcher of the app {name} has ended");
                app.state = State::Gone;
                return;
            }
            Ok(code) => {
                let given_up = GIVEN_UP.iter().any(|exit| *exit as i32 == code);
                (format!("ended with exit code {code}"), !given_up)
            }
            Err(signal) => (format!("was killed by signal {signal}"), true),
        };
        // Whose workers can't be stopped by three launchers are left to the next supervisor.
        let hopeless = self.stopping.is_some() && app.deaths >= ENDS_MAX;
        if again && !hopeless {
            warn!("the launcher of the app {name} {how}; another takes its workers over");
            app.delay(lived);
            return;
        }
        error!("the launcher of the app {name} {how}");
        app.given_up = Some(format!("the launcher of {name} {how}"));
        app.state = State::Gone;
    }
}
