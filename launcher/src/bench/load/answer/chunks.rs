//! A body in chunks (RFC 9112, section 7.1), of which only the end matters.

use super::Invalid;

/// The most that may stand beside the data: in the extensions of one chunk, or in all trailers.
const ASIDE: u32 = 16 * 1024;

/// Where in the body we are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chunks {
    /// In the size of a chunk.
    Size { digits: u8, size: u64 },
    /// After it, up to the end of the line.
    Extension { size: u64, length: u32 },
    /// So many bytes before the end of a chunk's data.
    Data(u64),
    /// At the end of the line after them.
    DataEnd,
    /// In the lines after the last chunk. An empty one is the end.
    Trailer { empty: bool, length: u32 },
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    /// Takes what has come. Returns how much of it belongs to the body, if that has ended.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, Invalid> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Self::Data(left) = self {
                let taken = (*left).min((bytes.len() - at) as u64);
                *left -= taken;
                // No more than there is.
                at += taken as usize;
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                continue;
            }
            at += 1;
            match self.step(byte)? {
                Some(next) => *self = next,
                None => return Ok(Some(at)),
            }
        }
        Ok(None)
    }

    /// What a byte outside the data leads to; `None`: it was the last.
    fn step(&self, byte: u8) -> Result<Option<Self>, Invalid> {
        Ok(Some(match (*self, byte) {
            (Self::Size { digits: 1.., size }, b'\n') => Self::after_size(size),
            (Self::Size { digits: 1.., size }, b'\r' | b';' | b' ' | b'\t') => {
                Self::Extension { size, length: 0 }
            }
            (Self::Size { digits, size }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Invalid)?;
                // 15 digits can't overflow.
                if digits == 15 {
                    return Err(Invalid);
                }
                Self::Size {
                    digits: digits + 1,
                    size: size * 16 + u64::from(digit),
                }
            }
            (Self::Extension { size, .. }, b'\n') => Self::after_size(size),
            (Self::Extension { length: ASIDE, .. } | Self::Trailer { length: ASIDE, .. }, _) => {
                return Err(Invalid);
            }
            (Self::Extension { size, length }, _) => Self::Extension {
                size,
                length: length + 1,
            },
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::default(),
            (Self::Data(_) | Self::DataEnd, _) => return Err(Invalid),
            (Self::Trailer { empty: true, .. }, b'\n') => return Ok(None),
            (Self::Trailer { empty, length }, _) => Self::Trailer {
                empty: byte == b'\n' || (empty && byte == b'\r'),
                length: length + 1,
            },
        }))
    }

    fn after_size(size: u64) -> Self {
        match size {
            0 => Self::Trailer {
                empty: true,
                length: 0,
            },
            _ => Self::Data(size),
        }
    }
}
