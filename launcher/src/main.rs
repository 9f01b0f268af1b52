//! Parse, run, exit code.

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use reuseport_launch::{
    bench,
    cli::{self, LogFormat, Run, Setting, SlotOrName, Target, Verb},
    config::{self, Config, Given},
    control::{client, protocol::Request},
    doctor,
    failure::{Exit, Failure},
    output, paper, run,
    sys::runtime::{Name, RuntimeDir},
    top,
};
use tracing::{Span, info_span};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

/// How many messages may wait to be written.
const LINES_MAX: usize = 4096;

fn main() -> ExitCode {
    match env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(output::PUMP_VERB) => return output::pump_main(),
        Some(bench::WORKER_VERB) => return bench::worker_main(),
        Some(bench::LOAD_VERB) => return bench::load_main(),
        Some(bench::STEER_VERB) => return bench::steer_main(),
        Some(bench::GUARD_VERB) => return bench::guard_main(),
        Some(bench::HTTP_VERB) => return bench::http_main(),
        Some(bench::MASTER_VERB) => return bench::master_main(),
        Some(bench::SERVE_VERB) => return bench::serve_main(),
        Some(run::CHECK_VERB) => return check(),
        Some(doctor::WORKER_VERB) => return doctor::worker_main(),
        _ => {}
    }
    match cli::answer(env::args_os()) {
        Ok(false) => {}
        Ok(true) => return Exit::Clean.into(),
        Err(error) => error.exit(),
    }
    let invocation = match cli::parse(env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => error.exit(),
    };
    match dispatch(invocation) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let exit = failure.exit;
            report(failure);
            exit.into()
        }
    }
}

/// Says whether this version could run what an earlier one was told to: see [`run::CHECK_VERB`].
fn check() -> ExitCode {
    let arguments = env::args_os().take(1).chain(env::args_os().skip(2));
    let checked = match cli::parse(arguments) {
        Ok(cli::Invocation {
            verb: Verb::Run(options),
            given,
            ..
        }) => configure(&options, given).and_then(|config| check_config(&config)),
        Ok(_) => Err(Failure::new("nothing to run", "it is another verb", "run")),
        Err(error) => error.exit(),
    };
    match checked {
        Ok(()) => match writeln!(io::stdout(), "{}", run::CHECKED) {
            Ok(()) => Exit::Clean.into(),
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            let exit = failure.exit;
            report(failure);
            exit.into()
        }
    }
}

/// What these options of `run` mean here.
fn configure(options: &Run, given: Vec<Setting>) -> Result<Config, Failure> {
    Config::read(Given::new(options, given, env::vars_os()))
}

/// Whether all of it could be started.
fn check_config(config: &Config) -> Result<(), Failure> {
    for app in &config.apps {
        let checked = app.plan().and_then(|plan| run::check(&plan));
        checked.map_err(|failure| match &app.name {
            Some(name) => {
                let what = format!("app {name}: {}", failure.what);
                Failure { what, ..failure }
            }
            None => failure,
        })?;
    }
    Ok(())
}

/// Writes the error to standard error, and waits for that a while: nobody may be reading.
fn report(failure: Failure) {
    let (written, done) = mpsc::channel();
    thread::spawn(move || {
        // Nothing is left to report to when stderr is gone.
        let _ = writeln!(io::stderr(), "error: {failure}");
        let _ = written.send(());
    });
    let _ = done.recv_timeout(Duration::from_secs(1));
}

