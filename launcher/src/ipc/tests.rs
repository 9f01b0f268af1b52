//! The channel against a worker that is a socket.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
};

use super::*;

fn pair() -> (Channel, UnixStream) {
    let (channel, theirs) = Channel::pair().expect("a pair");
    (channel, theirs.into())
}

fn say(worker: &mut UnixStream, text: &str) {
    worker.write_all(text.as_bytes()).expect("sent");
}

/// What a worker that reads at last finds, until `end`.
fn hear(worker: &mut UnixStream, channel: &mut Channel, end: &str) -> String {
    worker.set_nonblocking(true).expect("non-blocking");
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        channel.flush().expect("flushed");
        let mut chunk = [0; 65536];
        let length = worker.read(&mut chunk).expect("something");
        heard.extend_from_slice(&chunk[..length]);
    }
    assert!(!channel.wants_write());
    String::from_utf8(heard).expect("text")
}

fn broken(received: &Received) -> &str {
    match &received.closed {
        Some(Closed::Broken(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_arrive_in_order_and_nodes_own_are_left_out() {
    let (mut channel, mut worker) = pair();
    assert_eq!(channel.receive(), Received::default());
    say(
        &mut worker,
        "\"ready\"\n{\"cmd\":\"NODE_CLUSTER\",\"act\":\"online\"}\n",
    );
    say(&mut worker, "{\"cmd\":\"reload\"}\n null \n{\"half\":");
    let received = channel.receive();
    assert_eq!(
        received.messages,
        [
            Message::Ready,
            Message::Other(json!({"cmd": "reload"})),
            Message::Other(Value::Null),
        ]
    );
    assert!(!received.more && received.closed.is_none());
    say(&mut worker, "\"é\"}\n");
    assert_eq!(
        channel.receive().messages,
        [Message::Other(json!({"half": "é"}))]
    );
}

#[test]
fn the_end_is_told_once_after_what_was_said_before() {
    let (mut channel, mut worker) = pair();
    channel.send(&json!("never read")).expect("sent");
    say(&mut worker, "1\n{\"torn\":");
    // Unlike a drop, at once, even if another test is starting a child, which shares it for a moment.
    worker.shutdown(Shutdown::Both).expect("shut down");
    let received = channel.receive();
    assert_eq!(received.messages, [Message::Other(json!(1))]);
    assert_eq!(received.closed, Some(Closed::ByWorker));
    assert_eq!(channel.receive(), Received::default());
    let failure = channel.send(&json!(2)).expect_err("closed");
    assert_eq!(failure.why, "it has closed its IPC channel");
}

#[test]
fn a_worker_that_breaks_the_protocol_is_cut_off() {
    for (line, expected) in [
        ("GET / HTTP/1.1\r\n", "a line is no JSON: "),
        ("\n", "a line is no JSON: "),
        ("{\"a\":1} 2\n", "a line is no JSON: "),
    ] {
        let (mut channel, mut worker) = pair();
        say(&mut worker, &format!("true\n{line}false\n"));
        let received = channel.receive();
        assert_eq!(received.messages, [Message::Other(json!(true))]);
        assert!(broken(&received).starts_with(expected), "{received:?}");
        assert_eq!(channel.receive(), Received::default());
    }
    let (mut channel, mut worker) = pair();
    worker.write_all(b"\"\xff\"\n").expect("sent");
    assert!(broken(&channel.receive()).starts_with("a line is no JSON: "));
}

#[test]
fn a_line_may_have_one_mebibyte() {
    for (length, fits) in [(LIMIT, true), (LIMIT + 1, false)] {
        let (mut channel, mut worker) = pair();
        let writer = std::thread::spawn(move || {
            let text = "x".repeat(length - 2);
            // When cut off, it fails.
            let _ = worker.write_all(format!("\"{text}\"\n").as_bytes());
        });
        let mut messages = Vec::new();
        let end = loop {
            let mut received = channel.receive();
            messages.append(&mut received.messages);
            if let Some(closed) = received.closed {
                break closed;
            }
            std::thread::yield_now();
        };
        drop(channel);
        writer.join().expect("no panic");
        if fits {
            assert_eq!(end, Closed::ByWorker);
            assert!(
                matches!(&messages[..], [Message::Other(Value::String(text))] if text.len() == LIMIT - 2)
            );
        } else {
            assert_eq!(end, Closed::Broken("a line has more than 1 MiB".to_owned()));
            assert_eq!(messages, []);
        }
    }
}

#[test]
fn a_worker_that_says_much_leaves_others_their_turn() {
    let (mut channel, mut worker) = pair();
    worker.set_nonblocking(true).expect("non-blocking");
    // The buffer of a socket holds more than is read at once.
    let lines = "1\n".repeat(CHUNK / 2);
    let mut said = 0;
    while let Ok(length) = worker.write(lines.as_bytes()) {
        said += length / 2;
    }
    assert!(said > CHUNKS * CHUNK / 2, "{said}");
    let first = channel.receive();
    assert_eq!(first.messages.len(), CHUNKS * CHUNK / 2);
    assert!(first.more);
    let mut count = first.messages.len();
    while count < said {
        let received = channel.receive();
        assert!(!received.messages.is_empty());
        count += received.messages.len();
    }
    assert!(!channel.receive().more);
}

#[test]
fn messages_are_kept_for_a_worker_that_reads_late() {
    let (mut channel, mut worker) = pair();
    let long = json!("x".repeat(100_000));
    let mut sent = String::new();
    while !channel.wants_write() {
        channel.send(&long).expect("kept");
        sent += &format!("{long}\n");
    }
    let failure = loop {
        match channel.send(&long) {
            Ok(()) => sent += &format!("{long}\n"),
            Err(failure) => break failure,
        }
    };
    assert!(failure.why.starts_with("it does not read its messages"));
    // An upgrade of the launcher changes nothing.
    let socket = channel.as_fd().try_clone_to_owned().expect("a duplicate");
    let pending = serde_json::to_value(channel.pending()).expect("JSON");
    let pending = serde_json::from_value(pending);
    let mut channel = Channel::from_fd(socket, pending.expect("the same"));
    channel.send(&json!("last")).expect("kept");
    sent += "\"last\"\n";
    assert!(hear(&mut worker, &mut channel, "\"last\"\n") == sent);

    let failure = channel
        .send(&json!("x".repeat(LIMIT)))
        .expect_err("too long");
    assert_eq!(failure.why, "the message has more than 1 MiB");
    channel.send(&json!({"line": "a\nb"})).expect("sent");
    assert_eq!(
        hear(&mut worker, &mut channel, "}\n"),
        "{\"line\":\"a\\nb\"}\n"
    );
}

#[test]
fn a_handle_is_refused_so_that_node_goes_on() {
    let (mut channel, mut worker) = pair();
    say(
        &mut worker,
        "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":1}\n2\n",
    );
    assert_eq!(channel.receive().messages, [Message::Other(json!(2))]);
    let heard = hear(&mut worker, &mut channel, "\n");
    assert_eq!(heard, "{\"cmd\":\"NODE_HANDLE_NACK\"}\n");
}

#[test]
fn a_worker_that_takes_nothing_may_still_talk() {
    let (mut channel, mut worker) = pair();
    worker.shutdown(Shutdown::Read).expect("shut down");
    let failure = channel.send(&json!(1)).expect_err("refused");
    assert_eq!(failure.why, "it has closed its IPC channel");
    assert!(!channel.wants_write());
    say(&mut worker, "2\n");
    assert_eq!(channel.receive().messages, [Message::Other(json!(2))]);
}
