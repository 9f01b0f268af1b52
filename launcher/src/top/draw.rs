//! The picture of `top`.

use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Paragraph, Wrap},
};

use super::app::{App, Message, Mode};
use crate::{
    observe::{WorkerStatus, table},
    policy::Policy,
};

/// What the table needs: its lines above and below, and two workers.
const SMALLEST: (u16, u16) = (40, 12);
/// Lines for groups and their title; more are not shown.
const GROUPS_MAX: usize = 5;
/// Lines for messages.
const MESSAGE: u16 = 2;

const HELP: &str = "↑↓ slot  d drain  u undrain  r restart  R reload  p policy  / filter  q quit";

/// Draws it all.
pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!(
            "the terminal is too small: {}×{}, at least {}×{} is needed (q quits)",
            area.width, area.height, SMALLEST.0, SMALLEST.1
        );
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let width = usize::from(area.width);
    let mut groups = table::groups(&app.snapshot, width);
    groups.truncate(GROUPS_MAX);
    let below = groups.len() + usize::from(MESSAGE) + 1;
    let (lines, left_out) = workers(app, width, usize::from(area.height) - below - 3);

    let mut text = vec![Line::styled(
        table::head(&app.snapshot, &app.history, width),
        Modifier::BOLD,
    )];
    text.extend(lines);
    text.push(Line::raw(match left_out {
        0 => String::new(),
        more => format!("  … and {more} more"),
    }));
    text.extend(groups.into_iter().map(Line::raw));
    frame.render_widget(Text::from(text), area);

    let message = Rect {
        y: area.bottom() - 1 - MESSAGE,
        height: MESSAGE,
        ..area
    };
    frame.render_widget(note(app).wrap(Wrap { trim: true }), message);
    let help = Rect {
        y: area.bottom() - 1,
        height: 1,
        ..area
    };
    let help_line = Line::styled(HELP, Modifier::DIM);
    frame.render_widget(help_line, help);
}

/// The title and as many workers as there is room for, among them those of the chosen slot; and how
/// many were left out.
fn workers<'a>(app: &mut App, width: usize, room: usize) -> (Vec<Line<'a>>, usize) {
    let workers = app.workers();
    let mut lines = table::live(&workers, &app.history, width.saturating_sub(2)).into_iter();
    let title = lines.next().unwrap_or_default();
    let rows: Vec<Line<'a>> = workers
        .iter()
        .zip(lines)
        .map(|(worker, line)| {
            let chosen = worker.slot == app.slot;
            let marker = if chosen { "> " } else { "  " };
            let mut style = style(worker, app.colours);
            if chosen {
                style = style.add_modifier(Modifier::BOLD);
            }
            Line::from(vec![Span::raw(marker), Span::styled(line, style)])
        })
        .collect();
    let chosen = workers.iter().position(|worker| worker.slot == app.slot);
    let room = room.max(1);
    let last = chosen.unwrap_or(0);
    // No further than needed to see it, and no empty lines at the end.
    let first = app.first.clamp((last + 1).saturating_sub(room), last);
    let first = first.min(rows.len().saturating_sub(room));
    let left_out = rows.len().saturating_sub(room);
    let title = Line::from(vec![
        Span::raw("  "),
        Span::styled(title, Modifier::UNDERLINED),
    ]);
    let shown = std::iter::once(title).chain(rows.into_iter().skip(first).take(room));
    let shown = shown.collect();
    app.first = first;
    (shown, left_out)
}

/// How a worker's line looks.
fn style(worker: &WorkerStatus, colours: bool) -> Style {
    let colour = match worker.state.as_str() {
        _ if !colours => return Style::new(),
        "ready" => return Style::new(),
        "unhealthy" | "stalled" | "backoff" => Color::Red,
        "starting" | "listening" => Color::Cyan,
        _ => Color::Yellow,
    };
    Style::new().fg(colour)
}

/// What is asked, or what became of what was asked for.
fn note<'a>(app: &App) -> Paragraph<'a> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (text, style) = match (&app.mode, &app.message) {
        (Mode::Confirm(question, _), _) => (question.clone(), bold),
        (Mode::Policies, _) => {
            let names = Policy::NAMES.iter().enumerate();
            let names: Vec<String> = names
                .map(|(at, name)| format!("{} {name}", at + 1))
                .collect();
            (format!("policy: {} (Esc: none)", names.join("  ")), bold)
        }
        (Mode::Filter, _) => (
            format!("filter: {}_ (state, slot, pid or status text)", app.filter),
            bold,
        ),
        (Mode::Table, Some(Message::Bad(text))) if app.colours => {
            (text.clone(), Style::new().fg(Color::Red))
        }
        (Mode::Table, Some(Message::Good(text) | Message::Bad(text))) => {
            (text.clone(), Style::new())
        }
        (Mode::Table, None) if !app.filter.is_empty() => {
            (format!("filter: {} (Esc: none)", app.filter), Style::new())
        }
        (Mode::Table, None) => (String::new(), Style::new()),
    };
    // Of another process, in part: it must not write to the terminal.
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Paragraph::new(text).style(style)
}
