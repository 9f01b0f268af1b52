//! The end of a benchmark: its report, and how it is told that something went wrong.

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use super::{files::Target, plan::Files};
use crate::{
    bench::{
        model::{ModeResult, Report},
        report,
    },
    failure::{Exit, Failure},
};

/// The width of a report that no terminal shows.
const WIDTH: usize = 100;
/// The narrowest one.
const WIDTH_MIN: usize = 80;

/// Prints what was measured, and writes the files: all, or none after an interruption.
///
/// # Errors
/// When it was interrupted, the report can't be written, or the baseline or all modes failed.
pub(super) fn finish(
    mut report: Report,
    files: &Files,
    interrupted: bool,
) -> Result<Exit, Failure> {
    let anything = report.modes.iter().any(|mode| !mode.measured.is_empty());
    if interrupted {
        let note = "interrupted by a signal: these are the measurements until then";
        report.notes.insert(0, note.to_owned());
    }
    if anything {
        print(&report)?;
    }
    if interrupted {
        let named = [&files.json, &files.svg, &files.html];
        let hint = match named.into_iter().flatten().next() {
            None => "everything that was started has been stopped",
            Some(_) => "everything that was started has been stopped, and no file was written",
        };
        let failure = Failure::new("not measured to the end", "interrupted by a signal", hint);
        return Err(failure.exit(Exit::Interrupted));
    }
    if anything {
        write(&report, files)?;
    }
    judge(&report.modes, &report.baseline)
}

fn print(report: &Report) -> Result<(), Failure> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let width = match terminal.then(|| rustix::termios::tcgetwinsize(&stdout)) {
        Some(Ok(size)) if size.ws_col > 0 => usize::from(size.ws_col).max(WIDTH_MIN),
        _ => WIDTH,
    };
    let table = report::table(report, width, colour);
    let mut out = stdout.lock();
    let written = out.write_all(table.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| {
        let hint = "give it a standard output that can be written to, or --json FILE";
        Failure::new("cannot write the report to standard output", error, hint)
    })
}

fn write(report: &Report, files: &Files) -> Result<(), Failure> {
    let Files { json, svg, html } = files;
    let write = |target: &Option<Target>, text: &dyn Fn() -> Result<String, Failure>| match target {
        Some(target) => target.write(&text()?),
        None => Ok(()),
    };
    // What can't fail first.
    write(json, &|| Ok(report::json(report)))?;
    write(svg, &|| report::svg(report))?;
    write(html, &|| report::html(report))
}

/// Whether there is something to compare with. Why modes failed has been told before.
fn judge(modes: &[ModeResult], baseline: &str) -> Result<Exit, Failure> {
    const WHAT: &str = "nothing to compare with";
    if modes.iter().all(|mode| mode.failed.is_some()) {
        let why = "all modes failed, as told above";
        return Err(Failure::new(
            WHAT,
            why,
            "correct the cause, and measure again",
        ));
    }
    let failed = |mode: &ModeResult| mode.mode == baseline && mode.failed.is_some();
    if modes.iter().any(failed) {
        let why = format!("the baseline, {baseline}, failed, as told above");
        let hint = "correct the cause, or compare with another mode: --baseline MODE";
        return Err(Failure::new(WHAT, why, hint));
    }
    Ok(Exit::Clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(failed: &[(&str, Option<&str>)]) -> Vec<ModeResult> {
        let mode = |&(name, failed): &(&str, Option<&str>)| ModeResult {
            mode: name.to_owned(),
            workers: 1,
            measured: Vec::new(),
            failed: failed.map(str::to_owned),
        };
        failed.iter().map(mode).collect()
    }

    #[test]
    fn only_without_a_baseline_there_is_nothing_to_compare() {
        let one = modes(&[("single", None), ("reuseport-kernel", Some("no root"))]);
        assert_eq!(judge(&one, "single"), Ok(Exit::Clean));
        let failure = judge(&one, "reuseport-kernel").unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.why.contains("reuseport-kernel"), "{failure}");
        let all = modes(&[
            ("single", Some("no port")),
            ("reuseport-kernel", Some("no root")),
        ]);
        let failure = judge(&all, "single").unwrap_err();
        assert!(failure.why.starts_with("all modes failed"), "{failure}");
    }
}
