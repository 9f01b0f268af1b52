//! The workers' output through a real pump process: nothing torn, nothing lost, and no broken pipe
//! whoever is killed.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, PipeReader, Read as _, Write as _, pipe},
    iter,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    process::Command,
    thread,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use reuseport_launch::{
    output::{Output, Settings, Sockets, Wanted, logs},
    sys::runtime::RuntimeDir,
    worker::WorkerId,
};

/// An `Output` whose pump writes to pipes of the test: its stdout and stderr.
fn start() -> (Output, BufReader<PipeReader>, BufReader<PipeReader>) {
    start_at(Settings::default(), None)
}

fn start_at(
    settings: Settings,
    sockets: Option<Sockets>,
) -> (Output, BufReader<PipeReader>, BufReader<PipeReader>) {
    let (stdout, pump_stdout) = pipe().unwrap();
    let (stderr, pump_stderr) = pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_reuseport-launch"));
    command.stdout(pump_stdout).stderr(pump_stderr);
    let output = Output::start_with(command, settings, sockets).unwrap();
    (output, BufReader::new(stdout), BufReader::new(stderr))
}

fn worker(slot: u32) -> WorkerId {
    WorkerId {
        slot,
        generation: 1,
    }
}

fn open(output: &mut Output, slot: u32) -> (File, File) {
    let (stdout, stderr): (OwnedFd, OwnedFd) = output.open(worker(slot)).unwrap();
    (stdout.into(), stderr.into())
}

fn line(from: &mut BufReader<PipeReader>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

/// The tail of a worker that has one, however slow this machine is.
fn tail(output: &mut Output, slot: u32) -> Vec<String> {
    iter::repeat_with(|| output.tail(worker(slot)))
        .find(|lines| !lines.is_empty())
        .unwrap()
}

fn pump_pid(output: &Output) -> Pid {
    Pid::from_raw(output.pid().cast_signed())
}

fn kill_pump(output: &Output) {
    kill(pump_pid(output), Signal::SIGKILL).unwrap();
    let status = waitpid(pump_pid(output), None).unwrap();
    assert!(matches!(
        status,
        WaitStatus::Signaled(_, Signal::SIGKILL, _)
    ));
}

#[test]
fn lines_of_two_writers_are_whole_and_in_order() {
    const LINES: usize = 20_000;
    let (mut output, stdout, _stderr) = start();
    let writers = [0, 1].map(|slot| {
        let (mut stdout, _) = open(&mut output, slot);
        thread::spawn(move || {
            let text: String = (0..LINES)
                .map(|number| format!("{slot} {number} {}\n", "x".repeat(number % 200)))
                .collect();
            for chunk in text.as_bytes().chunks(37 + 4999 * slot as usize) {
                stdout.write_all(chunk).unwrap();
            }
        })
    });

    let mut next = [0; 2];
    for line in stdout.lines().take(2 * LINES) {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let slot: usize = words.next().unwrap().parse().unwrap();
        let number: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(number, next[slot]);
        assert_eq!(words.next(), Some("x".repeat(number % 200).as_str()));
        assert_eq!(words.next(), None);
        next[slot] += 1;
    }
    assert_eq!(next, [LINES; 2]);
    for writer in writers {
        writer.join().unwrap();
    }
    output.finish();
}

#[test]
fn the_two_streams_stay_apart_and_the_last_line_is_ended() {
    let (mut output, mut stdout, mut stderr) = start();
    let (mut out, mut err) = open(&mut output, 0);
    out.write_all(b"to stdout\nunfinished \xff").unwrap();
    err.write_all(b"to stderr\n").unwrap();
    drop((out, err));
    let pump = pump_pid(&output);
    output.finish();
    assert_eq!(waitpid(pump, None), Err(nix::Error::ECHILD), "not reaped");

    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"to stdout\nunfinished \xff\n");
    bytes.clear();
    stderr.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"to stderr\n");
}

