//! Aligned columns that never wrap: those that matter least are left out where the terminal is too
//! narrow.

/// Between two columns.
const GAP: usize = 2;

/// Where a column's cells stand.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Right,
}

/// A column.
pub(super) struct Column {
    title: &'static str,
    align: Align,
    /// 0 matters most; of those of the same rank, the leftmost.
    rank: u8,
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
            rank: 0,
            cells: cells.collect(),
        }
    }

    pub(super) fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
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

/// Lays out the title line and `rows` lines, each of at most `width` columns. Columns without any
/// value are left out; of the others, by their rank, as many as fit before the first that does not.
pub(super) fn lay_out(columns: &[Column], rows: usize, width: usize) -> Vec<String> {
    let mut by_rank: Vec<(usize, &Column)> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.cells.iter().any(Option::is_some))
        .collect();
    by_rank.sort_by_key(|(_, column)| column.rank);
    let mut left = width;
    let mut fitting: Vec<(usize, &Column, usize)> = Vec::new();
    for (place, column) in by_rank {
        let wide = column.width();
        let needed = wide + if fitting.is_empty() { 0 } else { GAP };
        if needed > left && !fitting.is_empty() {
            break;
        }
        left = left.saturating_sub(needed);
        fitting.push((place, column, wide));
    }
    fitting.sort_by_key(|(place, ..)| *place);
    std::iter::once(None)
        .chain((0..rows).map(Some))
        .map(|row| {
            let cells: Vec<String> = fitting
                .iter()
                .map(|(_, column, wide)| pad(column.cell(row), column.align, *wide))
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

/// Columns on a terminal, as far as it matters here: what is shown is ASCII, `·`, `×`, `…` and
/// blocks.
fn width(text: &str) -> usize {
    text.chars().count()
}
