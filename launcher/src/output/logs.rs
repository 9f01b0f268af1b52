//! `logs`: asks the pumps of a name for lines.

use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use super::{
    record::{Ask, Record, Said, to_line},
    socket::{Sockets, connect},
};
use crate::failure::Failure;

/// Lines that may wait to be written. When there are more, the pumps keep or drop them.
const WAITING: usize = 1024;
/// How long a pump may take to tell what is past.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked for pumps that have come, and how long none may be there.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Of this slot; `None`: of all.
    pub slot: Option<u32>,
    /// At most so many lines of the past.
    pub lines: usize,
    /// And those that come.
    pub follow: bool,
    /// As JSON objects.
    pub json: bool,
}

/// What a pump has said, or (`None`) that it has ended. The number is that of its connection.
type Told = (usize, Option<Said>);

/// Writes what the workers have written to `out`, oldest first; then, if wanted, what they write, until
/// no pump is left.
///
/// # Errors
/// When there is no pump, none can be asked, or `out` can't be written to.
pub fn logs(sockets: &Sockets, wanted: Wanted, out: &mut impl Write) -> Result<(), Failure> {
    let (tell, told) = sync_channel(WAITING);
    let mut pumps = Pumps {
        sockets: sockets.clone(),
        wanted,
        tell,
        asked: BTreeSet::new(),
        connections: 0,
    };
    let asked = pumps.ask_new(wanted.lines)?;
    if asked == 0 {
        return Err(Failure::new(
            format!("cannot show the logs of {}", sockets.name),
            "no workers of that name write any",
            "see what runs: reuseport-launch ls",
        ));
    }
    let mut writer = Writer {
        out,
        json: wanted.json,
        digits: 1,
    };
    let (mut alive, past) = read_past(sockets, &told, asked)?;
    let left_out = past.len().saturating_sub(wanted.lines);
    for record in past.iter().skip(left_out) {
        if !writer.line(record)? {
            return Ok(());
        }
    }
    if !wanted.follow {
        return Ok(());
    }
    let mut waited = false;
    loop {
        let wrote = match told.recv_timeout(LOOK) {
            Ok((_, Some(Said::Line(record)))) => writer.line(&record)?,
            Ok((_, Some(Said::Dropped(lines)))) => writer.dropped(lines)?,
            Ok((_, Some(Said::Past))) => true,
            Ok((_, Some(Said::Refused(why)))) => return Err(refused(&pumps.sockets, &why)),
            Ok((_, None)) => {
                alive -= 1;
                true
            }
            Err(RecvTimeoutError::Timeout) => {
                alive += pumps.ask_new(usize::MAX)?;
                if alive == 0 && waited {
                    return Ok(());
                }
                // One that was killed is replaced, and what is upgraded gets another one.
                waited = alive == 0;
                true
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        if !wrote {
            return Ok(());
        }
    }
}

/// The pumps that were asked.
struct Pumps {
    sockets: Sockets,
    wanted: Wanted,
    tell: SyncSender<Told>,
    asked: BTreeSet<PathBuf>,
    connections: usize,
}

impl Pumps {
    /// Asks those that were not asked yet for so many lines of the past: how many.
    fn ask_new(&mut self, lines: usize) -> Result<usize, Failure> {
        let paths = self.sockets.all();
        self.asked.retain(|path| paths.contains(path));
        let mut asked = 0;
        for path in paths {
            if self.asked.contains(&path) {
                continue;
            }
            let stream = match connect(&path) {
                // It is about to go, or went without a word.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                stream => stream,
            };
            let (number, tell) = (self.connections, self.tell.clone());
            let Wanted { slot, follow, .. } = self.wanted;
            let ask = Ask::Logs {
                slot,
                lines,
                follow,
            };
            stream
                .and_then(|stream| {
                    stream.set_nonblocking(false)?;
                    (&stream).write_all(&to_line(&ask))?;
                    thread::Builder::new().spawn(move || listen(&stream, number, &tell))
                })
                .map_err(|error| match error.kind() {
                    io::ErrorKind::WouldBlock => stuck(&self.sockets),
                    _ => refused(&self.sockets, &error.to_string()),
                })?;
            self.asked.insert(path);
            self.connections += 1;
            asked += 1;
        }
        Ok(asked)
    }
}

/// Passes on what a pump says, to its end.
fn listen(stream: &UnixStream, number: usize, tell: &SyncSender<Told>) {
    for line in BufReader::new(stream).split(b'\n') {
        // Half a line is the end, too.
        let Some(said) = line
            .ok()
            .and_then(|line| serde_json::from_slice(&line).ok())
        else {
            break;
        };
        if tell.send((number, Some(said))).is_err() {
            return;
        }
    }
    // Nobody waits for it any more, or they hear it.
    let _ = tell.send((number, None));
}

/// The past of all pumps, the oldest line first, and how many of them have more to say.
fn read_past(
    sockets: &Sockets,
    told: &Receiver<Told>,
    asked: usize,
) -> Result<(usize, Vec<Record>), Failure> {
    let mut alive = asked;
    let mut waited_for: BTreeSet<usize> = (0..asked).collect();
    let mut records = Vec::new();
    while !waited_for.is_empty() {
        let Ok((number, said)) = told.recv_timeout(ANSWER) else {
            return Err(stuck(sockets));
        };
        match said {
            Some(Said::Line(record)) => records.push(record),
            Some(Said::Past) => drop(waited_for.remove(&number)),
            Some(Said::Dropped(_)) => {}
            Some(Said::Refused(why)) => {
                return Err(refused(sockets, &why));
            }
            None => {
                waited_for.remove(&number);
                alive -= 1;
            }
        }
    }
    // Of the same form and zone, so their order is that of the times.
    records.sort_by(|one, other| one.time.cmp(&other.time));
    Ok((alive, records))
}

/// Writes lines; `false` when nobody reads them any more.
struct Writer<'a, W> {
    out: &'a mut W,
    json: bool,
    digits: usize,
}

impl<W: Write> Writer<'_, W> {
    fn line(&mut self, record: &Record) -> Result<bool, Failure> {
        let text = if self.json {
            to_line(record)
        } else {
            let Record {
                time, slot, line, ..
            } = record;
            self.digits = self.digits.max(slot.to_string().len());
            let digits = self.digits;
            format!("{time} {slot:>digits$} │ {line}\n").into_bytes()
        };
        self.write(&text)
    }

    fn dropped(&mut self, lines: u64) -> Result<bool, Failure> {
        let text = if self.json {
            format!("{{\"dropped\":{lines}}}\n")
        } else {
            format!("… {lines} lines were not read in time\n")
        };
        self.write(text.as_bytes())
    }

    fn write(&mut self, text: &[u8]) -> Result<bool, Failure> {
        match self.out.write_all(text).and_then(|()| self.out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::new(
                "cannot write the logs",
                error,
                "check where standard output goes",
            )),
        }
    }
}

fn stuck(sockets: &Sockets) -> Failure {
    Failure::new(
        format!("cannot show the logs of {}", sockets.name),
        "the process that passes the workers' output on does not answer",
        "see that somebody reads the launcher's standard output and error: it waits for them",
    )
}

fn refused(sockets: &Sockets, why: &str) -> Failure {
    Failure::new(
        format!("cannot show the logs of {}", sockets.name),
        why,
        "ask as the user that started it, or as root",
    )
}
