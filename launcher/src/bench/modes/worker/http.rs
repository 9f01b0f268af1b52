//! What the built-in worker reads and writes: HTTP/1.0 and 1.1, `GET` and `HEAD`, without bodies in
//! requests.

use std::io::Write as _;

/// The longest head of a request, in bytes.
pub(super) const HEAD_MAX: usize = 8 * 1024;

/// The most fields of a head.
const FIELDS_MAX: usize = 64;

/// The body of a good answer.
const BODY: &str = "hello from a worker\n";

/// A request that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Only the head of the answer is asked for.
    pub(super) head_only: bool,
    /// Whether the connection stays open after the answer.
    pub(super) keep_alive: bool,
}

/// Why a request is refused; the connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is not HTTP/1, or has a body.
    Bad,
    /// Another method.
    Method,
    /// Its head is too long.
    TooLong,
}

/// The request at the start of `bytes`, and how many of them it takes. `None`: it is not whole yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refused::TooLong),
        Err(_) => return Err(Refused::Bad),
    };
    // HTTP/1.0 closes if nothing else was said, and 1.1 does not.
    let mut keep_alive = head.version == Some(1);
    for field in head.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("connection") {
            let says = |word: &str| {
                let words = field.value.split(|&byte| byte == b',');
                words
                    .into_iter()
                    .any(|it| it.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
            };
            keep_alive = !says("close") && (keep_alive || says("keep-alive"));
        } else if is("transfer-encoding") || is("content-length") && field.value != b"0" {
            return Err(Refused::Bad);
        }
    }
    let head_only = match head.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refused::Method),
    };
    let request = Request {
        head_only,
        keep_alive,
    };
    Ok(Some((request, length)))
}

/// Appends the answer of the worker of this slot.
pub(super) fn answer(request: Request, slot: u32, to: &mut Vec<u8>) {
    let connection = if request.keep_alive {
        "keep-alive"
    } else {
        "close"
    };
    let body = if request.head_only { "" } else { BODY };
    // Writing to memory does not fail.
    let _ = write!(
        to,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nX-Worker: {slot}\r\n\
         Connection: {connection}\r\n\r\n{body}",
        BODY.len(),
    );
}

/// Appends what is answered to a request that is refused.
pub(super) fn refuse(refused: Refused, to: &mut Vec<u8>) {
    let status = match refused {
        Refused::Bad => "400 Bad Request",
        Refused::Method => "405 Method Not Allowed\r\nAllow: GET, HEAD",
        Refused::TooLong => "431 Request Header Fields Too Large",
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    to.extend(head.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[test]
    fn a_request_is_complete_at_its_empty_line_and_not_before() {
        for end in 0..GET.len() {
            assert_eq!(parse(&GET[..end]), Ok(None), "{end}");
        }
        let request = Request {
            head_only: false,
            keep_alive: true,
        };
        assert_eq!(parse(GET), Ok(Some((request, GET.len()))));
        let two = [GET, GET].concat();
        assert_eq!(parse(&two), Ok(Some((request, GET.len()))));
    }

    #[test]
    fn what_is_said_of_the_connection_counts() {
        for (text, keeps) in [
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false),
            (
                "HEAD / HTTP/1.1\r\nconnection: upgrade, Close\r\n\r\n",
                false,
            ),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", true),
        ] {
            let (request, _) = parse(text.as_bytes()).expect(text).expect(text);
            assert_eq!(request.keep_alive, keeps, "{text}");
            assert_eq!(request.head_only, text.starts_with("HEAD"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; HEAD_MAX]].concat();
        let fields = [
            b"GET / HTTP/1.1\r\n".as_slice(),
            &b"A: b\r\n".repeat(FIELDS_MAX + 1),
        ];
        for (text, refused) in [
            (b"\x16\x03\x01\x02\x00\x01".as_slice(), Refused::Bad),
            (b"GET / HTTP/2.0\r\n\r\n", Refused::Bad),
            (
                b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
                Refused::Bad,
            ),
            (
                b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Refused::Bad,
            ),
            (b"DELETE / HTTP/1.1\r\n\r\n", Refused::Method),
            (&endless, Refused::TooLong),
            (&fields.concat(), Refused::TooLong),
        ] {
            assert_eq!(parse(text), Err(refused), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn an_answer_names_the_worker_and_has_the_length_that_it_says() {
        let mut bytes = Vec::new();
        let request = Request {
            head_only: false,
            keep_alive: false,
        };
        answer(request, 7, &mut bytes);
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\nX-Worker: 7\r\n"), "{head}");
        assert!(head.ends_with("Connection: close"), "{head}");
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{head}");
    }
}
