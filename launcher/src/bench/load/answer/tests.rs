use super::*;

/// Feeds a whole exchange in pieces of this size. `None`: more is awaited at its end.
fn fed(text: &str, piece: usize) -> Result<Option<Answer>, Invalid> {
    let mut answer = Answer::default();
    let mut whole = false;
    for bytes in text.as_bytes().chunks(piece) {
        assert!(!whole, "{text:?} went on");
        whole = answer.feed(bytes)?;
    }
    Ok(whole.then_some(answer))
}

/// The same however it is cut.
#[track_caller]
fn whole(text: &str) -> Answer {
    for piece in 1..text.len() {
        let answer = fed(text, piece).expect(text).expect(text);
        assert!(answer.is_good() && answer.is_reusable(), "{text:?}");
    }
    fed(text, text.len()).expect(text).expect(text)
}

#[test]
fn bodies_with_a_length() {
    let answer = whole("HTTP/1.1 200 OK\r\nX-Worker: 7\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!((answer.status, answer.worker()), (200, Some(7)));
    assert_eq!(
        whole("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").worker(),
        None
    );
    assert_eq!(whole("HTTP/1.1 204 No Content\r\n\r\n").status, 204);
    assert_eq!(
        whole("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n").status,
        304
    );
}

#[test]
fn bodies_in_chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\n";
    for body in [
        "0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "5;name=\"0\"\r\nhello\r\n1A \r\nabcdefghijklmnopqrstuvwxyz\r\n000\r\nX: 1\r\nY: 2\r\n\r\n",
    ] {
        whole(&format!("{head}{body}"));
    }
    for body in ["", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "0\r\nX: 1\r\n"] {
        assert!(
            fed(&format!("{head}{body}"), 7).unwrap().is_none(),
            "{body:?}"
        );
    }
    let long = format!("1;{}\r\n", "x".repeat(ASIDE_AND_MORE));
    for body in [
        "\r\n",
        "g\r\n",
        "5\r\nhello!\r\n",
        "1000000000000000\r\n",
        &long,
    ] {
        assert_eq!(
            fed(&format!("{head}{body}"), 7).unwrap_err(),
            Invalid,
            "{body:?}"
        );
    }
}

const ASIDE_AND_MORE: usize = 17 * 1024;

#[test]
fn interim_answers_come_before() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
                HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(whole(text).status, 200);
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let mut answer = Answer::default();
    assert_eq!(answer.feed(b"HTTP/1.0 200 OK\r\n\r\nhel"), Ok(false));
    assert_eq!(answer.feed(b"lo"), Ok(false));
    assert!(answer.close() && answer.is_good() && !answer.is_reusable());

    for cut in [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
    ] {
        let mut answer = Answer::default();
        assert_eq!(answer.feed(cut.as_bytes()), Ok(false));
        assert!(!answer.close(), "{cut:?}");
    }
}

#[test]
fn connections_that_can_be_used_again() {
    for (head, reusable) in [
        ("HTTP/1.1 200 OK\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n", false),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: foo\r\n",
            false,
        ),
        ("HTTP/1.0 200 OK\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", true),
    ] {
        let text = format!("{head}Content-Length: 2\r\n\r\nok");
        let answer = fed(&text, 1000).unwrap().expect(head);
        assert_eq!(answer.is_reusable(), reusable, "{head}");
    }
    // Nor after an answer to a question that nobody asked.
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    assert!(!fed(text, 1000).unwrap().expect(text).is_reusable());
}

#[test]
fn what_is_no_answer() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * HEAD));
    for text in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        &long,
    ] {
        assert_eq!(fed(text, 5).unwrap_err(), Invalid, "{text:.60}");
    }
}

#[test]
fn other_statuses_are_not_good() {
    for status in [101, 400, 404, 500, 503] {
        let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        let answer = fed(&text, 1000).unwrap().expect("it is an answer");
        assert!(!answer.is_good(), "{status}");
    }
}

#[test]
fn strange_workers_are_nobody() {
    for worker in ["", "x", "-1", "4096", "99999999999999999999999"] {
        let text = format!("HTTP/1.1 200 OK\r\nX-Worker: {worker}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            fed(&text, 1000).unwrap().expect("whole").worker(),
            None,
            "{worker}"
        );
    }
}
