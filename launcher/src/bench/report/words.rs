//! What is said around the figures, the same on the terminal and on the page.

use super::{
    show,
    summary::{LevelSummary, ModeSummary, Summary},
};
use crate::bench::model::{Level, Report};

/// What was measured and how the figures are meant, in pieces to be joined.
pub(super) fn heading(report: &Report, summary: &Summary) -> Vec<String> {
    let mut pieces = vec![
        format!("work {}", show::clean(&report.work)),
        show::shape(report.shape),
    ];
    let modes = summary.levels.iter().flat_map(|level| &level.modes);
    match modes.map(|mode| mode.rounds).max() {
        None => {}
        Some(1) => pieces.push("1 round".to_owned()),
        Some(rounds) => {
            pieces.push(format!("median of {rounds} rounds"));
            pieces.push(format!(
                "ratios are to {}, round by round, with their 95 % interval",
                show::clean(&report.baseline)
            ));
        }
    }
    pieces
}

/// Under what load.
pub(super) fn title(report: &Report, level: &LevelSummary) -> String {
    let mut title = level.name();
    if let (Level::Percent(_), Some(offered)) = (level.level, level.offered) {
        title.push_str(&format!(" · {} requests/s offered", show::three(offered)));
    }
    if let (true, Some(how)) = (level.disturbed(), &report.disturb) {
        title.push_str(&format!(" · disturbed by {}", show::clean(how)));
    }
    title
}

/// What went wrong, a line for each mode where something did.
pub(super) fn errors(level: &LevelSummary) -> Vec<String> {
    let of = |mode: &ModeSummary| {
        let errors = show::errors(&mode.errors);
        let (mode, sent) = (show::clean(&mode.mode), show::whole(mode.sent));
        (!errors.is_empty()).then(|| format!("{mode}: {errors} of {sent} requests"))
    };
    level.modes.iter().filter_map(of).collect()
}

/// What the reader has to know besides: modes that failed, what limits the figures.
pub(super) fn remarks(report: &Report, summary: &Summary) -> Vec<String> {
    let mut remarks: Vec<String> = report
        .modes
        .iter()
        .filter_map(|mode| {
            let why = show::clean(mode.failed.as_ref()?);
            let how = match mode.measured.is_empty() {
                true => "not measured",
                false => "not to the end",
            };
            Some(format!("{}, {how}: {why}", show::clean(&mode.mode)))
        })
        .collect();
    let mut modes = summary.levels.iter().flat_map(|level| &level.modes);
    if modes.any(|mode| mode.generator_limited > 0) {
        remarks.push(
            "≥: the generator was the bottleneck in at least one round; the mode can do more"
                .to_owned(),
        );
    }
    remarks.extend(report.notes.iter().map(|note| show::clean(note)));
    remarks
}
