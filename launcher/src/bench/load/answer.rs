//! An answer to a request, read piece by piece as it comes.

mod chunks;
#[cfg(test)]
mod tests;

use std::mem;

use httparse::{EMPTY_HEADER, Header, Response, Status};

use self::chunks::Chunks;

/// The largest head of an answer, in bytes.
const HEAD: usize = 16 * 1024;

/// The largest number of headers in it.
const HEADERS: usize = 128;

/// `X-Worker` above this is no number of a worker.
const WORKERS: usize = 4096;

/// What is no HTTP/1 answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid;

/// An answer of which a part has come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    part: Part,
    /// What has come of a head that is not whole.
    head: Vec<u8>,
    status: u16,
    worker: Option<usize>,
    reusable: bool,
}

/// What comes next.
#[derive(Debug, Default)]
enum Part {
    #[default]
    Head,
    /// So many bytes of the body.
    Length(u64),
    Chunks(Chunks),
    UntilClose,
    Nothing,
}

impl Answer {
    /// Takes what has come. Returns whether the answer is whole.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<bool, Invalid> {
        match self.part {
            Part::Head if self.head.is_empty() => self.begin(bytes),
            Part::Head => {
                let mut head = mem::take(&mut self.head);
                head.extend_from_slice(bytes);
                self.begin(&head)
            }
            _ => self.body(bytes),
        }
    }

    /// The server has closed the connection. Returns whether the answer is whole.
    pub(super) fn close(&mut self) -> bool {
        self.reusable = false;
        matches!(self.part, Part::UntilClose | Part::Nothing)
    }

    /// Whether it says that all is well: 2xx or 3xx.
    pub(super) fn is_good(&self) -> bool {
        matches!(self.status, 200..400)
    }

    /// Who says that he has answered.
    pub(super) fn worker(&self) -> Option<usize> {
        self.worker
    }

    /// Whether the connection is good for another request, after a whole answer.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable
    }

    fn begin(&mut self, mut bytes: &[u8]) -> Result<bool, Invalid> {
        loop {
            let mut headers = [EMPTY_HEADER; HEADERS];
            let mut response = Response::new(&mut headers);
            match response.parse(bytes) {
                Ok(Status::Complete(length)) => {
                    self.status = response.code.ok_or(Invalid)?;
                    bytes = bytes.get(length..).unwrap_or_default();
                    // An interim answer comes before the one that counts.
                    if !matches!(self.status, 100 | 102..200) {
                        let version = response.version.unwrap_or(0);
                        self.read_headers(version, response.headers)?;
                        return self.body(bytes);
                    }
                }
                Ok(Status::Partial) if bytes.len() <= HEAD => {
                    self.head = bytes.to_vec();
                    return Ok(false);
                }
                Ok(Status::Partial) | Err(_) => return Err(Invalid),
            }
        }
    }

    /// How the body ends, and what becomes of the connection: RFC 9112, sections 6.3 and 9.3.
    fn read_headers(&mut self, version: u8, headers: &[Header<'_>]) -> Result<(), Invalid> {
        let mut length = None;
        let mut coding = None;
        self.reusable = version == 1;
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("content-length") {
                let bytes = number(value).ok_or(Invalid)?;
                if length.is_some_and(|other| other != bytes) {
                    return Err(Invalid);
                }
                length = Some(bytes);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                coding = Some(is_listed(value, "chunked"));
            } else if name.eq_ignore_ascii_case("connection") {
                self.reusable = match version {
                    1 => self.reusable && !is_listed(value, "close"),
                    _ => is_listed(value, "keep-alive"),
                };
            } else if name.eq_ignore_ascii_case("x-worker") {
                let worker = number(value).and_then(|worker| usize::try_from(worker).ok());
                self.worker = worker.filter(|&worker| worker < WORKERS);
            }
        }
        self.part = match (self.status, coding, length) {
            (101 | 204 | 304, _, _) | (_, None, Some(0)) => Part::Nothing,
            (_, Some(true), _) => Part::Chunks(Chunks::default()),
            (_, None, Some(length)) => Part::Length(length),
            (_, Some(false), _) | (_, None, None) => Part::UntilClose,
        };
        Ok(())
    }

    fn body(&mut self, bytes: &[u8]) -> Result<bool, Invalid> {
        let came = bytes.len();
        let used = match &mut self.part {
            Part::Head | Part::UntilClose => return Ok(false),
            Part::Nothing => 0,
            Part::Length(left) if *left > came as u64 => {
                *left -= came as u64;
                return Ok(false);
            }
            // It fits: it is not longer than what came.
            Part::Length(left) => *left as usize,
            Part::Chunks(chunks) => match chunks.feed(bytes)? {
                Some(used) => used,
                None => return Ok(false),
            },
        };
        self.part = Part::Nothing;
        // What comes unasked can't be told from the next answer.
        self.reusable &= used == came;
        Ok(true)
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Whether a comma-separated list has this word.
fn is_listed(value: &[u8], word: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}
