//! The log files: of bounded size, rotated here, opened anew when they have been moved or when asked.
//!
//! Two pumps may write to the same file, after a launcher was taken over or upgraded. So each looks
//! before it writes whether the file is still the one at that path and how large it is, and only one
//! of them at a time rotates.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    settings::{LogFile, open},
    source::Stream,
};
use crate::worker::WorkerId;

/// All log files.
#[derive(Debug)]
pub(super) struct Files {
    settings: LogFile,
    /// By slot, or all under 0.
    files: BTreeMap<u32, LogFileOf>,
}

/// One file.
#[derive(Debug)]
struct LogFileOf {
    path: String,
    max_size: u64,
    keep: u32,
    file: Option<File>,
    /// Whose line was begun and not ended.
    open: Option<(WorkerId, Stream)>,
    buffer: Vec<u8>,
    /// Whether the file ends within a line because a write was cut short.
    torn: bool,
    /// Lines that it lacks since it was told that it can't be written to; `None`: it can.
    lost: Option<u64>,
}

impl Files {
    pub(super) fn new(settings: LogFile) -> Self {
        Self {
            settings,
            files: BTreeMap::new(),
        }
    }

    /// A worker of this slot will write. Says what is wrong with its file.
    pub(super) fn prepare(&mut self, slot: u32) -> Option<String> {
        let file = self.of(slot);
        file.current()
            .map(drop)
            .map_or_else(|error| file.failed(&error), |()| None)
    }

    /// Adds a line, or a piece of one.
    pub(super) fn add(&mut self, worker: WorkerId, stream: Stream, piece: &[u8]) {
        self.of(worker.slot).add((worker, stream), piece);
    }

    /// Ends the line that the stream has begun, if it has.
    pub(super) fn end_line(&mut self, worker: WorkerId, stream: Stream) {
        let file = self.of(worker.slot);
        if file.open == Some((worker, stream)) {
            file.add((worker, stream), b"\n");
        }
    }

    /// Writes what was added for a slot. Says when that fails for the first time, and when it goes on.
    pub(super) fn flush(&mut self, slot: u32) -> Option<String> {
        self.of(slot).flush()
    }

    /// Opens them anew. Says what is wrong.
    pub(super) fn reopen(&mut self) -> Vec<String> {
        let files = self.files.values_mut();
        files
            .filter_map(|file| {
                file.file = None;
                file.current()
                    .map(drop)
                    .map_or_else(|error| file.failed(&error), |()| None)
            })
            .collect()
    }

    fn of(&mut self, slot: u32) -> &mut LogFileOf {
        let key = if self.settings.each() { slot } else { 0 };
        self.files.entry(key).or_insert_with(|| LogFileOf {
            path: self.settings.of(slot),
            max_size: self.settings.max_size,
            keep: self.settings.keep,
            file: None,
            open: None,
            buffer: Vec::new(),
            torn: false,
            lost: None,
        })
    }
}

impl LogFileOf {
    fn add(&mut self, from: (WorkerId, Stream), piece: &[u8]) {
        if self.open.is_some_and(|open| open != from) {
            self.buffer.push(b'\n');
        }
        self.buffer.extend_from_slice(piece);
        self.open = (!piece.ends_with(b"\n")).then_some(from);
    }

    fn flush(&mut self) -> Option<String> {
        if self.buffer.is_empty() {
            return None;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        let mut said = None;
        while !rest.is_empty() {
            match self.write_some(rest) {
                Ok(written) => {
                    rest = &rest[written..];
                    if let Some(lost) = self.lost.take() {
                        let path = &self.path;
                        said = Some(format!(
                            "the log file {path} is written again; {lost} lines are not in it"
                        ));
                    }
                }
                Err(error) => {
                    said = self.failed(&error);
                    let lost = rest.iter().filter(|&&byte| byte == b'\n').count();
                    self.lost = self.lost.map(|before| before + lost as u64);
                    break;
                }
            }
        }
        self.buffer = buffer;
        self.buffer.clear();
        said
    }

    /// Writes as many whole lines as the file has room for, after a rotation where it has none: how
    /// many bytes.
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut size = self.current()?;
        let mut fitting = fitting(bytes, self.max_size.saturating_sub(size));
        if fitting == 0 && size > 0 {
            self.rotate()?;
            size = self.current()?;
            fitting = self::fitting(bytes, self.max_size.saturating_sub(size));
        }
        let batch = match fitting {
            // It was rotated by somebody who has filled it again, or is longer than the limit.
            0 => &bytes[..line_length(bytes)],
            fitting => &bytes[..fitting],
        };
        let Some(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        match file.write(batch)? {
            written if written == batch.len() => Ok(written),
            // The disk is full; the next write says so.
            written => {
                let whole = batch[..written].iter().rposition(|&byte| byte == b'\n');
                let whole = whole.map_or(0, |newline| newline + 1);
                self.torn = whole < written;
                if whole == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(whole)
            }
        }
    }

    /// Sees to it that the open file is the one at the path: its size.
    fn current(&mut self) -> io::Result<u64> {
        if let Some(file) = &self.file
            && let Ok(at_path) = fs::metadata(&self.path)
            && same(&file.metadata()?, &at_path)
        {
            return Ok(at_path.len());
        }
        self.torn = false;
        let file = open(&self.path)?;
        let size = file.metadata()?.len();
        self.file = Some(file);
        Ok(size)
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        // Whoever has the lock is about to rotate. That isn't waited for: it could be anybody.
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        if same(&file.metadata()?, &fs::metadata(&self.path)?) {
            let path = &self.path;
            for number in (1..self.keep).rev() {
                move_file(
                    &format!("{path}.{number}"),
                    &format!("{path}.{}", number + 1),
                )?;
            }
            match self.keep {
                0 => fs::remove_file(path)?,
                _ => move_file(path, &format!("{path}.1"))?,
            }
        }
        // The lock goes with it.
        self.file = None;
        Ok(())
    }

    /// Says it, the first time.
    fn failed(&mut self, error: &io::Error) -> Option<String> {
        if self.lost.is_some() {
            return None;
        }
        self.lost = Some(0);
        Some(format!(
            "cannot write the log file {}: {error}; lines go on to the launcher's own output",
            self.path
        ))
    }
}

/// Bytes of the whole lines (and of what is left behind the last one) that fit into `room`.
fn fitting(bytes: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if bytes.len() <= room {
        return bytes.len();
    }
    let newline = bytes[..room].iter().rposition(|&byte| byte == b'\n');
    newline.map_or(0, |newline| newline + 1)
}

/// Bytes of the first line.
fn line_length(bytes: &[u8]) -> usize {
    let newline = bytes.iter().position(|&byte| byte == b'\n');
    newline.map_or(bytes.len(), |newline| newline + 1)
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Renames it, if it is there.
fn move_file(from: &str, to: &str) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