fn dispatch(invocation: cli::Invocation) -> Result<Exit, Failure> {
    let dir = RuntimeDir::locate(invocation.runtime_dir.as_deref())?;
    let mut out = io::stdout().lock();
    let operate = |request, name: Option<Name>| client::operate(&dir, name.as_ref(), &request);
    match invocation.verb {
        Verb::Run(options) => {
            drop(out);
            // The thread that writes the log must not get them.
            run::hold_back_signals();
            let config = configure(&options, invocation.given)?;
            let (format, verbose) = config.log();
            let _log = start_log(format, verbose);
            let [app] = &config.apps[..] else {
                // All of them, before the first one is started.
                check_config(&config)?;
                return run::supervise(config, dir);
            };
            run::follow_supervisor();
            // Whose messages these are, where several launchers write to the same place.
            let span = app.name.as_ref().map(|name| info_span!("app", %name));
            let _entered = span.as_ref().map(Span::enter);
            return run::run(app.plan()?, app.clone(), dir);
        }
        Verb::Check(options) => {
            let config = configure(&options, invocation.given)?;
            check_config(&config).map_err(|failure| failure.exit(Exit::Config))?;
            client::write(&config::checked(&config), &mut out)?;
        }
        Verb::PrintConfig { example: true, .. } => client::write(&config::example(), &mut out)?,
        Verb::PrintConfig { run, json, .. } => {
            let config = configure(&run, invocation.given)?;
            let text = match json {
                true => format!("{}\n", config::json(&config)),
                false => config::text(&config),
            };
            client::write(&text, &mut out)?;
        }
        Verb::Status { name, json } => {
            client::status(&dir, name.as_ref(), json, width(), &mut out)?
        }
        Verb::Top { name, interval } => {
            drop(out);
            top::run(&dir, name.as_ref(), interval)?;
        }
        Verb::Logs {
            of,
            name,
            follow,
            lines,
            json,
        } => {
            let (slot, name) = match (of, name) {
                (Some(SlotOrName::Name(_)), Some(_)) => return Err(no_slot()),
                (Some(SlotOrName::Name(name)), None) => (None, Some(name)),
                (Some(SlotOrName::Slot(Target(slot))), name) => (slot, name),
                (None, name) => (None, name),
            };
            let sockets = output::Sockets {
                name: client::choose(&dir, name.as_ref())?,
                directory: dir,
            };
            let wanted = output::Wanted {
                slot,
                lines,
                follow,
                json,
            };
            output::logs(&sockets, wanted, &mut out)?;
        }
        Verb::Doctor { json } => {
            // What it tries must not be left behind by one of them.
            run::hold_back_signals();
            let usable = doctor::examine().write(json, colour(&io::stdout()), &mut out)?;
            return Ok(if usable {
                Exit::Clean
            } else {
                Exit::Unavailable
            });
        }
        Verb::Ls { json } => client::ls(&dir, json, width(), &mut out)?,
        Verb::Reload {
            name,
            drain_timeout,
        } => {
            let request = Request::reload(drain_timeout.map(|limit| limit.0));
            client::reload(&dir, name.as_ref(), &request, &mut out)?;
        }
        Verb::Scale { workers, name } => operate(Request::Scale { workers }, name)?,
        Verb::Restart { slot, name } => operate(Request::Restart { slot }, name)?,
        Verb::Drain { slot, name } => operate(Request::Drain { slot }, name)?,
        Verb::Undrain { slot, name } => operate(Request::Undrain { slot }, name)?,
        Verb::Hint { slot, value, name } => {
            let generation = None;
            let request = Request::Hint {
                slot,
                generation,
                value,
            };
            operate(request, name)?;
        }
        Verb::Weight { slot, weight, name } => {
            let weight = weight.into();
            operate(Request::Weight { slot, weight }, name)?;
        }
        Verb::Steer { policy, udp, name } => {
            let policy = policy.to_string();
            operate(Request::Steer { policy, udp }, name)?;
        }
        Verb::Send {
            to: Target(slot),
            message,
            name,
        } => operate(Request::Send { slot, message }, name)?,
        Verb::Bench(options) => {
            drop(out);
            return bench::compare(*options);
        }
        Verb::Upgrade { name } => client::upgrade(&dir, name.as_ref())?,
        Verb::Stop { name } => client::stop(&dir, name.as_ref())?,
        Verb::Man { verb, to: None } => paper::page(verb.as_deref(), &mut out)?,
        Verb::Man {
            to: Some(directory),
            ..
        } => paper::pages(&directory)?,
        Verb::Completions { shell } => paper::completions(shell, &mut out)?,
    }
    Ok(Exit::Clean)
}

fn no_slot() -> Failure {
    Failure::new(
        "cannot show the logs",
        "of two words, the first is the number of a slot, or all",
        "reuseport-launch logs [SLOT] [NAME]",
    )
    .exit(Exit::Usage)
}

/// Our own messages go to standard error; a terminal and the journal have no need of our clock.
/// Another thread writes them, because nobody may be reading: then messages are dropped, and the
/// event loop goes on. The rest of them is written when the result is dropped.
fn start_log(format: LogFormat, verbose: u8) -> WorkerGuard {
    let level = match verbose {
        0 => "info",
        1 => "info,reuseport_launch=debug",
        // The eBPF programs log under the name of their object.
        _ => "info,reuseport_launch=debug,capture=debug",
    };
    let filter =
        EnvFilter::try_from_env("REUSEPORT_LAUNCH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = io::stderr().is_terminal();
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .finish(io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // They would be reported to the very place that can't be written to.
        .log_internal_errors(false)
        .with_ansi(colour(&io::stderr()))
        .with_target(verbose > 0);
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Auto if terminal || env::var_os("JOURNAL_STREAM").is_some() => {
            log.without_time().init()
        }
        LogFormat::Auto | LogFormat::Text => log.with_timer(SystemTime).init(),
    }
    guard
}

/// Whether colours are wanted where this goes to.
fn colour(to: &impl io::IsTerminal) -> bool {
    to.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The width of the terminal that reads us; wide when it is none.
fn width() -> usize {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return usize::MAX;
    }
    rustix::termios::tcgetwinsize(&stdout).map_or(80, |size| usize::from(size.ws_col))
}
