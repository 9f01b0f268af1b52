//! The words, literally.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;

use super::launcher::snapshot;
use crate::control::protocol::{Change, Changes, Error, Request, Response};

/// One request of each kind, and more where there is a choice.
fn requests() -> Vec<(Request, &'static str)> {
    vec![
        (Request::Status {}, r#"{"verb":"status"}"#),
        (Request::Stop {}, r#"{"verb":"stop"}"#),
        (
            Request::reload(None),
            r#"{"verb":"reload","drain_timeout_ms":null}"#,
        ),
        (
            Request::reload(Some(Some(Duration::from_secs(5)))),
            r#"{"verb":"reload","drain_timeout_ms":5000}"#,
        ),
        (
            Request::reload(Some(None)),
            r#"{"verb":"reload","drain_timeout_ms":"infinite"}"#,
        ),
        (
            Request::Scale { workers: 8 },
            r#"{"verb":"scale","workers":8}"#,
        ),
        (
            Request::Restart { slot: 0 },
            r#"{"verb":"restart","slot":0}"#,
        ),
        (Request::Drain { slot: 1 }, r#"{"verb":"drain","slot":1}"#),
        (
            Request::Undrain { slot: 1 },
            r#"{"verb":"undrain","slot":1}"#,
        ),
        (
            Request::Hint {
                slot: 1,
                generation: None,
                value: 7,
            },
            r#"{"verb":"hint","slot":1,"generation":null,"value":7}"#,
        ),
        (
            Request::Hint {
                slot: 0,
                generation: Some(3),
                value: u64::MAX,
            },
            r#"{"verb":"hint","slot":0,"generation":3,"value":18446744073709551615}"#,
        ),
        (
            Request::Weight { slot: 1, weight: 3 },
            r#"{"verb":"weight","slot":1,"weight":3}"#,
        ),
        (
            Request::Steer {
                policy: "source:24/56".to_owned(),
                udp: false,
            },
            r#"{"verb":"steer","policy":"source:24/56","udp":false}"#,
        ),
        (Request::Upgrade {}, r#"{"verb":"upgrade"}"#),
        (
            Request::Send {
                slot: None,
                message: json!({"do": [1, "this"]}),
            },
            r#"{"verb":"send","slot":null,"message":{"do":[1,"this"]}}"#,
        ),
        (
            Request::Send {
                slot: Some(2),
                message: json!(null),
            },
            r#"{"verb":"send","slot":2,"message":null}"#,
        ),
    ]
}

#[test]
fn requests_are_short() {
    for (request, line) in requests() {
        assert_eq!(serde_json::to_string(&request).unwrap(), line);
        assert_eq!(Request::parse(line.as_bytes()).unwrap(), request);
    }
    // What may be left out.
    let reload = Request::parse(br#"{"verb":"reload"}"#).unwrap();
    assert_eq!(reload, Request::reload(None));
    let steer = Request::parse(br#"{"verb":"steer","policy":"hash"}"#).unwrap();
    let (policy, udp) = ("hash".to_owned(), false);
    assert_eq!(steer, Request::Steer { policy, udp });
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
        ("{\"verb\":\"scale\"}", "missing field `workers`"),
        ("{\"verb\":\"scale\",\"workers\":-1}", "invalid value"),
        ("{\"verb\":\"drain\",\"slot\":4294967296}", "invalid value"),
        (
            "{\"verb\":\"reload\",\"drain_timeout_ms\":\"5s\"}",
            "milliseconds or",
        ),
        ("{\"verb\":\"send\",\"message\":1}", "missing field `slot`"),
        (
            "{\"verb\":\"send\",\"slot\":null}",
            "missing field `message`",
        ),
    ] {
        let failure = Request::parse(line.as_bytes()).unwrap_err();
        assert!(failure.why.contains(why), "{line}: {failure}");
        assert!(
            failure.hint.ends_with(&Request::VERBS.join(", ")),
            "{failure}"
        );
    }
    Request::parse(b"\xff\xfe").unwrap_err();
}

#[test]
fn every_verb_is_named() {
    let verbs: BTreeSet<&str> = requests().iter().map(|(it, _)| it.verb()).collect();
    assert_eq!(verbs, Request::VERBS.iter().copied().collect());
    for (request, line) in requests() {
        let verb = format!("{{\"verb\":\"{}\"", request.verb());
        assert!(line.starts_with(&verb), "{line}");
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
            Response::Changed(Changes {
                applied: vec![Change {
                    key: "workers".into(),
                    from: None,
                    to: Some("4".into()),
                }],
                needs_restart: Vec::new(),
            }),
            r#"{"ok":true,"changes":{"applied":[{"key":"workers","from":null,"to":"4"}],"needs_restart":[]}}"#,
        ),
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
