//! What a child says on its standard error: read by a thread, so that the child never waits for us, and
//! the last lines kept, for messages.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _},
    process::ChildStderr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::failure::Failure;

/// Lines that are kept.
const LINES: usize = 20;

/// Bytes that are kept of a line.
const LINE_BYTES: u64 = 1024;

/// How often it is looked whether waiting was called off.
const LOOK: Duration = Duration::from_millis(50);

/// What only the startup line has of all that a launcher says.
const STARTUP_LINE: &str = " · steer ";

/// What a child says.
#[derive(Debug)]
pub(super) struct Words(Arc<Heard>);

#[derive(Debug, Default)]
struct Heard {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Said {
    /// The last lines.
    lines: VecDeque<String>,
    /// Whether the startup line was among all lines.
    up: bool,
    /// There will be no more.
    ended: bool,
}

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It has come.
    Come,
    /// It will not come: nothing more will.
    Ended,
    /// It takes too long.
    TooLong,
    /// Somebody has called the waiting off.
    CalledOff,
}

impl Words {
    /// Reads from now on, until the end.
    pub(super) fn of(stderr: ChildStderr) -> Self {
        let heard = Arc::new(Heard::default());
        let hears = Arc::clone(&heard);
        thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            // A line that is longer comes in parts.
            while (&mut stderr)
                .take(LINE_BYTES)
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                hears.hear(&String::from_utf8_lossy(&line));
                line.clear();
            }
            hears.said().ended = true;
            hears.changed.notify_all();
        });
        Self(heard)
    }

    /// Waits for a launcher's startup line.
    pub(super) fn wait_until_up(&self, patience: Duration, off: &dyn Fn() -> bool) -> Waited {
        self.wait(patience, off, |said| said.up)
    }

    /// Waits for the last line of all, and returns whether it has come in time.
    pub(super) fn ended_within(&self, patience: Duration) -> bool {
        self.wait(patience, &|| false, |said| said.ended) == Waited::Come
    }

    fn wait(
        &self,
        patience: Duration,
        off: &dyn Fn() -> bool,
        come: impl Fn(&Said) -> bool,
    ) -> Waited {
        let deadline = Instant::now() + patience;
        let mut said = self.0.said();
        loop {
            if come(&said) {
                return Waited::Come;
            }
            if said.ended {
                return Waited::Ended;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TooLong;
            }
            if off() {
                return Waited::CalledOff;
            }
            let waited = self.0.changed.wait_timeout(said, left.min(LOOK));
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last lines, indented; empty when there are none.
    pub(super) fn last(&self) -> String {
        let said = self.0.said();
        said.lines
            .iter()
            .map(|line| format!("\n    {line}"))
            .collect()
    }

    /// The last error in three parts that was said, as `error: WHAT: WHY`, then `→ HINT`.
    pub(super) fn failure(&self) -> Option<Failure> {
        let lines: Vec<String> = self.0.said().lines.iter().cloned().collect();
        parse(&lines)
    }
}

impl Heard {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: &str) {
        let mut said = self.said();
        said.up |= line.contains(STARTUP_LINE);
        if said.lines.len() == LINES {
            said.lines.pop_front();
        }
        said.lines.push_back(line.trim_end().to_owned());
        self.changed.notify_all();
    }
}

fn parse(lines: &[String]) -> Option<Failure> {
    let start = lines.iter().rposition(|line| line.starts_with("error: "))?;
    let hint = lines[start..]
        .iter()
        .position(|line| line.trim_start().starts_with("→ "))?;
    let text = lines[start..start + hint].join("\n");
    let (what, why) = text.strip_prefix("error: ")?.split_once(": ")?;
    let hint = lines[start + hint..].join("\n");
    let hint = hint.trim_start().strip_prefix("→ ")?;
    Some(Failure::new(what, why, hint))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn speaker(script: &str) -> (Child, Words) {
        let mut child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let words = Words::of(child.stderr.take().expect("piped"));
        (child, words)
    }

    #[test]
    fn an_error_is_taken_apart_and_put_together_again() {
        let failure = Failure::new("cannot do it", "the reason: a\nb", "try again");
        let said = format!("before\nerror: old: x\n  → y\nerror: {failure}");
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        assert_eq!(parse(&lines), Some(failure));
        assert_eq!(parse(&lines[..1]), None);
        assert_eq!(parse(&["error: alone: without a hint".to_owned()]), None);
    }

    #[test]
    fn the_startup_line_is_noticed_and_the_last_lines_are_kept() {
        let script = "i=0; while [ $i -lt 50 ]; do echo $i >&2; i=$((i+1)); done
            echo '2 workers · steer x' >&2; read _; echo over >&2";
        let (mut child, words) = speaker(script);
        let long = Duration::from_secs(30);
        assert_eq!(words.wait_until_up(long, &|| false), Waited::Come);
        drop(child.stdin.take());
        assert!(words.ended_within(long));
        let last = words.last();
        assert!(
            last.ends_with("\n    2 workers · steer x\n    over"),
            "{last}"
        );
        assert_eq!(last.lines().count(), LINES + 1);
        child.wait().expect("ended");
    }

    #[test]
    fn waiting_ends_with_the_child_when_it_is_called_off_and_at_last() {
        let (mut child, words) = speaker("read _");
        let long = Duration::from_secs(30);
        assert_eq!(words.wait_until_up(long, &|| true), Waited::CalledOff);
        let waited = words.wait_until_up(Duration::ZERO, &|| false);
        assert_eq!(waited, Waited::TooLong);
        drop(child.stdin.take());
        assert_eq!(words.wait_until_up(long, &|| false), Waited::Ended);
        child.wait().expect("ended");
    }
}
