//! What becomes of a line besides being passed on: kept, told to who follows, written to a file.

use std::time::SystemTime;

use super::{
    files::Files,
    past::{Past, Piece},
    readers::Readers,
    record::{Said, to_line},
    settings::Settings,
    sink::Sink,
    source::Stream,
};
use crate::worker::WorkerId;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    json: bool,
    pub(super) past: Past,
    pub(super) readers: Readers,
    files: Option<Files>,
    /// What is to be said about the files.
    notes: Vec<String>,
}

/// The way of one stream's lines.
pub(super) struct Way<'a, 'fd> {
    pub(super) sink: &'a mut Sink<'fd>,
    pub(super) beside: &'a mut Beside,
}

impl Beside {
    pub(super) fn new(settings: Settings, readers: Readers) -> Self {
        let Settings { json, lines, file } = settings;
        Self {
            json,
            past: Past::new(lines),
            readers,
            files: file.map(Files::new),
            notes: Vec::new(),
        }
    }

    /// A worker of this slot will write.
    pub(super) fn prepare(&mut self, slot: u32) {
        let files = self.files.as_mut();
        self.notes
            .extend(files.and_then(|files| files.prepare(slot)));
    }

    /// Opens the log files anew.
    pub(super) fn reopen(&mut self) {
        let said = self.files.as_mut().map(Files::reopen);
        self.notes.extend(said.unwrap_or_default());
    }

    /// Says on `stderr` what there is to say.
    pub(super) fn tell_notes(&mut self, stderr: &mut Sink<'_>) {
        if self.notes.is_empty() {
            return;
        }
        for note in self.notes.drain(..) {
            let note = format!("reuseport-launch: {note}");
            if self.json {
                let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
                let value = serde_json::json!({"time": time, "level": "WARN", "message": note});
                stderr.note(&value.to_string());
            } else {
                stderr.note(&note);
            }
        }
        stderr.flush();
    }
}

impl Way<'_, '_> {
    /// Passes on a line, or a piece of one.
    pub(super) fn pass_on(&mut self, worker: WorkerId, stream: Stream, piece: &[u8]) {
        let Self { sink, beside } = self;
        let piece = Piece {
            worker,
            stream,
            at: SystemTime::now(),
            bytes: piece,
        };
        if beside.readers.follow(worker.slot) {
            let line = to_line(&Said::Line(piece.record()));
            beside.readers.tell(worker.slot, &line);
        }
        if beside.past.keeps() {
            beside.past.push(piece);
        }
        let json = beside.json.then(|| to_line(&piece.record()));
        let shown = json.as_deref().unwrap_or(piece.bytes);
        sink.add(worker, shown);
        if let Some(files) = &mut beside.files {
            files.add(worker, stream, shown);
        }
    }

    /// Ends the line that the stream has begun, if it has.
    pub(super) fn end_line(&mut self, worker: WorkerId, stream: Stream) {
        self.sink.end_line(worker);
        if let Some(files) = &mut self.beside.files {
            files.end_line(worker, stream);
        }
    }

    /// Writes what was passed on by a worker of this slot. Only for the launcher's own output this may
    /// have to wait.
    pub(super) fn flush(&mut self, slot: u32) {
        let Self { sink, beside } = self;
        if let Some(files) = &mut beside.files {
            beside.notes.extend(files.flush(slot));
        }
        beside.readers.flush();
        sink.flush();
    }
}
