//! The last lines of each slot, for `logs`.

use std::collections::{BTreeMap, VecDeque};

/// Bytes kept of each slot, as they are sent.
const BYTES: usize = 256 * 1024;

/// Lines as they are sent, in their order.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Kept of each slot.
    lines: usize,
    slots: BTreeMap<u32, Slot>,
    next: u64,
}

#[derive(Debug, Default)]
struct Slot {
    lines: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
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

    pub(super) fn push(&mut self, slot: u32, line: Vec<u8>) {
        let Slot { lines, bytes } = self.slots.entry(slot).or_default();
        *bytes += line.len();
        lines.push_back((self.next, line));
        self.next += 1;
        while lines.len() > self.lines || *bytes > BYTES {
            *bytes -= lines.pop_front().map_or(0, |(_, oldest)| oldest.len());
        }
    }

    /// The last lines of a slot, or of all, at most so many and so many bytes; the oldest first.
    pub(super) fn last(&self, slot: Option<u32>, lines: usize, mut bytes: usize) -> Vec<&[u8]> {
        let slots = self.slots.iter();
        let slots = slots.filter(|(of, _)| slot.is_none_or(|slot| slot == **of));
        let mut all: Vec<_> = slots.flat_map(|(_, slot)| &slot.lines).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        let mut last: Vec<&[u8]> = all
            .into_iter()
            .rev()
            .take(lines)
            .map(|(_, line)| line.as_slice())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn last(past: &Past, slot: Option<u32>, lines: usize, bytes: usize) -> String {
        String::from_utf8(past.last(slot, lines, bytes).concat()).unwrap()
    }

    #[test]
    fn the_last_lines_of_one_slot_or_of_all() {
        let mut past = Past::new(3);
        for number in 0..10 {
            past.push(number % 2, format!("{number} ").into_bytes());
        }
        assert_eq!(last(&past, None, 100, 100), "4 5 6 7 8 9 ");
        assert_eq!(last(&past, Some(1), 100, 100), "5 7 9 ");
        assert_eq!(last(&past, None, 2, 100), "8 9 ");
        assert_eq!(last(&past, None, 100, 7), "7 8 9 ");
        assert_eq!(last(&past, Some(2), 100, 100), "");
        assert_eq!(last(&past, None, 0, 100), "");
    }

    #[test]
    fn a_slot_that_says_much_pushes_out_only_its_own() {
        let mut past = Past::new(100_000);
        past.push(0, b"quiet".to_vec());
        for _ in 0..1_000 {
            past.push(1, vec![b'x'; 4096]);
        }
        assert_eq!(past.last(Some(0), 10, 100), [b"quiet"]);
        assert!(past.last(Some(1), 100_000, usize::MAX).len() * 4096 <= BYTES);
        past.push(1, vec![b'x'; BYTES + 1]);
        assert!(past.last(Some(1), 1, usize::MAX).is_empty());
    }
}
