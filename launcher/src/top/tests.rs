//! Keys and pictures, without a terminal.

use std::time::{Duration, Instant};

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Color,
};

use super::{
    app::{Action, App, Message, Mode},
    draw::draw,
};
use crate::{
    control::protocol::Request,
    failure::Failure,
    observe::{Snapshot, Steering, WorkerStatus},
};

fn worker(slot: u32) -> WorkerStatus {
    WorkerStatus {
        slot,
        generation: 1,
        pid: Some(4212 + slot),
        state: "ready".into(),
        status_text: None,
        cpus: vec![],
        weight: 1,
        hint: None,
        uptime_seconds: Some(5),
        restarts: 0,
        connections_total: Some(100),
        connections_active: Some(0),
        accept_queue: Some(0),
        memory_bytes: Some(1 << 20),
        cpu_seconds: Some(1.0),
        restart_in_seconds: None,
    }
}

fn snapshot(workers: u32) -> Snapshot {
    Snapshot {
        name: "shop".into(),
        version: "0.1.0".into(),
        pid: 4211,
        command: vec!["./shop".into()],
        started_at: "2026-11-21T05:57:00Z".into(),
        capture: "cgroup".into(),
        steering: Steering {
            backend: "ebpf".into(),
            policy: "round-robin".into(),
            policy_udp: "hash".into(),
            migration: true,
        },
        hold: true,
        operation: None,
        groups: vec![],
        workers: (0..workers).map(worker).collect(),
    }
}

fn app(workers: u32) -> App {
    App::new(snapshot(workers), true)
}

/// Presses these keys, and returns what the last one asks for.
fn press(app: &mut App, keys: &str) -> Option<Action> {
    let codes = keys.chars().map(|key| match key {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '↓' => KeyCode::Down,
        '↑' => KeyCode::Up,
        key => KeyCode::Char(key),
    });
    codes
        .map(|code| app.on_key(KeyEvent::new(code, KeyModifiers::NONE)))
        .last()
        .flatten()
}

fn asked(action: Option<Action>) -> Request {
    match action {
        Some(Action::Ask(_, request)) => request,
        other => panic!("{other:?}"),
    }
}

fn terminal(app: &mut App, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(app, frame)).unwrap();
    terminal
}

/// The lines on a terminal of this size.
fn picture(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(app, width, height);
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(width.into());
    let text = |line: &[ratatui::buffer::Cell]| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    };
    lines.map(text).collect()
}

#[test]
fn the_picture_of_80_by_24() {
    let mut app = app(2);
    let mut next = snapshot(2);
    next.workers[0].connections_total = Some(150);
    next.workers[1].state = "draining".into();
    app.on_status(next, Instant::now() + Duration::from_secs(1));
    let lines = picture(&mut app, 80, 24);
    let first = "shop · 1 of 2 ready · pid 4211 · steer round-robin (eBPF) · ";
    assert!(lines[0].starts_with(first), "{lines:#?}");
    let titles: Vec<&str> = lines[1].split_whitespace().collect();
    let expected = [
        "SLOT", "GEN", "STATE", "SHARE", "CONN/S", "COURSE", "OPEN", "QUEUE", "CPU",
    ];
    assert_eq!(titles[..9], expected, "{lines:#?}");
    assert!(
        lines[2].starts_with(">    0    1  ready     60.0%"),
        "{lines:#?}"
    );
    assert!(
        lines[3].starts_with("     1    1  draining  40.0%"),
        "{lines:#?}"
    );
    assert_eq!(lines[5], "no listening socket");
    assert!(lines[23].contains("r restart") && lines[23].ends_with("q quit"));
}

#[test]
fn without_colours_there_are_none() {
    for colours in [true, false] {
        let mut state = snapshot(3);
        state.workers[1].state = "unhealthy".into();
        state.workers[2].state = "draining".into();
        let mut app = App::new(state, colours);
        app.on_silence(&Failure::new("it fails", "so", "wait"));
        let terminal = terminal(&mut app, 80, 24);
        let cells = terminal.backend().buffer().content();
        let coloured = cells
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        assert_eq!(coloured, colours);
    }
}

#[test]
fn a_terminal_that_is_too_small_is_told() {
    let lines = picture(&mut app(2), 30, 8);
    let text = lines.join(" ");
    assert!(
        text.starts_with("the terminal is too small: 30×8,"),
        "{text}"
    );
    assert!(!text.contains("SLOT"), "{text}");
    // Any size is survived.
    for width in 1..90 {
        for height in 1..30 {
            let mut app = app(20);
            press(&mut app, "p");
            picture(&mut app, width, height);
        }
    }
}

