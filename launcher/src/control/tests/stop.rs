//! Verbs against launchers that end in different ways. `stop` and `upgrade` look at a process, so
//! the launcher has to be one: this test binary, started again.

use std::{
    io::{self, BufRead as _, Write as _},
    process::{Command, Stdio},
};

use tokio::sync::mpsc;

use super::launcher::{directory, name, runtime, write_state};
use crate::{
    control::{
        client::{operate, stop, upgrade},
        protocol::{Request, Response},
        server::Server,
    },
    failure::Failure,
    sys::runtime::{Lock, RuntimeDir, State},
};

/// Which launcher [`launcher_process`] plays, and where.
const ROLE: &str = "REUSEPORT_LAUNCH_TEST_ROLE";
const DIRECTORY: &str = "REUSEPORT_LAUNCH_TEST_DIRECTORY";

#[test]
#[ignore = "started as a process of its own by other tests"]
fn launcher_process() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(DIRECTORY)) else {
        return;
    };
    let directory = RuntimeDir::locate(Some(path.as_ref())).unwrap();
    let web = name("web");
    let _lock = Lock::acquire(&directory, &web).unwrap();
    write_state(&directory, &web, std::process::id());
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let server = Server::bind(&directory.socket(&web), calls).unwrap();
        writeln!(io::stdout(), "\nlistening").unwrap();
        let call = requests.recv().await.unwrap();
        match role.as_str() {
            "clean" => call.reply.send(Response::Done).unwrap(),
            "hasty" => {
                <State>::remove(&directory, &web).unwrap();
                std::process::exit(0);
            }
            "killed" => rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            )
            .unwrap(),
            "refusing" => {
                let refusal = Failure::new("cannot stop", "no mood", "ask later");
                call.reply.send(refusal.into()).unwrap();
            }
            other => panic!("{other}"),
        }
        drop(requests);
        server.close().await;
    });
    <State>::remove(&directory, &web).unwrap();
}

/// Stops a launcher that plays `role`, and returns what came of it.
fn stop_process(directory: &RuntimeDir, role: &str) -> Result<(), Failure> {
    ask_process(directory, role, || {
        let result = stop(directory, None);
        if !result
            .as_ref()
            .is_err_and(|failure| failure.why == "no mood")
        {
            // The name is free at this very moment.
            drop(Lock::acquire(directory, &name("web")).unwrap());
        }
        result
    })
}

/// Returns what comes of `asking` a launcher that plays `role`, and ends.
fn ask_process(
    directory: &RuntimeDir,
    role: &str,
    asking: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut launcher = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "control::tests::stop::launcher_process",
            "--ignored",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = io::BufReader::new(launcher.stdout.take().unwrap());
    let mut line = String::new();
    while line.trim() != "listening" {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "it did not start");
    }
    let result = asking();
    io::copy(&mut output, &mut io::sink()).unwrap();
    launcher.wait().unwrap();
    result
}

#[test]
fn stop_returns_when_the_name_is_free() {
    let (_root, directory) = directory();
    for role in ["clean", "hasty", "clean", "hasty"] {
        stop_process(&directory, role).unwrap();
    }
}

#[test]
fn stop_says_that_the_launcher_was_killed_meanwhile() {
    let (_root, directory) = directory();
    let failure = stop_process(&directory, "killed").unwrap_err();
    assert_eq!(
        failure.why,
        "the launcher was killed before it had stopped them all"
    );
}

#[test]
fn stop_passes_a_refusal_on() {
    let (_root, directory) = directory();
    let failure = stop_process(&directory, "refusing").unwrap_err();
    assert_eq!(
        (failure.what.as_str(), failure.why.as_str()),
        ("cannot stop", "no mood")
    );
}

#[test]
fn whether_an_operation_was_done_is_not_known_when_the_launcher_ends() {
    let (_root, directory) = directory();
    let scale = Request::Scale { workers: 8 };
    let failure = ask_process(&directory, "killed", || operate(&directory, None, &scale));
    let failure = failure.unwrap_err();
    assert_eq!(failure.what, "cannot tell whether the scale of web is done");
    assert_eq!(failure.why, "the launcher ended before it had answered");
    let failure = ask_process(&directory, "killed", || upgrade(&directory, None));
    assert_eq!(failure.unwrap_err().why, "the launcher ended meanwhile");
}
