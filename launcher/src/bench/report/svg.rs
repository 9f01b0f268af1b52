//! The report as a picture: bars of throughput, and for each load how the latencies are distributed.
//!
//! Colours are of middle brightness and there is no background, so that any viewer shows it on light
//! and on dark. Those that know CSS get a background and stronger text, as the reader prefers.

mod bars;
mod canvas;
mod curves;
mod palette;

use self::{
    bars::{Bar, bars},
    canvas::{Anchor, Canvas},
    curves::{Curve, curves},
    palette::{Style, style},
};
use super::{
    show,
    summary::{LevelSummary, ModeSummary, Summary, measured, merged, unit},
};
use crate::{
    bench::model::{Level, Report},
    failure::Failure,
};

/// All lengths are in CSS pixels.
const WIDTH: i32 = 1000;
const HEADER: i32 = 66;
const FOOTER: i32 = 50;

/// A part of the picture.
enum Panel {
    Bars(String, Vec<Bar>),
    Curves(String, Vec<Curve>),
}

/// A picture of the report, an SVG document.
///
/// # Errors
///
/// What can't be drawn.
pub(crate) fn svg(report: &Report) -> Result<String, Failure> {
    let summary = Summary::of(report);
    let panels = panels(report, &summary);
    let height = HEADER + FOOTER + panels.iter().map(Panel::height).sum::<i32>();
    let canvas = Canvas::new(WIDTH, height);
    let title = format!("reuseport-launch bench: {}", show::clean(&report.work));
    let subtitle = format!(
        "{} · whiskers and brackets: 95 % intervals · ratios to {}",
        show::shape(report.shape),
        show::clean(&report.baseline)
    );
    let document = canvas.draw(&title, |paper| {
        paper.title((16, 28), &canvas::cut(&title, 90), 19)?;
        paper.text((16, 50), &canvas::cut(&subtitle, 150), Anchor::Start)?;
        let mut top = HEADER;
        for panel in &panels {
            match panel {
                Panel::Bars(title, of) => bars(paper, top, title, of)?,
                Panel::Curves(title, of) => curves(paper, top, title, of)?,
            }
            top += panel.height();
        }
        if panels.is_empty() {
            paper.text((16, 66), "Nothing was measured.", Anchor::Start)?;
        }
        let host = show::host(report);
        let (first, second) = host.split_at(host.len() / 2);
        paper.small((16, height - 30), &canvas::cut(&first.join(" · "), 165))?;
        paper.small((16, height - 14), &canvas::cut(&second.join(" · "), 165))
    })?;
    Ok(palette::finished(document))
}

fn panels(report: &Report, summary: &Summary) -> Vec<Panel> {
    let mut panels = Vec::new();
    for level in summary.levels.iter().filter(|level| level.disturbed()) {
        panels.push(failures(report, level));
    }
    let peak = |level: &&LevelSummary| level.level == Level::Peak;
    for level in summary.levels.iter().filter(peak) {
        panels.push(throughput(report, level));
    }
    // At the peak latency is what the number of connections makes it; it is shown where there is no
    // other.
    let open = summary
        .levels
        .iter()
        .any(|level| level.level != Level::Peak);
    for level in &summary.levels {
        if !open || level.level != Level::Peak {
            panels.push(latencies(report, level));
        }
    }
    panels
}

/// A mode looks the same in all panels.
fn style_of(report: &Report, mode: &str) -> Style {
    let others = report.modes.iter().filter(|it| it.mode != report.baseline);
    match others.map(|it| &it.mode).position(|name| name == mode) {
        Some(index) => style(index),
        None => Style::BASELINE,
    }
}

fn failures(report: &Report, level: &LevelSummary) -> Panel {
    let how = report.disturb.as_deref().unwrap_or_default();
    let bar = |mode: &ModeSummary| {
        let value = mode.failed_per_disturbance?;
        Some(Bar {
            name: show::clean(&mode.mode),
            value,
            interval: None,
            figure: show::three(value),
            remark: format!(
                "{} in {} events",
                show::whole(mode.errors.total()),
                mode.disturbed
            ),
            style: style_of(report, &mode.mode),
        })
    };
    let title = format!(
        "Failed requests for each {}, at {}",
        show::clean(how),
        level.name()
    );
    Panel::Bars(title, level.modes.iter().filter_map(bar).collect())
}

fn throughput(report: &Report, level: &LevelSummary) -> Panel {
    let bar = |mode: &ModeSummary| {
        let least = if mode.generator_limited > 0 {
            "≥ "
        } else {
            ""
        };
        let ratio = match mode.rate_ratio {
            _ if mode.mode == report.baseline => "baseline".to_owned(),
            Some(ratio) => show::compared(&ratio),
            None => String::new(),
        };
        Bar {
            name: show::clean(&mode.mode),
            value: mode.rate,
            interval: mode.rate_interval,
            figure: format!("{least}{}", show::three(mode.rate)),
            remark: ratio,
            style: style_of(report, &mode.mode),
        }
    };
    let mut unit = unit(report.shape).to_owned();
    if let Some(first) = unit.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let title = format!("{unit} per second at the {}", level.name());
    Panel::Bars(title, level.modes.iter().map(bar).collect())
}

fn latencies(report: &Report, level: &LevelSummary) -> Panel {
    let curve = |mode: &ModeSummary| {
        let result = report.modes.iter().find(|it| it.mode == mode.mode)?;
        Some(Curve {
            name: show::clean(&mode.mode),
            p99: mode.latency?.p99,
            histogram: merged(measured(result, level.level)?)?,
            style: style_of(report, &mode.mode),
        })
    };
    let mut title = format!("Latency at {}", level.name());
    if let Some(offered) = level.offered {
        title.push_str(&format!(", {} requests/s offered", show::three(offered)));
    }
    Panel::Curves(title, level.modes.iter().filter_map(curve).collect())
}

impl Panel {
    fn height(&self) -> i32 {
        match self {
            Self::Bars(_, of) => bars::height(of.len()),
            Self::Curves(_, of) => curves::height(of.len()),
        }
    }
}

#[cfg(test)]
mod tests;
