use std::{cell::Cell, fs};

use super::*;
use crate::bench::model::{Pace, Shape};

fn spec() -> LoadSpec {
    LoadSpec {
        address: ([127, 0, 0, 1], 1).into(),
        path: "/".to_owned(),
        shape: Shape::Connection,
        pace: Pace::Closed { connections: 1 },
        warmup: 0.0,
        seconds: 1.0,
        timeout: 1.0,
        cpus: Vec::new(),
        seed: 0,
    }
}

/// A generator that is a shell script.
fn scripted(script: &str) -> Generator {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Generator::spawn(command, &spec()).unwrap()
}

const RESULT: &str = r#"{"seconds":1.0,"sent":3,"answered":2,"errors":{"refused":1,"reset":0,
    "closed":0,"timeout":0,"bad":0,"other":0},"connections":2,"latency":"","by_worker":[],
    "cpu_seconds":0.1,"busiest_thread":0.2,"late_p99":0}"#;

#[test]
fn it_gets_its_load_and_tells_what_came_of_it() {
    let script = format!("read -r spec; echo \"$spec\" >&2; echo '{RESULT}'");
    let result = scripted(&script).wait(|| Ok(())).unwrap();
    assert_eq!((result.sent, result.errors.refused), (3, 1));

    // It gets what it is told, and nothing after it, and no end of it.
    let mut generator = scripted("read -r spec; echo \"$spec\" >&2; exec cat");
    let mut line = String::new();
    let stderr = generator.child.stderr.take().unwrap();
    io::BufRead::read_line(&mut io::BufReader::new(stderr), &mut line).unwrap();
    assert_eq!(serde_json::from_str::<LoadSpec>(&line).unwrap(), spec());
    assert!(generator.child.try_wait().unwrap().is_none());
}

#[test]
fn what_it_complains_about_is_told() {
    let failure = scripted("echo 'error: no sockets left' >&2; exit 1").wait(|| Ok(()));
    let failure = failure.unwrap_err();
    assert_eq!(
        (failure.what.as_str(), failure.why.as_str()),
        (WHAT, "no sockets left")
    );
    // And if it says nothing, or is something else.
    let failure = scripted("exit 1").wait(|| Ok(())).unwrap_err();
    assert!(failure.why.contains("EOF"), "{failure}");
    let failure = Generator::start(&spec()).unwrap().wait(|| Ok(()));
    assert_eq!(
        failure.unwrap_err().what,
        WHAT,
        "these tests are no generator"
    );
}

#[test]
fn it_goes_when_it_is_not_wanted_any_more() {
    let generator = scripted("exec sleep 1000");
    let pid = generator.child.id();
    let looks = Cell::new(0);
    let failure = generator.wait(|| {
        looks.set(looks.get() + 1);
        match looks.get() {
            ..3 => Ok(()),
            _ => Err(Failure::new("stopped", "Ctrl-C", "")),
        }
    });
    assert_eq!(failure.unwrap_err().what, "stopped");
    assert!(
        fs::metadata(format!("/proc/{pid}")).is_err(),
        "it is still there"
    );

    let generator = scripted("exec sleep 1000");
    let pid = generator.child.id();
    drop(generator);
    assert!(
        fs::metadata(format!("/proc/{pid}")).is_err(),
        "it is still there"
    );
}
