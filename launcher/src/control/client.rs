//! The verbs that talk to running launchers.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    connection::{Connection, NoAnswer, nobody_runs, running},
    protocol::{Changes, Request, Response},
};
use crate::{
    failure::Failure,
    observe::{
        Snapshot,
        history::History,
        table::{self, Listed},
    },
    sys::runtime::{Name, RuntimeDir},
};

/// How long a launcher may take to show its status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// What `status` measures the workers' CPU time over.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);
/// How long a launcher may take to go on as another binary: it loads its programs anew.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile, in milliseconds: no event tells that it listens again.
const UPGRADE_PAUSE: u8 = 50;

/// Sends one request to the launcher called `name` and waits for the answer, `None`: for ever.
///
/// # Errors
/// When no such launcher runs (those that do are named), it may not be talked to, it does not
/// answer in time, or it ends before it has answered.
pub fn call(
    directory: &RuntimeDir,
    name: &Name,
    request: &Request,
    timeout: Option<Duration>,
) -> Result<Response, Failure> {
    Connection::open(directory, name)?
        .ask(request, timeout)
        .map_err(|none| match none {
            NoAnswer::Closed => ended(name),
            NoAnswer::Failed(failure) => failure,
        })
}

/// Writes the status of the launcher called `name`, or of the only one that runs, to `out`: as
/// one JSON object, or for people in lines of at most `width` columns.
///
/// # Errors
/// As [`call`]; also when no name was given and not exactly one launcher runs, and when `out`
/// cannot be written to.
pub fn status(
    directory: &RuntimeDir,
    name: Option<&Name>,
    json: bool,
    width: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let name = choose(directory, name)?;
    let snapshot = ask_status(directory, &name)?;
    if json {
        return write_json(&snapshot, out);
    }
    // How much CPU time a worker takes only a second look tells.
    let mut history = History::default();
    history.add(&snapshot, Duration::ZERO);
    let first = Instant::now();
    thread::sleep(BETWEEN_LOOKS);
    let snapshot = ask_status(directory, &name)?;
    history.add(&snapshot, first.elapsed());
    write(&table::status(&snapshot, &history, width), out)
}

/// Writes the launchers that run to `out`: as one JSON array, or as a table.
///
/// # Errors
/// When the runtime directory cannot be read, or `out` not be written to. A launcher that does
/// not answer is listed with the reason.
pub fn ls(
    directory: &RuntimeDir,
    json: bool,
    width: usize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    directory.verify()?;
    let listed: Vec<Listed> = running(directory)?
        .iter()
        .map(|name| {
            let (status, error) = match ask_status(directory, name) {
                Ok(snapshot) => (Some(snapshot), None),
                Err(failure) => (None, Some(failure.why)),
            };
            Listed {
                name: name.to_string(),
                status,
                error,
            }
        })
        .collect();
    if json {
        write_json(&listed, out)
    } else {
        write(&table::list(&listed, width), out)
    }
}

/// Has the launcher called `name`, or the only one that runs, do what `request` asks for, and
/// waits until that is done, however long it takes. Who stops waiting does not call it off.
///
/// # Errors
/// As [`call`]; also when no name was given and not exactly one launcher runs, and when it was
/// refused or failed.
pub fn operate(
    directory: &RuntimeDir,
    name: Option<&Name>,
    request: &Request,
) -> Result<(), Failure> {
    carry_out(directory, name, request).map(|_| ())
}

/// As [`operate`], and writes to `out` what was changed, if anything was.
///
/// # Errors
/// As [`operate`]; also when `out` cannot be written to.
pub fn reload(
    directory: &RuntimeDir,
    name: Option<&Name>,
    request: &Request,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let Changes {
        applied,
        needs_restart,
    } = carry_out(directory, name, request)?;
    let applied = applied.iter().map(|change| format!("changed: {change}\n"));
    let others = needs_restart.iter();
    let others = others.map(|change| format!("needs a restart: {change}\n"));
    write(&applied.chain(others).collect::<String>(), out)
}

/// Has a request carried out; what that has changed in the configuration.
fn carry_out(
    directory: &RuntimeDir,
    name: Option<&Name>,
    request: &Request,
) -> Result<Changes, Failure> {
    let name = choose(directory, name)?;
    match Connection::open(directory, &name)?.ask(request, None) {
        Ok(Response::Done) => Ok(Changes::default()),
        Ok(Response::Changed(changes)) => Ok(changes),
        Ok(Response::Failed(error)) => Err(error.into()),
        Ok(Response::Status(_)) => Err(mismatched(&name)),
        Err(NoAnswer::Failed(failure)) => Err(failure),
        Err(NoAnswer::Closed) => Err(untold(
            request,
            &name,
            "the launcher ended before it had answered",
        )),
    }
}

