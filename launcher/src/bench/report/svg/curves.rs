//! Latency by percentile: each step to the right is a tenth of the requests that are left, so that the
//! tail has as much room as the middle.

use std::ops::Range;

use hdrhistogram::Histogram;
use plotters::{
    chart::ChartBuilder,
    coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    element::PathElement,
    style::Color,
};

use super::{
    WIDTH,
    canvas::{Anchor, Drawn, Paper, cut, fine_u, font, stroke},
    palette::{Style, TEXT},
};
use crate::bench::report::show;

const TITLE: i32 = 36;
const AXIS: i32 = 26;
const BELOW: i32 = 22;
const PLOT: i32 = 270;
const LEGEND_LINE: i32 = 20;
const LEFT: i32 = 16;
const LABELS: i32 = 64;
const RIGHT: i32 = 690;
/// Points of a curve for each tenth.
const POINTS: u32 = 60;
/// The farthest percentile is 99.999.
const TENTHS: f64 = 5.0;

/// An axis with labels just where they are wanted.
struct Axis {
    range: Range<f64>,
    labels: Vec<f64>,
}

impl Axis {
    fn new(range: Range<f64>, labels: Vec<f64>) -> Self {
        Self { range, labels }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.labels.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

pub(super) struct Curve {
    pub(super) name: String,
    /// The median of the rounds, as in the tables; ns.
    pub(super) p99: f64,
    /// Of all rounds, in ns; not empty.
    pub(super) histogram: Histogram<u64>,
    pub(super) style: Style,
}

pub(super) fn height(curves: usize) -> i32 {
    TITLE + PLOT.max(LEGEND_LINE * (curves as i32 + 1)) + AXIS + BELOW
}

pub(super) fn curves(paper: &Paper<'_>, top: i32, title: &str, curves: &[Curve]) -> Drawn<()> {
    paper.title((16, top + 16), title, 15)?;
    let bottom = top + height(curves.len()) - BELOW;
    let top = top + TITLE;
    let lines: Vec<Vec<(f64, f64)>> = curves.iter().map(line).collect();
    let points = || lines.iter().flatten();
    let farthest = points().map(|point| point.0).fold(1.0, f64::max);
    let least = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.1).fold(0.0, f64::max);
    if !least.is_finite() {
        return paper.text((16, top + 16), "No request was answered.", Anchor::Start);
    }
    let (least, most) = (least - 0.05, most.max(least + 0.3) + 0.05);
    let area = paper.part(LEFT, RIGHT, top, bottom);
    let mut chart = ChartBuilder::on(&area)
        .x_label_area_size(fine_u(AXIS))
        .y_label_area_size(fine_u(LABELS))
        .build_cartesian_2d(
            Axis::new(0.0..farthest, percentiles(farthest)),
            Axis::new(least..most, times(least, most)),
        )?;
    chart
        .configure_mesh()
        .x_label_formatter(&|x| percentile(*x))
        .y_label_formatter(&|y| show::round_time(10_f64.powf(*y)))
        .set_all_tick_mark_size(fine_u(5))
        .label_style(font(12, false, Anchor::Start))
        .axis_style(stroke(TEXT.mix(0.6), 1))
        .bold_line_style(stroke(TEXT.mix(0.25), 1))
        .light_line_style(TEXT.mix(0.0))
        .draw()?;
    for (line, curve) in lines.into_iter().zip(curves) {
        let style = stroke(curve.style.colour, 2);
        chart.draw_series([PathElement::new(line, style)])?;
    }
    legend(paper, top, curves)
}

/// In the order of the 99th percentiles, the slowest first, as the curves lie.
fn legend(paper: &Paper<'_>, top: i32, curves: &[Curve]) -> Drawn<()> {
    let mut curves: Vec<&Curve> = curves.iter().collect();
    curves.sort_by(|one, other| other.p99.total_cmp(&one.p99));
    paper.text((WIDTH - 16, top + 8), "p99", Anchor::End)?;
    for (index, curve) in curves.iter().enumerate() {
        let middle = top + 8 + LEGEND_LINE * (index as i32 + 1);
        paper.sample((RIGHT + 18, middle), 24, curve.style)?;
        paper.text((RIGHT + 50, middle), &cut(&curve.name, 28), Anchor::Start)?;
        paper.text((WIDTH - 16, middle), &show::time(curve.p99), Anchor::End)?;
    }
    Ok(())
}

/// From the fastest to where only some ten requests are left: beyond, a curve would be of single ones.
fn line(curve: &Curve) -> Vec<(f64, f64)> {
    let histogram = &curve.histogram;
    let farthest = ((histogram.len() as f64 / 10.0).log10()).clamp(0.5, TENTHS);
    let last = (farthest * f64::from(POINTS)) as u32;
    (0..=last)
        .map(|point| {
            let x = f64::from(point) / f64::from(POINTS);
            let value = histogram.value_at_quantile(1.0 - 10_f64.powf(-x));
            (x, (value.max(1) as f64).log10())
        })
        .collect()
}

/// Where the axis of percentiles has its labels.
fn percentiles(farthest: f64) -> Vec<f64> {
    let mut at = vec![0.0, 2_f64.log10()];
    at.extend((1..=5).map(f64::from).filter(|x| *x <= farthest + 1e-9));
    at
}

/// `50 %`, `99.9 %`
fn percentile(x: f64) -> String {
    let percent = 100.0 - 100.0 * 10_f64.powf(-x);
    let decimals = (x.round() as usize).saturating_sub(2);
    format!("{percent:.decimals$} %")
}

/// Where the axis of times has its labels: at 1, 10, 100, and at 2 and 5 between them where there is
/// room.
fn times(least: f64, most: f64) -> Vec<f64> {
    let between: &[f64] = match most - least {
        range if range < 2.2 => &[1.0, 2.0, 5.0],
        range if range < 3.5 => &[1.0, 3.0],
        _ => &[1.0],
    };
    (0..=12)
        .flat_map(|exponent| between.iter().map(move |n| f64::from(exponent) + n.log10()))
        .filter(|at| (least..=most).contains(at))
        .collect()
}
