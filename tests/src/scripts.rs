//! Programs of the tests' own, where what is asked of a worker is more than serving. Passed to
//! Python by their text: a worker that runs as another user may not be able to read this directory.

use std::{collections::BTreeMap, path::Path};

use crate::{
    eventually,
    gate::path_of,
    launcher::{Launch, Launcher},
    process::{Line, Stream},
    procfs,
    servers::{FILES, python_code},
};

/// The port of [`witness`].
pub const WITNESS_PORT: u16 = 8080;

/// A server on [`WITNESS_PORT`] that answers with its pid, logs each request on standard error, and
/// tells its signals: see [`told_signals`]. It ends half a second after the last one.
#[must_use]
pub fn witness() -> Vec<String> {
    python_code(include_str!("../servers/witness.py"))
}

/// The same, but no signal ends it that can be caught.
#[must_use]
pub fn stubborn_witness() -> Vec<String> {
    let mut command = witness();
    command.push("stubborn".to_owned());
    command
}

/// A server on port 8080 that answers with its pid. Told by USR1, it opens and closes `count` sockets
/// of this protocol, `tcp` or `udp`, one after the other; then it listens on TCP port 8081, too.
#[must_use]
pub fn passing(protocol: &str, count: u32) -> Vec<String> {
    let mut command = python_code(include_str!("../servers/passing.py"));
    command.extend([protocol.to_owned(), count.to_string()]);
    command
}

/// A server on port 8080 that answers with its pid, ten times a second all that wait: its accept
/// queue is hardly ever empty. It tells `SLOT empty` of a connection without a request.
#[must_use]
pub fn late() -> Vec<String> {
    python_code(include_str!("../servers/late.py"))
}

/// The text of [`app`].
pub const APP: &str = include_str!("../servers/app.py");

/// A web application on port 8080 with the behaviours that `words` name; see `app.py`.
#[must_use]
pub fn app(words: &[&str]) -> Vec<String> {
    let mut command = python_code(APP);
    command.extend(words.iter().map(|&word| word.to_owned()));
    command
}

/// A node server on port 8080 that answers with its pid, says `ready` to its master when it gets
/// USR2, and tells what its master sends; see `ipc.js`.
#[must_use]
pub fn node_ipc() -> Vec<String> {
    vec![path_of("node"), format!("{FILES}/ipc.js")]
}

/// A command that runs `command`, but prints [`BROKEN`] and fails while the file `broken` exists.
///
/// # Panics
/// When the path is not UTF-8, or `sh` was not asked for.
#[must_use]
pub fn breakable(broken: &Path, command: Vec<String>) -> Vec<String> {
    let script = format!("test ! -e \"$0\" && exec \"$@\"; echo {BROKEN} >&2; exit 3");
    let broken = broken.to_str().expect("temporary files have UTF-8 names");
    let shell = [&path_of("sh"), "-c", &script, broken].map(str::to_owned);
    shell.into_iter().chain(command).collect()
}

/// The last words of a [`breakable`] command that is broken.
pub const BROKEN: &str = "cannot open the database";

/// Says that it runs, and does nothing.
///
/// # Panics
/// When `sh` was not asked for.
#[must_use]
pub fn idler() -> Vec<String> {
    let script = "echo started; exec sleep 1000";
    vec![path_of("sh"), "-c".to_owned(), script.to_owned()]
}

/// Starts so many [`idler`]s, or what becomes a `sleep` as they do, and waits until each runs.
/// Returns their pids by slot.
#[must_use]
#[track_caller]
pub fn start_idlers(launch: Launch, workers: u32) -> (Launcher, Vec<u32>) {
    let launcher = launch.start();
    launcher.process.wait_until("all workers", |lines| {
        let started = lines.iter().filter(|line| line.text == "started");
        (started.count() == workers as usize).then_some(())
    });
    let status = launcher.status();
    assert_eq!(status.workers().len(), workers as usize);
    let pids: Vec<u32> = (0..workers).map(|slot| status.pid(slot)).collect();
    for &pid in &pids {
        eventually("the idler to sleep", || {
            (procfs::status(pid, "Name") == "sleep").then_some(())
        });
    }
    (launcher, pids)
}

/// Makes 20 orphans, each of which writes `adopted` when the launcher has become its parent.
#[must_use]
pub fn orphans() -> Vec<String> {
    python_code(include_str!("../servers/orphans.py"))
}

/// Writes [`chatter_lines`] to its standard output and error, and stays.
#[must_use]
pub fn chatter() -> Vec<String> {
    python_code(include_str!("../servers/chatter.py"))
}

/// Says `SLOT listens`, and writes `count` lines of so many bytes each time that it gets USR1, and
/// then `SLOT ROUND done`.
#[must_use]
pub fn talker(count: u32, bytes: u32) -> Vec<String> {
    let mut command = python_code(include_str!("../servers/talker.py"));
    command.extend([count, bytes].map(|number| number.to_string()));
    command
}

/// What the [`chatter`] of a slot writes to a stream.
pub fn chatter_lines(slot: u32, stream: Stream) -> impl Iterator<Item = String> {
    let fd = match stream {
        Stream::Out => 1,
        Stream::Err => 2,
    };
    (0..2000).map(move |number| {
        let filling = "x".repeat(250 + number % 100);
        format!("{slot} {fd} {number} {filling}")
    })
}

/// The signals that each slot's [`witness`] has told, in order.
#[must_use]
pub fn told_signals(lines: &[Line]) -> BTreeMap<u32, Vec<String>> {
    let mut told = BTreeMap::<u32, Vec<String>>::new();
    for line in lines.iter().filter(|line| line.stream == Stream::Out) {
        if let Some((slot, signal)) = line.text.split_once(' ')
            && let Ok(slot) = slot.parse()
        {
            told.entry(slot).or_default().push(signal.to_owned());
        }
    }
    told
}