/// Has the launcher called `name`, or the only one that runs, go on as its present binary, and
/// returns when that answers.
///
/// # Errors
/// As [`operate`]; also when the new binary ends, or does not answer in time.
pub fn upgrade(directory: &RuntimeDir, name: Option<&Name>) -> Result<(), Failure> {
    let name = choose(directory, name)?;
    let request = Request::Upgrade {};
    let mut connection = Connection::open(directory, &name)?;
    let process = connection.process();
    match connection.ask(&request, None) {
        Ok(Response::Failed(error)) => return Err(error.into()),
        Ok(Response::Status(_)) => return Err(mismatched(&name)),
        Ok(Response::Done | Response::Changed(_)) => return Ok(()),
        Err(NoAnswer::Failed(failure)) => return Err(failure),
        // With the old binary all its connections go.
        Err(NoAnswer::Closed) => {}
    }
    let deadline = Instant::now() + UPGRADE_TIMEOUT;
    while Instant::now() < deadline {
        if Connection::ends_within(process.as_ref(), UPGRADE_PAUSE.into()) {
            return Err(untold(&request, &name, "the launcher ended meanwhile"));
        }
        if ask_status(directory, &name).is_ok() {
            return Ok(());
        }
    }
    let why = format!("it has not answered for {} s", UPGRADE_TIMEOUT.as_secs());
    Err(untold(&request, &name, &why))
}

/// Stops the launcher called `name`, or the only one that runs, and returns when its workers are
/// gone and its process has ended: the name is free then.
///
/// # Errors
/// As [`call`]; also when no name was given and not exactly one launcher runs, the launcher
/// refuses, or it was killed before it had stopped its workers.
pub fn stop(directory: &RuntimeDir, name: Option<&Name>) -> Result<(), Failure> {
    let name = choose(directory, name)?;
    let mut connection = Connection::open(directory, &name)?;
    // Taken before it is asked: afterwards its pid may be another process's.
    let process = connection.process();
    match connection.ask(&Request::Stop {}, None) {
        Ok(Response::Failed(error)) => return Err(error.into()),
        Err(NoAnswer::Failed(failure)) => return Err(failure),
        Ok(Response::Status(_)) => return Err(mismatched(&name)),
        Ok(Response::Done | Response::Changed(_)) | Err(NoAnswer::Closed) => {}
    }
    connection.wait(process);
    if connection.was_killed(directory) {
        return Err(Failure::new(
            format!("cannot tell whether the workers of {name} have stopped"),
            "the launcher was killed before it had stopped them all",
            "start it again under the same name: it takes care of what is left",
        ));
    }
    Ok(())
}

/// The launcher called `name`, or the only one that runs.
///
/// # Errors
/// When no name was given and not exactly one launcher runs.
pub fn choose(directory: &RuntimeDir, name: Option<&Name>) -> Result<Name, Failure> {
    directory.verify()?;
    if let Some(name) = name {
        return Ok(name.clone());
    }
    let mut names = running(directory)?;
    match (names.pop(), names.as_slice()) {
        (None, _) => Err(Failure::new(
            "cannot choose a launcher",
            "no launcher runs",
            nobody_runs(directory),
        )),
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let others: Vec<&str> = others.iter().map(Name::as_str).collect();
            Err(Failure::new(
                "cannot choose a launcher",
                format!("several run: {}, {last}", others.join(", ")),
                "name the one you mean",
            ))
        }
    }
}

/// The status of the launcher called `name`.
///
/// # Errors
/// As [`call`].
pub fn ask_status(directory: &RuntimeDir, name: &Name) -> Result<Snapshot, Failure> {
    match call(directory, name, &Request::Status {}, Some(STATUS_TIMEOUT))? {
        Response::Status(snapshot) => Ok(*snapshot),
        Response::Failed(error) => Err(error.into()),
        Response::Done | Response::Changed(_) => Err(mismatched(name)),
    }
}

fn mismatched(name: &Name) -> Failure {
    Failure::new(
        format!("cannot talk to the launcher {name}"),
        "it answered something else than was asked",
        "is it of another version? use the `reuseport-launch` it was started with",
    )
}

/// Whether a request was carried out is not known.
fn untold(request: &Request, name: &Name, why: &str) -> Failure {
    Failure::new(
        format!(
            "cannot tell whether the {} of {name} is done",
            request.verb()
        ),
        why,
        format!("see what runs: reuseport-launch status {name}"),
    )
}

fn ended(name: &Name) -> Failure {
    Failure::new(
        format!("cannot talk to the launcher {name}"),
        "it ended before it had answered",
        "see what still runs: reuseport-launch ls",
    )
}

fn write_json(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| unwritable(&error))?;
    write(&format!("{text}\n"), out)
}

/// Writes an answer.
///
/// # Errors
/// When `out` can't be written to, but for a reader that has seen enough.
pub fn write(text: &str, out: &mut impl Write) -> Result<(), Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // The reader has seen enough: `… | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(unwritable(&error)),
        Ok(()) => Ok(()),
    }
}

fn unwritable(why: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        "cannot write the answer",
        why,
        "check where standard output goes",
    )
}
