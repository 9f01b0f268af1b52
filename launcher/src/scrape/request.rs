//! The head of a request.

/// The longest head, in bytes.
pub(super) const HEAD_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Without its query.
    pub(super) path: String,
    /// Whether only the head of the answer is wanted.
    pub(super) head_only: bool,
    /// The formats that the client takes; of several lines, all.
    pub(super) accept: String,
}

/// What some bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The beginning of a head.
    Part,
    /// A whole head.
    Whole(Request),
    /// None that is answered otherwise than by this status.
    Wrong(&'static str),
}

/// Reads what has come of a request so far.
pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_MAX => {}
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Parsed::Part,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Parsed::Wrong("431 Request Header Fields Too Large");
        }
        Err(_) => return Parsed::Wrong("400 Bad Request"),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Parsed::Wrong("405 Method Not Allowed"),
    };
    let accept = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("accept"))
        .map(|header| String::from_utf8_lossy(header.value))
        .collect::<Vec<_>>()
        .join(",");
    let path = request.path.unwrap_or_default();
    Parsed::Whole(Request {
        path: path.split('?').next().unwrap_or_default().to_owned(),
        head_only,
        accept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_soon_as_it_is_whole() {
        let text = "GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nACCEPT: a/b\r\nAccept: c/d\r\n\r\n";
        for length in 1..text.len() {
            assert_eq!(parse(&text.as_bytes()[..length]), Parsed::Part, "{length}");
        }
        let request = Request {
            path: "/metrics".into(),
            head_only: false,
            accept: "a/b,c/d".into(),
        };
        assert_eq!(parse(text.as_bytes()), Parsed::Whole(request));
        let Parsed::Whole(request) = parse(b"HEAD / HTTP/1.0\r\n\r\n") else {
            panic!("not read");
        };
        assert!(request.head_only && request.accept.is_empty());
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        let long = |length| format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(length));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        for (text, status) in [
            ("POST / HTTP/1.1\r\n\r\n".to_owned(), "405"),
            ("hello world this is it\r\n\r\n".to_owned(), "400"),
            ("\u{16}\u{3}\u{1}".to_owned(), "400"),
            (long(HEAD_MAX), "431"),
            (long(HEAD_MAX) + "\r\n\r\n", "431"),
            (many, "431"),
        ] {
            let parsed = parse(text.as_bytes());
            let right = matches!(parsed, Parsed::Wrong(said) if said.starts_with(status));
            assert!(right, "{status}: {parsed:?}");
        }
        assert_eq!(parse(long(HEAD_MAX / 2).as_bytes()), Parsed::Part);
    }
}
