//! The report on a terminal: a block for each load, in lines that fit.

mod command;
mod layout;

use self::{
    command::command,
    layout::{Paint, lay_out, wrap},
};
use super::{
    columns::{Ink, groups, names},
    show,
    summary::{LevelSummary, Summary},
    words,
};
use crate::bench::model::Report;

/// The report in lines of at most `width` columns; at least 60 are needed.
pub(crate) fn table(report: &Report, width: usize, colour: bool) -> String {
    let paint = Paint(colour);
    let summary = Summary::of(report);
    let mut lines = wrap(&words::heading(report, &summary).join(" · "), width, "", "");
    for level in &summary.levels {
        lines.push(String::new());
        lines.extend(block(report, level, width, paint));
    }
    let remarks = words::remarks(report, &summary);
    if !remarks.is_empty() {
        lines.push(String::new());
    }
    for remark in remarks {
        lines.extend(wrap(&remark, width, "· ", "  "));
    }
    lines.push(String::new());
    lines.extend(wrap(&show::host(report).join(" · "), width, "", ""));
    lines.push(String::new());
    lines.extend(command(&report.command, width));
    lines.join("\n") + "\n"
}

/// One load: tables side by side or one below the other, then what went wrong.
fn block(report: &Report, level: &LevelSummary, width: usize, paint: Paint) -> Vec<String> {
    let mut lines: Vec<String> = wrap(&words::title(report, level), width, "", "  ")
        .iter()
        .map(|line| paint.ink(Ink::Strong, line))
        .collect();
    lines.extend(lay_out(&names(level), groups(report, level), width, paint));
    for error in words::errors(level) {
        lines.extend(wrap(&error, width, "errors   ", "         "));
    }
    lines
}

#[cfg(test)]
mod tests;
