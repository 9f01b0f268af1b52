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
    cli::{self, LogFormat, Verb},
    config::Plan,
    control::client,
    failure::{Exit, Failure},
    output, run,
    sys::runtime::RuntimeDir,
};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};

/// How many messages may wait to be written.
const LINES_MAX: usize = 4096;

fn main() -> ExitCode {
    match env::args_os().nth(1).as_deref().and_then(OsStr::to_str) {
        Some(output::PUMP_VERB) => return output::pump_main(),
        Some(bench::WORKER_VERB) => return bench::worker_main(),
        Some(bench::STEER_VERB) => return bench::steer_main(),
        _ => {}
    }
    let invocation = match cli::parse(env::args_os(), env::var_os(cli::WORKERS_VARIABLE)) {
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
    match invocation.verb {
        Verb::Run(options) => {
            drop(out);
            let _log = start_log(options.log_format, options.verbose);
            return run::run(Plan::new(options)?, dir);
        }
        Verb::Status { name, json } => {
            client::status(&dir, name.as_ref(), json, width(), &mut out)?
        }
        Verb::Ls { json } => client::ls(&dir, json, width(), &mut out)?,
        Verb::Stop { name } => client::stop(&dir, name.as_ref())?,
    }
    Ok(Exit::Clean)
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
    let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .finish(io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // They would be reported to the very place that can't be written to.
        .log_internal_errors(false)
        .with_ansi(colour)
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

/// The width of the terminal that reads us; wide when it is none.
fn width() -> usize {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return usize::MAX;
    }
    rustix::termios::tcgetwinsize(&stdout).map_or(80, |size| usize::from(size.ws_col))
}