#[test]
fn the_chosen_slot_is_always_in_sight() {
    let mut app = app(50);
    for slot in 0..50 {
        let lines = picture(&mut app, 80, 24);
        let marked = lines.iter().filter(|line| line.starts_with("> "));
        let slots: Vec<&str> = marked
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(slots, [slot.to_string()], "{lines:#?}");
        assert!(
            lines.iter().any(|line| line.contains("… and 33 more")),
            "{lines:#?}"
        );
        press(&mut app, "↓");
    }
    press(&mut app, "↓");
    assert_eq!(app.slot, 49);
    app.on_key(KeyEvent::new(KeyCode::Home, KeyModifiers::NONE));
    assert_eq!(app.slot, 0);
    press(&mut app, "↑");
    assert_eq!(app.slot, 0);
}

#[test]
fn keys_ask_about_the_chosen_slot() {
    let mut app = app(3);
    press(&mut app, "↓↓");
    for (key, request) in [
        ("d", Request::Drain { slot: 2 }),
        ("u", Request::Undrain { slot: 2 }),
        ("r", Request::Restart { slot: 2 }),
    ] {
        assert_eq!(asked(press(&mut app, key)), request);
    }
    assert_eq!(
        app.message,
        Some(Message::Good("restart slot 2: under way".into()))
    );
    app.on_answer("restart slot 2", Ok(()));
    let done = Message::Good("restart slot 2: done".into());
    assert_eq!(app.message, Some(done));
    assert_eq!(press(&mut app, "x"), None);
    assert_eq!(press(&mut app, "q"), Some(Action::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.on_key(interrupt), Some(Action::Quit));
}

#[test]
fn a_change_of_policy_and_a_reload_are_confirmed() {
    let mut app = app(1);
    assert_eq!(press(&mut app, "p3"), None);
    let text = picture(&mut app, 80, 24).join(" ");
    let question = "change the policy of shop from round-robin to hash? y/n";
    assert!(text.contains(question), "{text}");
    let hash = Request::Steer {
        policy: "hash".into(),
        udp: false,
    };
    assert_eq!(asked(press(&mut app, "y")), hash);
    for refused in ["p3n", "p\u{1b}", "p9", "p0", "Rn", "Rq", "R\u{1b}"] {
        assert_eq!(press(&mut app, refused), None, "{refused}");
        assert_eq!(app.mode, Mode::Table, "{refused}");
    }
    assert_eq!(asked(press(&mut app, "Ry")), Request::reload(None));
}

#[test]
fn only_so_much_is_asked_at_a_time() {
    let mut app = app(1);
    for _ in 0..8 {
        asked(press(&mut app, "r"));
    }
    assert_eq!(press(&mut app, "r"), None);
    assert!(matches!(&app.message, Some(Message::Bad(why)) if why.contains("8 requests")));
    app.on_answer(
        "restart slot 0",
        Err(Failure::new("cannot", "busy", "wait")),
    );
    asked(press(&mut app, "r"));
}

#[test]
fn the_filter_leaves_what_is_like_it() {
    let mut app = app(12);
    app.snapshot.workers[7].state = "draining".into();
    app.snapshot.workers[8].status_text = Some("warming up".into());
    for (filter, slots) in [
        ("/drain\n", &[7][..]),
        ("/1\n", &[1]),
        ("/warm\n", &[8]),
        ("/4217\n", &[5]),
        ("/nothing\n", &[]),
    ] {
        press(&mut app, filter);
        let left: Vec<u32> = app.workers().iter().map(|worker| worker.slot).collect();
        assert_eq!(left, slots, "{filter}");
        if let [slot] = slots {
            assert_eq!(app.slot, *slot, "keys are about what is seen");
        }
        picture(&mut app, 80, 24);
    }
    assert_eq!(press(&mut app, "r"), None, "no slot is seen");
    // While it is written, letters are letters.
    assert_eq!(press(&mut app, "/q"), None);
    let text = picture(&mut app, 80, 24).join(" ");
    assert!(text.contains("filter: q_"), "{text}");
    press(&mut app, "\u{1b}");
    assert_eq!(app.workers().len(), 12);
}

#[test]
fn what_others_say_cannot_write_to_the_terminal() {
    let mut app = app(1);
    let why = "worker 0.3: exit code 1;\n    \u{1b}[2J broken";
    app.on_answer("restart slot 0", Err(Failure::new("cannot", why, "wait")));
    let text = picture(&mut app, 80, 24).join(" ");
    assert!(
        text.contains("broken → wait") && !text.contains('\u{1b}'),
        "{text}"
    );
}
