//! Aligned columns that never wrap: the rightmost are left out where the terminal is too narrow.

/// Between two columns.
const GAP: usize = 2;

/// Where a column's cells stand.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Right,
}

/// A column; the leftmost matters most.
pub(super) struct Column {
    title: &'static str,
    align: Align,
    /// `None` where there is nothing to show.
    cells: Vec<Option<String>>,
}

impl Column {
    pub(super) fn new(
        title: &'static str,
        align: Align,
        cells: impl Iterator<Item = Option<String>>,
    ) -> Self {
        Self {
            title,
            align,
            cells: cells.collect(),
        }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().flatten().map(|cell| width(cell));
        cells.chain([width(self.title)]).max().unwrap_or_default()
    }

    fn cell(&self, row: Option<usize>) -> &str {
        match row {
            None => self.title,
            Some(row) => self
                .cells
                .get(row)
                .and_then(Option::as_deref)
                .unwrap_or("-"),
        }
    }
}

/// Lays out the title line and `rows` lines. Columns without any value are left out, and so are
/// those on the right that do not fit into `width`; the first one always stays.
pub(super) fn lay_out(columns: &[Column], rows: usize, width: usize) -> Vec<String> {
    let mut left = width;
    let mut fitting: Vec<(&Column, usize)> = Vec::new();
    for column in columns
        .iter()
        .filter(|column| column.cells.iter().any(Option::is_some))
    {
        let needed = column.width() + if fitting.is_empty() { 0 } else { GAP };
        if needed > left && !fitting.is_empty() {
            break;
        }
        left = left.saturating_sub(needed);
        fitting.push((column, column.width()));
    }
    std::iter::once(None)
        .chain((0..rows).map(Some))
        .map(|row| {
            let cells: Vec<String> = fitting
                .iter()
                .map(|(column, width)| pad(column.cell(row), column.align, *width))
                .collect();
            fit(cells.join(&" ".repeat(GAP)).trim_end(), width)
        })
        .collect()
}

/// Cuts `line` to `limit` columns, marking the cut.
pub(super) fn fit(line: &str, limit: usize) -> String {
    if width(line) <= limit {
        return line.to_owned();
    }
    let kept: String = line.chars().take(limit.saturating_sub(1)).collect();
    if limit == 0 { kept } else { kept + "…" }
}

fn pad(text: &str, align: Align, to: usize) -> String {
    match align {
        Align::Left => format!("{text:<to$}"),
        Align::Right => format!("{text:>to$}"),
    }
}

/// Columns on a terminal, as far as it matters here: what is shown is ASCII, `·`, `×` and `…`.
fn width(text: &str) -> usize {
    text.chars().count()
}
