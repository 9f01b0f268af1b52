//! The last lines of a worker's stderr: what a person needs to see when the worker has failed.

use std::collections::VecDeque;

/// Lines kept.
const LINES: usize = 20;
/// Bytes kept, over all lines.
const BYTES: usize = 8 * 1024;
/// Bytes kept of one line, so that a single long one doesn't push out all others.
const LINE_BYTES: usize = 1024;

/// The last lines, at most 20 and 8 KiB of them.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// Adds a line, with or without its newline. Its first KiB is kept; what isn't UTF-8 is
    /// replaced.
    pub(super) fn push(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let head = &line[..line.len().min(LINE_BYTES)];
        let mut text = String::from_utf8_lossy(head).into_owned();
        text.truncate(text.floor_char_boundary(LINE_BYTES));

        self.bytes += text.len();
        self.lines.push_back(text);
        while self.lines.len() > LINES || self.bytes > BYTES {
            self.bytes -= self.lines.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    /// The lines, oldest first, without newlines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut tail = Tail::default();
        for line in lines {
            tail.push(line);
        }
        tail.lines().map(str::to_owned).collect()
    }

    #[test]
    fn line_ends_are_cut_off() {
        assert_eq!(
            tail([&b"a\n"[..], b"b\r\n", b"\n", b"c"]),
            ["a", "b", "", "c"]
        );
    }

    #[test]
    fn the_last_twenty_lines_stay() {
        let lines: Vec<String> = (0..50).map(|line| format!("{line}\n")).collect();
        let kept = tail(lines.iter().map(String::as_bytes));
        assert_eq!(kept.len(), LINES);
        assert_eq!(kept.first().map(String::as_str), Some("30"));
        assert_eq!(kept.last().map(String::as_str), Some("49"));
    }

    #[test]
    fn long_lines_and_bytes_that_are_no_text_stay_within_the_bound() {
        let line = [0xff; 5000];
        let kept = tail([&line[..]; 20]);
        assert!(kept.iter().all(|line| line.len() <= LINE_BYTES));
        assert!(kept.iter().map(String::len).sum::<usize>() <= BYTES);
        assert!(kept.len() >= BYTES / LINE_BYTES);
    }
}