#[test]
fn a_line_of_a_mebibyte_passes() {
    let (mut output, mut stdout, _stderr) = start();
    let (mut out, _) = open(&mut output, 0);
    let writer = thread::spawn(move || {
        out.write_all(&vec![b'x'; 1 << 20]).unwrap();
        out.write_all(b"\nnext\n").unwrap();
    });
    assert_eq!(line(&mut stdout).len(), (1 << 20) + 1);
    assert_eq!(line(&mut stdout), "next\n");
    writer.join().unwrap();
}

#[test]
fn signals_do_not_end_the_pump() {
    let (mut output, mut stdout, _stderr) = start();
    let (mut out, _) = open(&mut output, 0);
    out.write_all(b"before\n").unwrap();
    // Once a line has come through, the pump is past its first steps.
    assert_eq!(line(&mut stdout), "before\n");
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        kill(pump_pid(&output), signal).unwrap();
    }
    out.write_all(b"after\n").unwrap();
    assert_eq!(line(&mut stdout), "after\n");
}

#[test]
fn killing_the_pump_breaks_no_pipe() {
    let (mut output, mut stdout, mut stderr) = start();
    let (mut out, mut err) = open(&mut output, 0);
    out.write_all(b"before\n").unwrap();
    assert_eq!(line(&mut stdout), "before\n");
    kill_pump(&output);

    out.write_all(b"meanwhile\n").unwrap();
    let (mut newcomer, _) = open(&mut output, 1);
    newcomer.write_all(b"new\n").unwrap();
    assert!(output.tail(worker(0)).is_empty());
    // More than a pipe holds: this waits for the new pump.
    let writer = thread::spawn(move || {
        let text = "0123456789abcde\n".repeat(1 << 16);
        err.write_all(text.as_bytes())
    });
    output.restart().unwrap();

    let mut both = [line(&mut stdout), line(&mut stdout)];
    both.sort();
    assert_eq!(both, ["meanwhile\n", "new\n"]);
    for _ in 0..1 << 16 {
        assert_eq!(line(&mut stderr), "0123456789abcde\n");
    }
    writer.join().unwrap().unwrap();
    out.write_all(b"after\n").unwrap();
    assert_eq!(line(&mut stdout), "after\n");
}

#[test]
fn workers_write_on_after_the_launcher_and_the_terminal_are_gone() {
    let (mut output, stdout, stderr) = start();
    let (mut out, mut err) = open(&mut output, 0);
    let pump = pump_pid(&output);
    // As when the launcher is killed: nothing is said to the pump, all that was ours just closes.
    drop(output);
    drop((stdout, stderr));
    out.write_all(&vec![b'x'; 2 << 20]).unwrap();
    err.write_all(&b"a line of no interest\n".repeat(1 << 16))
        .unwrap();

    // The pump ends with the last pipe, not before.
    drop(out);
    err.write_all(b"still there\n").unwrap();
    drop(err);
    assert_eq!(waitpid(pump, None), Ok(WaitStatus::Exited(pump, 0)));
}

#[test]
fn lines_still_arrive_after_the_launcher_is_gone() {
    let (mut output, mut stdout, _stderr) = start();
    let (mut out, _) = open(&mut output, 0);
    drop(output);
    out.write_all(b"orphaned\n").unwrap();
    assert_eq!(line(&mut stdout), "orphaned\n");
}

#[test]
fn the_tail_holds_the_last_lines_of_stderr() {
    let (mut output, _stdout, stderr) = start();
    let reader = thread::spawn(move || stderr.lines().map_while(Result::ok).count());
    let (mut out, mut err) = open(&mut output, 0);
    out.write_all(b"not this\n").unwrap();
    let text: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    err.write_all(text.as_bytes()).unwrap();
    let expected = |end: u32| Vec::from_iter((end - 20..end).map(|n| format!("line {n}")));
    assert_eq!(tail(&mut output, 0), expected(3000));

    err.write_all(b"line 3000").unwrap();
    drop((out, err));
    assert_eq!(tail(&mut output, 0), expected(3001));
    output.close(worker(0));
    assert_eq!(tail(&mut output, 0), expected(3001));
    assert!(output.tail(worker(1)).is_empty());
    output.finish();
    assert_eq!(reader.join().unwrap(), 3001);
}

