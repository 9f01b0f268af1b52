//! The last lines of each slot, for `logs`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use super::{
    record::{Record, Said, to_line},
    source::Stream,
};
use crate::worker::WorkerId;

/// Bytes kept of each slot.
const BYTES: usize = 256 * 1024;

/// A line, or a piece of one, as it was read: only what is asked for is worth writing as a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) worker: WorkerId,
    pub(super) stream: Stream,
    pub(super) at: SystemTime,
    pub(super) bytes: &'a [u8],
}

impl Piece<'_> {
    pub(super) fn record(self) -> Record {
        Record::new(self.worker, self.stream, self.bytes, self.at)
    }
}

/// Lines in their order.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Kept of each slot.
    lines: usize,
    slots: BTreeMap<u32, Slot>,
    next: u64,
}

#[derive(Debug, Default)]
struct Slot {
    lines: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    worker: WorkerId,
    stream: Stream,
    at: SystemTime,
    bytes: Box<[u8]>,
}

impl Past {
    pub(super) fn new(lines: usize) -> Self {
        Self {
            lines,
            ..Self::default()
        }
    }

    /// Whether any line is kept.
    pub(super) fn keeps(&self) -> bool {
        self.lines > 0
    }

    pub(super) fn push(&mut self, piece: Piece<'_>) {
        let Slot { lines, bytes } = self.slots.entry(piece.worker.slot).or_default();
        *bytes += piece.bytes.len();
        lines.push_back(Kept {
            number: self.next,
            worker: piece.worker,
            stream: piece.stream,
            at: piece.at,
            bytes: piece.bytes.into(),
        });
        self.next += 1;
        while lines.len() > self.lines || *bytes > BYTES {
            *bytes -= lines.pop_front().map_or(0, |oldest| oldest.bytes.len());
        }
    }

    /// The last lines of a slot, or of all, as they are sent: at most so many and so many bytes; the
    /// oldest first.
    pub(super) fn last(&self, slot: Option<u32>, lines: usize, mut bytes: usize) -> Vec<Vec<u8>> {
        let slots = self.slots.iter();
        let slots = slots.filter(|(of, _)| slot.is_none_or(|slot| slot == **of));
        let mut all: Vec<&Kept> = slots.flat_map(|(_, slot)| &slot.lines).collect();
        all.sort_unstable_by_key(|kept| kept.number);
        let mut last: Vec<Vec<u8>> = all
            .into_iter()
            .rev()
            .take(lines)
            .map(Kept::sent)
            .take_while(|line| {
                let fits = line.len() <= bytes;
                bytes = bytes.saturating_sub(line.len());
                fits
            })
            .collect();
        last.reverse();
        last
    }
}

impl Kept {
    fn sent(&self) -> Vec<u8> {
        let record = Record::new(self.worker, self.stream, &self.bytes, self.at);
        to_line(&Said::Line(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(past: &mut Past, slot: u32, bytes: &[u8]) {
        past.push(Piece {
            worker: WorkerId {
                slot,
                generation: 1,
            },
            stream: Stream::Stdout,
            at: SystemTime::UNIX_EPOCH,
            bytes,
        });
    }

    /// The lines, without the rest.
    fn last(past: &Past, slot: Option<u32>, lines: usize, bytes: usize) -> Vec<String> {
        let last = past.last(slot, lines, bytes);
        let lines = last.iter().map(|line| match serde_json::from_slice(line) {
            Ok(Said::Line(record)) => record.line,
            other => panic!("{other:?}"),
        });
        lines.collect()
    }

    #[test]
    fn the_last_lines_of_one_slot_or_of_all() {
        let mut past = Past::new(3);
        for number in 0..10 {
            push(&mut past, number % 2, format!("{number}\n").as_bytes());
        }
        let all = usize::MAX;
        assert_eq!(last(&past, None, 100, all), ["4", "5", "6", "7", "8", "9"]);
        assert_eq!(last(&past, Some(1), 100, all), ["5", "7", "9"]);
        assert_eq!(last(&past, None, 2, all), ["8", "9"]);
        let of_two = past.last(None, 2, all).concat().len();
        assert_eq!(last(&past, None, 100, of_two), ["8", "9"]);
        assert!(last(&past, Some(2), 100, all).is_empty());
        assert!(last(&past, None, 0, all).is_empty());
    }

    #[test]
    fn a_slot_that_says_much_pushes_out_only_its_own() {
        let mut past = Past::new(100_000);
        push(&mut past, 0, b"quiet");
        for _ in 0..1_000 {
            push(&mut past, 1, &[b'x'; 4096]);
        }
        assert_eq!(last(&past, Some(0), 10, usize::MAX), ["quiet"]);
        assert_eq!(past.last(Some(1), 100_000, usize::MAX).len(), BYTES / 4096);
        push(&mut past, 1, &vec![b'x'; BYTES + 1]);
        assert!(past.last(Some(1), 1, usize::MAX).is_empty());
    }
}
