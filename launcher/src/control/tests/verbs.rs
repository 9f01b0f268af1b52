//! The asking side.

use std::{io, time::Duration};

use tokio::{sync::mpsc, task::spawn_blocking};

use super::launcher::{
    Launcher, directory, leave_stale_socket, name, runtime, snapshot, write_state,
};
use crate::{
    control::{
        client::{call, ls, operate, status, stop, upgrade},
        connection::unreachable,
        protocol::{REQUEST_MAX, Request, Response},
        server::{Call, Server},
    },
    failure::Failure,
    observe::Snapshot,
    sys::runtime::{Name, RuntimeDir},
};

fn status_json(directory: &RuntimeDir, name: Option<&Name>) -> Result<Snapshot, Failure> {
    let mut out = Vec::new();
    status(directory, name, true, usize::MAX, &mut out)?;
    Ok(serde_json::from_slice(&out).unwrap())
}

/// Runs blocking `asking` beside launchers called `names`.
fn beside(directory: &RuntimeDir, names: &[&str], asking: impl FnOnce() + Send + 'static) {
    runtime().block_on(async {
        let launchers: Vec<Launcher> = names
            .iter()
            .map(|text| Launcher::start(directory, &name(text)))
            .collect();
        spawn_blocking(asking).await.unwrap();
        drop(launchers);
    });
}

#[test]
fn the_only_launcher_needs_no_name() {
    let (_root, directory) = directory();
    leave_stale_socket(&directory, &name("stale"));
    let dir = directory.clone();
    beside(&directory, &["web"], move || {
        assert_eq!(status_json(&dir, None).unwrap(), snapshot("web"));
        assert_eq!(
            status_json(&dir, Some(&name("web"))).unwrap(),
            snapshot("web")
        );
        let mut out = Vec::new();
        status(&dir, None, false, 80, &mut out).unwrap();
        assert!(
            String::from_utf8(out)
                .unwrap()
                .starts_with("web · 0 of 0 ready · pid ")
        );
    });
}

#[test]
fn one_of_several_must_be_named() {
    let (_root, directory) = directory();
    let dir = directory.clone();
    beside(&directory, &["web", "api", "db"], move || {
        let failure = status_json(&dir, None).unwrap_err();
        assert_eq!(failure.why, "several run: api, db, web");
        assert_eq!(stop(&dir, None).unwrap_err(), failure);
        assert_eq!(status_json(&dir, Some(&name("db"))).unwrap().name, "db");
        let failure = status_json(&dir, Some(&name("cache"))).unwrap_err();
        assert_eq!(failure.what, "cannot reach the launcher cache");
        assert_eq!(failure.why, "no launcher named cache runs");
        assert_eq!(failure.hint, "these run: api, db, web");
    });
}

#[test]
fn the_list_leaves_out_the_dead() {
    let (_root, directory) = directory();
    leave_stale_socket(&directory, &name("stale"));
    let dir = directory.clone();
    beside(&directory, &["web", "api"], move || {
        let mut out = Vec::new();
        ls(&dir, true, 80, &mut out).unwrap();
        let listed: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let names: Vec<&str> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["api", "web"]);
        assert_eq!(listed[0]["status"]["version"], "0.1.0");
        let mut out = Vec::new();
        ls(&dir, false, 80, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3);
    });
}

#[test]
fn nothing_runs() {
    let (root, directory) = directory();
    let missing = RuntimeDir::locate(Some(&root.path().join("missing"))).unwrap();
    for directory in [directory, missing] {
        assert_eq!(
            status_json(&directory, None).unwrap_err().why,
            "no launcher runs"
        );
        let failure = stop(&directory, Some(&name("web"))).unwrap_err();
        assert_eq!(failure.why, "no launcher named web runs");
        assert!(failure.hint.starts_with("none runs in /"), "{failure}");
        let mut out = Vec::new();
        ls(&directory, true, 80, &mut out).unwrap();
        assert_eq!(out, b"[]\n");
    }
}

#[test]
fn a_launcher_that_was_killed_is_said_to_be() {
    let (_root, directory) = directory();
    let web = name("web");
    leave_stale_socket(&directory, &web);
    // One more than the largest pid that Linux gives to a process.
    write_state(&directory, &web, 4_194_305);
    let failure = status_json(&directory, Some(&web)).unwrap_err();
    assert_eq!(
        failure.why,
        "it was killed (pid 4194305); its workers may still run"
    );
    // This one is about to open its socket.
    write_state(&directory, &web, std::process::id());
    let failure = status_json(&directory, Some(&web)).unwrap_err();
    assert_eq!(failure.why, "no launcher named web runs");
}