#[test]
fn a_reader_that_does_not_read_holds_up_no_call() {
    let (mut output, mut stdout, _stderr) = start();
    let (mut out, mut err) = open(&mut output, 0);
    // Two pipes of 64 KiB and 4 KiB between them: once the last byte is taken, the pump has read
    // more than it can write.
    const LINES: usize = (64 + 4 + 64) * 64;
    out.write_all(&b"0123456789abcde\n".repeat(LINES)).unwrap();
    err.write_all(b"reason\n").unwrap();
    // More messages than the socket holds.
    for slot in 1..300 {
        open(&mut output, slot);
    }
    assert!(output.tail(worker(0)).is_empty());

    for _ in 0..LINES {
        assert_eq!(line(&mut stdout), "0123456789abcde\n");
    }
    assert_eq!(tail(&mut output, 0), ["reason"]);
}

/// A socket for `logs`, in a directory of its own.
fn sockets(dir: &tempfile::TempDir) -> Sockets {
    Sockets {
        directory: RuntimeDir::locate(Some(dir.path())).unwrap(),
        name: "web".parse().unwrap(),
    }
}

const LAST: Wanted = Wanted {
    slot: None,
    lines: 10,
    follow: false,
    json: false,
};

#[test]
fn logs_are_known_until_the_end_of_the_pump() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = sockets(&dir);
    let settings = Settings {
        lines: 10,
        ..Settings::default()
    };
    let (mut output, mut stdout, _stderr) = start_at(settings, Some(sockets.clone()));
    let (mut out, err) = open(&mut output, 0);
    // Without their times.
    let shown = || {
        let mut text = Vec::new();
        logs(&sockets, LAST, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines = text.lines().map(|line| line.split_once(' ').unwrap().1);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shown(), Vec::<String>::new());
    out.write_all(b"one\ntwo\nunfinished").unwrap();
    assert_eq!(line(&mut stdout) + &line(&mut stdout), "one\ntwo\n");
    assert_eq!(shown(), ["0 │ one", "0 │ two"]);

    kill_pump(&output);
    output.restart().unwrap();
    out.write_all(b"three\n").unwrap();
    assert_eq!(line(&mut stdout), "three\n");
    assert_eq!(shown(), ["0 │ three"]);

    drop((out, err));
    output.finish();
    let error = logs(&sockets, LAST, &mut Vec::new()).unwrap_err();
    assert_eq!(error.why, "no workers of that name write any");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn logs_do_not_wait_for_ever_for_a_pump_that_waits_for_its_reader() {
    let dir = tempfile::tempdir().unwrap();
    let sockets = sockets(&dir);
    let (mut output, stdout, _stderr) = start_at(Settings::default(), Some(sockets.clone()));
    let (mut out, _) = open(&mut output, 0);
    // More than the pump's own pipe holds: it has begun to wait when the last byte is taken.
    out.write_all(&b"0123456789abcde\n".repeat((64 + 4 + 64) * 64))
        .unwrap();
    let error = logs(&sockets, LAST, &mut Vec::new()).unwrap_err();
    assert!(error.why.ends_with("does not answer"), "{error}");
    drop(stdout);
}

#[test]
fn the_worker_ends_block_and_can_be_opened_anew_by_any_user() {
    let (mut output, mut stdout, _stderr) = start();
    let (out, _) = open(&mut output, 0);
    assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o622);
    let flags = rustix::fs::fcntl_getfl(out.as_fd()).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    let flags = rustix::io::fcntl_getfd(out.as_fd()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));

    // What nginx does with `access_log /dev/stdout`.
    let status = Command::new("sh")
        .args(["-c", "echo anew > /dev/stdout"])
        .stdout(out)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(line(&mut stdout), "anew\n");
}

#[test]
fn a_pump_that_can_not_be_started_is_an_error() {
    let error =
        Output::start_with(Command::new("/nonexistent"), Settings::default(), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
