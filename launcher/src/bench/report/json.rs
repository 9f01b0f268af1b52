//! The report as JSON: all that was measured, and what it comes to. `docs/BENCH-JSON.md` has every field.

use serde::Serialize;

use super::summary::Summary;
use crate::bench::model::Report;

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    summary: Summary,
}

/// One JSON object, on several lines. A [`Report`] can be read from it again.
pub(crate) fn json(report: &Report) -> String {
    let document = Document {
        report,
        summary: Summary::of(report),
    };
    // Strings, numbers and lists of them can always be written.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests;
