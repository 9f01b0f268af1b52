//! The exact command, in lines that a shell takes as one.

use super::layout::columns;
use crate::bench::report::show::quoted;

/// At most `width` columns a line. An argument that is longer than a line goes on at the beginning of
/// the next, in quotes of its own, so that the shell joins it.
pub(super) fn command(arguments: &[String], width: usize) -> Vec<String> {
    const INDENT: &str = "  ";
    // Room for ` \`.
    let room = width.saturating_sub(2).max(8);
    let mut lines: Vec<String> = Vec::new();
    for argument in arguments {
        let mut parts = parts(argument, room).into_iter();
        if let Some(first) = parts.next() {
            match lines.last_mut() {
                Some(line) if columns(line) + 1 + columns(&first) <= room => {
                    line.push(' ');
                    line.push_str(&first);
                }
                Some(line) => {
                    line.push_str(" \\");
                    let indent = if columns(&first) + INDENT.len() <= room {
                        INDENT
                    } else {
                        ""
                    };
                    lines.push(format!("{indent}{first}"));
                }
                None => lines.push(first),
            }
        }
        for part in parts {
            if let Some(line) = lines.last_mut() {
                line.push('\\');
            }
            lines.push(part);
        }
    }
    lines
}

/// The argument, quoted in parts that fit.
fn parts(argument: &str, room: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    for c in argument.chars() {
        let longer = format!("{part}{c}");
        if !part.is_empty() && columns(&quoted(&longer)) > room {
            parts.push(quoted(&part));
            part.clear();
        }
        part.push(c);
    }
    parts.push(quoted(&part));
    parts
}
