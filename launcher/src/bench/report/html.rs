//! The report as one page that needs nothing else: the picture, the tables, and all that was measured as
//! JSON. No script runs in it.

use super::{
    columns::{Align, Column, Group, Ink, groups, names},
    json::json,
    show,
    summary::{LevelSummary, Summary},
    svg::svg,
    words,
};
use crate::{bench::model::Report, failure::Failure};

/// The id of the element that holds the JSON.
const DATA: &str = "report";

/// The groups of columns in the second table of each load.
const BELOW: usize = 4;

/// The page.
///
/// # Errors
///
/// What can't be drawn.
pub(crate) fn html(report: &Report) -> Result<String, Failure> {
    let summary = Summary::of(report);
    let title = format!("reuseport-launch bench: {}", show::clean(&report.work));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n",
        escaped(&title)
    );
    page.push_str("<h1>reuseport-launch bench</h1>\n");
    page.push_str(&element("p", &words::heading(report, &summary).join(" · ")));
    page.push_str(&format!("<figure>\n{}</figure>\n", svg(report)?));
    for level in &summary.levels {
        page.push_str(&section(report, level));
    }
    let remarks = words::remarks(report, &summary);
    if !remarks.is_empty() {
        page.push_str("<h2>To be kept in mind</h2>\n<ul>\n");
        for remark in remarks {
            page.push_str(&element("li", &remark));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("<h2>Machine and command</h2>\n");
    page.push_str(&element("p", &show::host(report).join(" · ")));
    let began = format!(
        "Begun {}, reuseport-launch {}.",
        show::clean(&report.started),
        show::clean(&report.program)
    );
    page.push_str(&element("p", &began));
    let command: Vec<String> = report.command.iter().map(|it| show::quoted(it)).collect();
    page.push_str(&format!("<pre>{}</pre>\n", escaped(&command.join(" "))));
    page.push_str(&format!(
        "<p>All that was measured is in this page as JSON, in the element <code>{DATA}</code>.</p>\n\
         <script type=\"application/json\" id=\"{DATA}\">\n{}</script>\n</main>\n</body>\n</html>\n",
        inert(&json(report))
    ));
    Ok(page)
}

fn section(report: &Report, level: &LevelSummary) -> String {
    let mut section = element("h2", &words::title(report, level));
    let mut fast = groups(report, level);
    let at_what_price = fast.split_off(fast.len().saturating_sub(BELOW));
    section.push_str(&table(&names(level), &fast));
    section.push_str(&table(&names(level), &at_what_price));
    let errors = words::errors(level);
    if !errors.is_empty() {
        section.push_str("<h3>Errors</h3>\n<ul>\n");
        for error in errors {
            section.push_str(&element("li", &error));
        }
        section.push_str("</ul>\n");
    }
    section
}

fn table(names: &Column, groups: &[Group]) -> String {
    let mut table = "<div class=\"wide\"><table>\n<thead>\n<tr><td></td>".to_owned();
    for group in groups {
        table.push_str(&format!(
            "<th colspan=\"{}\" scope=\"colgroup\">{}</th>",
            group.columns.len(),
            escaped(&group.title)
        ));
    }
    table.push_str(&format!(
        "</tr>\n<tr><th scope=\"col\">{}</th>",
        escaped(&names.title)
    ));
    let each = || {
        groups.iter().flat_map(|group| {
            group
                .columns
                .iter()
                .enumerate()
                .map(|(index, column)| (index == 0, column))
        })
    };
    for (first, column) in each() {
        let class = class(column, Ink::Plain, first);
        table.push_str(&format!(
            "<th scope=\"col\"{class}>{}</th>",
            escaped(&column.title)
        ));
    }
    table.push_str("</tr>\n</thead>\n<tbody>\n");
    for (row, name) in names.cells.iter().enumerate() {
        table.push_str(&format!("<tr><th scope=\"row\">{}</th>", escaped(name)));
        for (first, column) in each() {
            let ink = column.inks.get(row).copied().unwrap_or(Ink::Plain);
            let cell = column.cells.get(row).map_or("", String::as_str);
            let class = class(column, ink, first);
            table.push_str(&format!("<td{class}>{}</td>", escaped(cell)));
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody>\n</table></div>\n");
    table
}

fn class(column: &Column, ink: Ink, first: bool) -> String {
    let classes = [
        (column.align == Align::Right).then_some("number"),
        first.then_some("first"),
        match ink {
            Ink::Plain | Ink::Strong => None,
            Ink::Faint => Some("faint"),
            Ink::Good => Some("good"),
            Ink::Bad => Some("bad"),
        },
    ];
    let classes: Vec<&str> = classes.into_iter().flatten().collect();
    if classes.is_empty() {
        return String::new();
    }
    format!(" class=\"{}\"", classes.join(" "))
}

fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>\n", escaped(text))
}

/// Text as HTML and XML take it, in attributes too.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON that can't end the element that it is in. These stand in strings only, where JSON has another
/// way to write them.
fn inert(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

const CSS: &str = ":root { color-scheme: light dark; --text: #24292f; --back: #ffffff; --faint: #656d76; \
--line: #d0d7de; --good: #116b3c; --bad: #b3261e; --code: #f3f4f6 }
@media (prefers-color-scheme: dark) {
  :root { --text: #d8dce2; --back: #16181d; --faint: #9198a1; --line: #363b44; --good: #4fc184; \
--bad: #ff8a80; --code: #20242b }
}
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 1000px; margin: 0 auto; padding: 24px 16px 64px }
h1 { font-size: 24px; margin: 0 }
h2 { font-size: 18px; margin: 40px 0 8px }
h2::first-letter { text-transform: uppercase }
h3 { font-size: 15px; margin: 12px 0 0 }
ul { margin: 4px 0; padding-left: 20px }
li { overflow-wrap: anywhere }
figure { margin: 16px 0; overflow-x: auto }
figure svg { min-width: 760px }
.wide { overflow-x: auto; margin-bottom: 12px }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap }
td, th { padding: 3px 6px; text-align: left; font-weight: normal }
thead th { color: var(--faint); font-size: 11px }
thead tr:first-child th { padding-left: 20px; font-size: 12px }
tbody tr { border-top: 1px solid var(--line) }
.number { text-align: right }
.first { padding-left: 20px }
.faint { color: var(--faint) }
.good { color: var(--good) }
.bad { color: var(--bad) }
pre, code { background: var(--code); font: 13px/1.5 ui-monospace, monospace }
pre { padding: 12px; white-space: pre-wrap; overflow-wrap: anywhere }
";

#[cfg(test)]
mod tests;