#[test]
fn where_no_socket_can_be_no_launcher_runs() {
    let (root, _directory) = directory();
    let deep = RuntimeDir::locate(Some(&root.path().join("x".repeat(108)))).unwrap();
    deep.prepare().unwrap();
    let failure = stop(&deep, Some(&name("web"))).unwrap_err();
    assert_eq!(failure.why, "no launcher named web runs");
}

#[test]
fn permission_denied_is_said() {
    let (_root, directory) = directory();
    let failure = unreachable(
        &directory,
        &name("web"),
        &io::ErrorKind::PermissionDenied.into(),
    );
    assert!(
        failure.why.starts_with("permission denied on /"),
        "{failure}"
    );
    assert!(failure.hint.contains("root"), "{failure}");
}

#[test]
fn a_launcher_that_does_not_answer_is_given_up() {
    let (_root, directory) = directory();
    let web = name("web");
    runtime().block_on(async {
        let (calls, _requests) = mpsc::channel(1);
        let _server = Server::bind(&directory.socket(&web), calls).unwrap();
        let dir = directory.clone();
        let failure = spawn_blocking(move || {
            call(
                &dir,
                &web,
                &Request::Status {},
                Some(Duration::from_millis(20)),
            )
            .unwrap_err()
        })
        .await
        .unwrap();
        assert_eq!(failure.why, "it does not answer");
    });
}

#[test]
fn a_launcher_that_ends_instead_is_said_to() {
    let (_root, directory) = directory();
    let listener = std::os::unix::net::UnixListener::bind(directory.socket(&name("web"))).unwrap();
    let ending = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let failure = call(&directory, &name("web"), &Request::Status {}, None).unwrap_err();
    assert_eq!(failure.why, "it ended before it had answered");
    ending.join().unwrap();
}

#[test]
fn whoever_stops_reading_is_no_failure() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_root, directory) = directory();
    ls(&directory, false, 80, &mut Closed).unwrap();
}

#[test]
fn operations_are_passed_on_and_so_are_refusals() {
    let (_root, directory) = directory();
    let web = name("web");
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let _server = Server::bind(&directory.socket(&web), calls).unwrap();
        let refusal = Failure::new("cannot restart slot 9", "there are 4", "name another");
        for answer in [Response::Done, refusal.clone().into()] {
            let dir = directory.clone();
            let asking = spawn_blocking(move || operate(&dir, None, &Request::Restart { slot: 9 }));
            let Call { request, reply } = requests.recv().await.unwrap();
            assert_eq!(request, Request::Restart { slot: 9 });
            let expected = match answer {
                Response::Done => Ok(()),
                _ => Err(refusal.clone()),
            };
            reply.send(answer).unwrap();
            assert_eq!(asking.await.unwrap(), expected);
        }
    });
}

#[test]
fn a_message_that_is_too_long_is_not_sent() {
    let (_root, directory) = directory();
    let dir = directory.clone();
    beside(&directory, &["web"], move || {
        let send = |length| {
            let message = "x".repeat(length).into();
            operate(
                &dir,
                None,
                &Request::Send {
                    slot: None,
                    message,
                },
            )
        };
        let around = serde_json::to_string(&Request::Send {
            slot: None,
            message: "".into(),
        });
        // And the newline.
        let room = REQUEST_MAX - around.unwrap().len() - 1;
        send(room).unwrap();
        let failure = send(room + 1).unwrap_err();
        assert_eq!(failure.why, "the request is longer than 65536 bytes");
        assert_eq!(failure.hint, "send a shorter message");
    });
}

#[test]
fn an_upgrade_is_done_when_the_next_binary_answers() {
    let (_root, directory) = directory();
    let web = name("web");
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let server = Server::bind(&directory.socket(&web), calls).unwrap();
        let dir = directory.clone();
        let asking = spawn_blocking(move || upgrade(&dir, None));
        let call = requests.recv().await.unwrap();
        assert_eq!(call.request, Request::Upgrade {});
        // This process is the launcher's, before and after.
        drop((call, requests));
        server.close().await;
        assert!(!asking.is_finished());
        let _next = Launcher::start(&directory, &web);
        asking.await.unwrap().unwrap();
    });
}
