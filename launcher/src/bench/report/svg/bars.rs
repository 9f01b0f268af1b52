//! Horizontal bars, a line for each mode, so that long names have room.

use plotters::{
    chart::ChartBuilder,
    element::{PathElement, Rectangle},
    style::{Color, RGBColor},
};

use super::{
    canvas::{Anchor, Drawn, Paper, cut, fine_u, font, stroke},
    palette::{Style, TEXT},
};
use crate::bench::{report::show, stats::Interval};

const LINE: i32 = 24;
const TITLE: i32 = 36;
const AXIS: i32 = 26;
const BELOW: i32 = 22;
/// Where bars begin and end.
const LEFT: i32 = 236;
const RIGHT: i32 = 760;
/// Room for figures beside them.
const FIGURE: i32 = 84;
/// What CSS makes stand out from the bars; elsewhere it is the text's grey, but for a shade.
const INTERVAL: RGBColor = RGBColor(0x7b, 0x7b, 0x7b);

pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) interval: Option<Interval>,
    /// Beside it, figure below figure.
    pub(super) figure: String,
    /// Beside that.
    pub(super) remark: String,
    pub(super) style: Style,
}

pub(super) fn height(bars: usize) -> i32 {
    TITLE + LINE * bars as i32 + AXIS + BELOW
}

pub(super) fn bars(paper: &Paper<'_>, top: i32, title: &str, bars: &[Bar]) -> Drawn<()> {
    paper.title((16, top + 16), title, 15)?;
    let top = top + TITLE;
    let bottom = top + LINE * bars.len() as i32;
    let ends = bars
        .iter()
        .map(|bar| bar.interval.map_or(bar.value, |it| it.high.max(bar.value)));
    let most = match ends.fold(0.0, f64::max) {
        most if most > 0.0 => most * 1.02,
        _ => 1.0,
    };
    let area = paper.part(LEFT, RIGHT, top, bottom + AXIS);
    let lines = bars.len() as f64;
    let mut chart = ChartBuilder::on(&area)
        .x_label_area_size(fine_u(AXIS))
        .build_cartesian_2d(0.0..most, 0.0..lines)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(6)
        .x_label_formatter(&|value| tick(*value, most))
        .set_all_tick_mark_size(fine_u(5))
        .label_style(font(12, false, Anchor::Start))
        .axis_style(stroke(TEXT.mix(0.6), 1))
        .bold_line_style(stroke(TEXT.mix(0.25), 1))
        .light_line_style(TEXT.mix(0.0))
        .draw()?;
    for (index, bar) in bars.iter().enumerate() {
        let at = lines - index as f64 - 0.5;
        let fill = bar.style.colour.mix(0.85).filled();
        chart.draw_series([Rectangle::new(
            [(0.0, at - 0.32), (bar.value, at + 0.32)],
            fill,
        )])?;
        if let Some(Interval { low, high }) = bar.interval {
            let ends = [
                vec![(low, at), (high, at)],
                vec![(low, at - 0.16), (low, at + 0.16)],
                vec![(high, at - 0.16), (high, at + 0.16)],
            ];
            chart.draw_series(ends.map(|line| PathElement::new(line, stroke(INTERVAL, 2))))?;
        }
        let middle = top + LINE * index as i32 + LINE / 2;
        paper.text((LEFT - 10, middle), &cut(&bar.name, 32), Anchor::End)?;
        paper.text((RIGHT + FIGURE, middle), &bar.figure, Anchor::End)?;
        let remark = (RIGHT + FIGURE + 14, middle);
        paper.text(remark, &cut(&bar.remark, 20), Anchor::Start)?;
    }
    Ok(())
}

/// Ticks are round numbers; those of a short axis have decimals.
fn tick(value: f64, most: f64) -> String {
    match most {
        _ if value == 0.0 => "0".to_owned(),
        most if most < 1.0 => format!("{value:.2}"),
        most if most < 10.0 => format!("{value:.1}"),
        _ => show::whole(value.round() as u64),
    }
}
