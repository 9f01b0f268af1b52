//! The words, literally.

use super::launcher::snapshot;
use crate::control::protocol::{Error, Request, Response};

#[test]
fn requests_are_short() {
    for (request, line) in [
        (Request::Status {}, r#"{"verb":"status"}"#),
        (Request::Stop {}, r#"{"verb":"stop"}"#),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(Request::parse(line.as_bytes()).unwrap(), request);
    }
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    for (line, why) in [
        ("", "not a line of JSON"),
        ("nonsense", "not a line of JSON"),
        ("{\"verb\":\"status\"} {}", "not a line of JSON"),
        ("[]", "no \"verb\" in it"),
        ("{\"verb\":1}", "no \"verb\" in it"),
        ("{\"verb\":\"dance\"}", "unknown verb \"dance\""),
        ("{\"verb\":\"stop\",\"slot\":1}", "unknown field"),
    ] {
        let failure = Request::parse(line.as_bytes()).unwrap_err();
        assert!(failure.why.contains(why), "{line}: {failure}");
        assert!(failure.hint.ends_with("knows status, stop"), "{failure}");
    }
    Request::parse(b"\xff\xfe").unwrap_err();
}

#[test]
fn every_verb_is_named() {
    for verb in Request::VERBS {
        Request::parse(format!("{{\"verb\":\"{verb}\"}}").as_bytes()).unwrap();
    }
}

#[test]
fn responses_round_trip() {
    let error = Error {
        what: "a".into(),
        why: "b".into(),
        hint: "c".into(),
    };
    for (response, start) in [
        (
            Response::Status(Box::new(snapshot("web"))),
            r#"{"ok":true,"status":{"name":"web","#,
        ),
        (Response::Done, r#"{"ok":true}"#),
        (
            Response::Failed(error),
            r#"{"ok":false,"error":{"what":"a","why":"b","hint":"c"}}"#,
        ),
    ] {
        let line = serde_json::to_string(&response).unwrap();
        assert!(line.starts_with(start), "{line}");
        assert_eq!(serde_json::from_str::<Response>(&line).unwrap(), response);
    }
}

#[test]
fn a_response_that_contradicts_itself_is_none() {
    for line in [
        r#"{"ok":false}"#,
        r#"{"ok":true,"error":{"what":"","why":"","hint":""}}"#,
        "{}",
        "1",
    ] {
        serde_json::from_str::<Response>(line).unwrap_err();
    }
}
