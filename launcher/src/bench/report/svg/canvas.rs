//! Where panels are drawn: plotters' area, and text in CSS pixels.

use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::{PathElement, Text},
    style::{
        Color, FontStyle, IntoFont, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::palette::{Style, TEXT};
use crate::{bench::report::html::escaped, failure::Failure};

/// plotters places things at whole pixels; the picture is drawn so many times larger, so that curves are
/// smooth.
pub(super) const FINE: i32 = 4;

/// The size of ordinary text.
const SIZE: i32 = 13;

/// What plotters draws on.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What plotters says.
pub(super) type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// Where a text's given point is.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    End,
}

/// A picture to be.
pub(super) struct Canvas {
    width: i32,
    height: i32,
}

/// It while it is drawn.
pub(super) struct Paper<'a> {
    area: Area<'a>,
}

impl Canvas {
    pub(super) fn new(width: i32, height: i32) -> Self {
        Self { width, height }
    }

    /// The document that `draw` draws; `title` is for who can't see it.
    pub(super) fn draw(
        &self,
        title: &str,
        draw: impl FnOnce(&Paper<'_>) -> Drawn<()>,
    ) -> Result<String, Failure> {
        let Self { width, height } = self;
        let (fine_width, fine_height) = (fine(*width), fine(*height));
        let mut document = String::new();
        let size = (fine_width.unsigned_abs(), fine_height.unsigned_abs());
        let area = SVGBackend::with_string(&mut document, size).into_drawing_area();
        let paper = Paper { area };
        let drawn = draw(&paper).and_then(|()| paper.area.present());
        drop(paper);
        drawn.map_err(|error| {
            let hint = "leave out --svg and --html; the table and --json have the same figures";
            Failure::new("cannot draw the report", error, hint)
        })?;
        // The picture's own size, and what CSS makes of it.
        let of_plotters = format!("width=\"{fine_width}\" height=\"{fine_height}\"");
        let ours =
            format!("class=\"reuseport-bench\" role=\"img\" width=\"{width}\" height=\"{height}\"");
        let document = document.replacen(&of_plotters, &ours, 1);
        let (opening, rest) = document.split_once('\n').unwrap_or((&document, ""));
        let title = escaped(title);
        Ok(format!("{opening}\n<title>{title}</title>\n{CSS}{rest}"))
    }
}

const CSS: &str = r##"<style>
.reuseport-bench { max-width: 100%; height: auto; font-variant-numeric: tabular-nums }
@media (prefers-color-scheme: light) {
  .reuseport-bench .background { fill: #ffffff }
  .reuseport-bench text { fill: #24292f }
  .reuseport-bench line[stroke="#7B7B7B"], .reuseport-bench polyline[stroke="#7B7B7B"] { stroke: #24292f }
}
@media (prefers-color-scheme: dark) {
  .reuseport-bench .background { fill: #16181d }
  .reuseport-bench text { fill: #d8dce2 }
  .reuseport-bench line[stroke="#7B7B7B"], .reuseport-bench polyline[stroke="#7B7B7B"] { stroke: #eef0f3 }
}
</style>
<rect class="background" width="100%" height="100%" fill="none"/>
"##;

/// CSS pixels in plotters' pixels.
pub(super) fn fine(length: i32) -> i32 {
    length * FINE
}

/// The same of a height or a thickness.
pub(super) fn fine_u(length: i32) -> u32 {
    fine(length).unsigned_abs()
}

/// At most `limit` characters of `text`.
pub(super) fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    kept + "…"
}

/// How text looks, `size` CSS pixels high.
pub(super) fn font(size: i32, bold: bool, anchor: Anchor) -> TextStyle<'static> {
    // The SVG backend divides by this.
    let points = f64::from(fine(size)) * 1.24;
    let style = if bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let at = match anchor {
        Anchor::Start => HPos::Left,
        Anchor::End => HPos::Right,
    };
    TextStyle::from(("sans-serif", points).into_font().style(style))
        .color(&TEXT)
        .pos(Pos::new(at, VPos::Center))
}

impl<'a> Paper<'a> {
    /// The part between two heights, from `left` to `right`.
    pub(super) fn part(&self, left: i32, right: i32, top: i32, bottom: i32) -> Area<'a> {
        let (width, height) = self.area.dim_in_pixel();
        let width = width as i32;
        self.area.clone().shrink(
            (fine(left), fine(top)),
            (
                width.min(fine(right)) - fine(left),
                (height as i32).min(fine(bottom)) - fine(top),
            ),
        )
    }

    /// The heading of the picture or of a panel.
    pub(super) fn title(&self, at: (i32, i32), text: &str, size: i32) -> Drawn<()> {
        self.write(at, text, font(size, true, Anchor::Start))
    }

    /// Ordinary text; `at` is the middle of its height.
    pub(super) fn text(&self, at: (i32, i32), text: &str, anchor: Anchor) -> Drawn<()> {
        self.write(at, text, font(SIZE, false, anchor))
    }

    /// Small print.
    pub(super) fn small(&self, at: (i32, i32), text: &str) -> Drawn<()> {
        self.write(at, text, font(11, false, Anchor::Start))
    }

    /// A sample of a curve.
    pub(super) fn sample(&self, from: (i32, i32), length: i32, style: Style) -> Drawn<()> {
        let (x, y) = (fine(from.0), fine(from.1));
        let line = vec![(x, y), (x + fine(length), y)];
        self.area
            .draw(&PathElement::new(line, stroke(style.colour, 2)))
    }

    fn write(&self, (x, y): (i32, i32), text: &str, style: TextStyle<'static>) -> Drawn<()> {
        self.area
            .draw(&Text::new(text.to_owned(), (fine(x), fine(y)), style))
    }
}

/// A line, `width` CSS pixels thick.
pub(super) fn stroke(colour: impl Color, width: i32) -> ShapeStyle {
    colour.stroke_width(fine_u(width))
}
