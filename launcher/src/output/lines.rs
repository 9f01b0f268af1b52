//! Cuts a stream of bytes into lines. Pure: bytes in, lines out, bounded memory, no notion of text
//! encoding.

use std::mem;

/// Collects the bytes of one stream until a line is complete.
///
/// Holds fewer than `limit` bytes. A line that reaches the limit is handed out in pieces of `limit`
/// bytes, only the last of which ends with a newline.
#[derive(Debug)]
pub(super) struct Lines {
    partial: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// `limit` is the longest piece handed out, in bytes, its newline included; at least 1.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            partial: Vec::new(),
            limit: limit.max(1),
        }
    }

    /// Takes the next bytes and hands out, in order, every line (newline included) and every full
    /// piece of an over-long line that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = self.limit - self.partial.len();
            let window = &bytes[..room.min(bytes.len())];
            let newline = window.iter().position(|&byte| byte == b'\n');
            let (piece, rest) = bytes.split_at(newline.map_or(window.len(), |at| at + 1));
            let complete = newline.is_some() || piece.len() == room;
            bytes = rest;

            if complete && self.partial.is_empty() {
                emit(piece);
                continue;
            }
            self.partial.extend_from_slice(piece);
            if complete {
                emit(&self.partial);
                self.partial.clear();
            }
        }
    }

    /// The stream has ended: the unfinished last line, without a newline, or nothing.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        mem::take(&mut self.partial)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn split(limit: usize, chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut lines = Lines::new(limit);
        let mut pieces = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |piece| pieces.push(piece.to_vec()));
            assert!(lines.partial.len() < limit);
        }
        let rest = lines.finish();
        (pieces, rest)
    }

    #[test]
    fn lines_are_joined_across_chunks() {
        let (pieces, rest) = split(64, &[b"a\nb", b"c", b"\n\nd"]);
        assert_eq!(pieces, [&b"a\n"[..], b"bc\n", b"\n"]);
        assert_eq!(rest, b"d");
    }

    #[test]
    fn a_long_line_comes_in_pieces_of_the_limit() {
        let (pieces, rest) = split(4, &[b"ab", b"cdefghij\nk\n"]);
        assert_eq!(pieces, [&b"abcd"[..], b"efgh", b"ij\n", b"k\n"]);
        assert_eq!(rest, b"");
    }

    #[test]
    fn a_line_that_fits_with_its_newline_is_one_piece() {
        assert_eq!(split(4, &[b"abc\n"]).0, [b"abc\n"]);
        assert_eq!(split(4, &[b"abcd\n"]).0, [&b"abcd"[..], b"\n"]);
    }

    #[test]
    fn bytes_that_are_no_text_pass_untouched() {
        let (pieces, rest) = split(64, &[b"\xff\x00\n\xc3"]);
        assert_eq!(pieces, [b"\xff\x00\n"]);
        assert_eq!(rest, b"\xc3");
    }

    /// Bytes in which newlines are frequent enough to matter.
    fn stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![1 => Just(b'\n'), 4 => any::<u8>()];
        vec(vec(byte, 0..40), 0..20)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_torn_or_too_long(chunks in stream(), limit in 1_usize..50) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let (pieces, rest) = split(limit, &chunks);

            let mut joined = pieces.concat();
            joined.extend(&rest);
            prop_assert_eq!(joined, chunks.concat());

            for piece in &pieces {
                prop_assert!(piece.len() <= limit);
                // A newline only ever ends a piece, and only a full piece may lack one.
                let newline = piece.iter().position(|&byte| byte == b'\n');
                prop_assert!(newline.map_or(piece.len() == limit, |at| at + 1 == piece.len()));
            }
            prop_assert!(!rest.contains(&b'\n'));
        }

        #[test]
        fn the_chunking_makes_no_difference(chunks in stream(), limit in 1_usize..50) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(split(limit, &chunks), split(limit, &[&chunks.concat()]));
        }
    }
}
