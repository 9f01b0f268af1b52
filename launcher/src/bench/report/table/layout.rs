//! Groups of columns, packed into as few tables as the width allows. Each starts with the same first
//! column.

use crate::bench::report::columns::{Align, Column, Group, Ink};

/// Between two columns, and between two groups.
const GAP: usize = 2;
const GROUP_GAP: usize = 3;

/// Whether there is colour.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    pub(super) fn ink(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Strong => 1,
            Ink::Faint => 2,
            Ink::Good => 32,
            Ink::Bad => 31,
        };
        if self.0 && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| columns(cell));
        cells
            .chain([columns(&self.title)])
            .max()
            .unwrap_or_default()
    }

    fn pad(&self, text: &str) -> String {
        let width = self.width();
        match self.align {
            Align::Left => format!("{text:<width$}"),
            Align::Right => format!("{text:>width$}"),
        }
    }

    /// Inked behind the padding, so that it does not count.
    fn cell(&self, row: usize, paint: Paint) -> String {
        let text = self.cells.get(row).map_or("", String::as_str);
        let ink = self.inks.get(row).copied().unwrap_or(Ink::Plain);
        let padded = self.pad(text);
        match paint.0 {
            true => padded.replace(text, &paint.ink(ink, text)),
            false => padded,
        }
    }
}

impl Group {
    fn width(&self) -> usize {
        let columns_width: usize = self.columns.iter().map(Column::width).sum();
        let gaps = GAP * self.columns.len().saturating_sub(1);
        columns(&self.title).max(columns_width + gaps)
    }

    /// In groups that fit into `room`, as far as single columns do.
    fn split(self, room: usize) -> Vec<Self> {
        let mut groups = vec![Self::new(self.title.clone(), Vec::new())];
        for column in self.columns {
            let full = |group: &Self| {
                let used = group.width() + GAP + column.width() + GROUP_GAP;
                !group.columns.is_empty() && used > room
            };
            if groups.last().is_some_and(full) {
                groups.push(Self::new(self.title.clone(), Vec::new()));
            }
            if let Some(group) = groups.last_mut() {
                group.columns.push(column);
            }
        }
        groups
    }

    fn line(&self, of: impl Fn(&Column) -> String) -> String {
        let cells: Vec<String> = self.columns.iter().map(of).collect();
        cells.join(&" ".repeat(GAP))
    }
}

/// Each group goes into the first table that it fits into; one that is too wide for any is split. There is
/// an empty line between tables.
pub(super) fn lay_out(
    names: &Column,
    groups: Vec<Group>,
    width: usize,
    paint: Paint,
) -> Vec<String> {
    let room = width.saturating_sub(names.width());
    let mut tables: Vec<(usize, Vec<Group>)> = Vec::new();
    for group in groups.into_iter().flat_map(|group| group.split(room)) {
        let needed = group.width() + GROUP_GAP;
        match tables.iter_mut().find(|(used, _)| used + needed <= room) {
            Some((used, table)) => {
                *used += needed;
                table.push(group);
            }
            None => tables.push((needed, vec![group])),
        }
    }
    let tables = tables.iter().map(|(_, table)| one(names, table, paint));
    let tables: Vec<Vec<String>> = tables.collect();
    tables.join(&String::new())
}

fn one(names: &Column, groups: &[Group], paint: Paint) -> Vec<String> {
    let gap = " ".repeat(GROUP_GAP);
    let mut titles = names.pad("");
    let mut heads = names.pad(&names.title);
    for group in groups {
        let width = group.width();
        titles.push_str(&format!("{gap}{:<width$}", group.title));
        let head = group.line(|column| column.pad(&column.title));
        heads.push_str(&format!("{gap}{head:<width$}"));
    }
    let mut lines: Vec<String> = [titles, heads]
        .iter()
        .map(|line| line.trim_end())
        .filter(|line| !line.is_empty())
        .map(|line| paint.ink(Ink::Faint, line))
        .collect();
    for row in 0..names.cells.len() {
        let mut line = names.cell(row, paint);
        for group in groups {
            let plain = group.line(|column| column.cell(row, Paint(false)));
            let inked = group.line(|column| column.cell(row, paint));
            let missing = " ".repeat(group.width().saturating_sub(columns(&plain)));
            line.push_str(&format!("{gap}{inked}{missing}"));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// `text` in lines of at most `width`, the first behind `first`, the others behind `next`. A word that is
/// longer than a line is broken.
pub(super) fn wrap(text: &str, width: usize, first: &str, next: &str) -> Vec<String> {
    let room = width
        .saturating_sub(columns(first).max(columns(next)))
        .max(1);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let used = lines.last().map_or(0, |line| columns(line));
            let gap = usize::from(used > 0);
            if used + gap + word.len() <= room {
                let line: String = word.iter().collect();
                if let Some(last) = lines.last_mut() {
                    last.push_str(&" ".repeat(gap));
                    last.push_str(&line);
                }
                break;
            }
            if used > 0 {
                lines.push(String::new());
                continue;
            }
            let rest = word.split_off(room);
            if let Some(last) = lines.last_mut() {
                last.extend(word);
            }
            lines.push(String::new());
            word = rest;
        }
    }
    lines
        .iter()
        .enumerate()
        .map(|(index, line)| format!("{}{line}", if index == 0 { first } else { next }))
        .collect()
}

/// Columns on a terminal, as far as it matters here: names, figures and Latin text.
pub(super) fn columns(text: &str) -> usize {
    text.chars().count()
}
