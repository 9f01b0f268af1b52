//! What `top` shows and does, without a terminal: statuses, answers and keys in, actions out.

use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::shown;
use crate::{
    control::protocol::Request,
    failure::Failure,
    observe::{Snapshot, WorkerStatus, history::History},
    policy::Policy,
};

/// The longest filter, in characters.
const FILTER_MAX: usize = 32;
/// Requests that may be under way.
const ASKED_MAX: usize = 8;

/// What a key asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    Quit,
    /// This, of the launcher; and how it is called.
    Ask(String, Request),
}

/// What keys mean now.
#[derive(Debug, PartialEq)]
pub(super) enum Mode {
    /// What the help line says.
    Table,
    /// They write the filter.
    Filter,
    /// A digit chooses the policy.
    Policies,
    /// `y` has it done.
    Confirm(String, Request),
}

/// A line about what was asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    Good(String),
    Bad(String),
}

pub(super) struct App {
    pub(super) snapshot: Snapshot,
    pub(super) history: History,
    /// When the snapshot was taken.
    at: Instant,
    pub(super) mode: Mode,
    /// Workers that have nothing like it are left out.
    pub(super) filter: String,
    /// The slot that keys are about; it may have gone.
    pub(super) slot: u32,
    /// The first worker shown, where there are too many.
    pub(super) first: usize,
    pub(super) message: Option<Message>,
    asked: usize,
    pub(super) colours: bool,
}

impl App {
    pub(super) fn new(snapshot: Snapshot, colours: bool) -> Self {
        let mut history = History::default();
        history.add(&snapshot, std::time::Duration::ZERO);
        Self {
            slot: snapshot.workers.first().map_or(0, |worker| worker.slot),
            snapshot,
            history,
            at: Instant::now(),
            mode: Mode::Table,
            filter: String::new(),
            first: 0,
            message: None,
            asked: 0,
            colours,
        }
    }

    pub(super) fn on_status(&mut self, snapshot: Snapshot, at: Instant) {
        let elapsed = at.saturating_duration_since(self.at);
        self.history.add(&snapshot, elapsed);
        self.at = at;
        self.snapshot = snapshot;
    }

    /// The launcher has not answered; it may be about to.
    pub(super) fn on_silence(&mut self, failure: &Failure) {
        self.message = Some(Message::Bad(format!("{}: {}", failure.what, failure.why)));
    }

    pub(super) fn on_answer(&mut self, what: &str, answer: Result<(), Failure>) {
        self.asked = self.asked.saturating_sub(1);
        self.message = Some(match answer {
            Ok(()) => Message::Good(format!("{what}: done")),
            Err(Failure {
                what, why, hint, ..
            }) => Message::Bad(format!("{what}: {why} → {hint}")),
        });
    }

    /// The workers that the filter leaves.
    pub(super) fn workers(&self) -> Vec<&WorkerStatus> {
        let workers = self.snapshot.workers.iter();
        workers.filter(|worker| self.passes(worker)).collect()
    }

    fn passes(&self, worker: &WorkerStatus) -> bool {
        let needle = self.filter.as_str();
        let pid = worker.pid.map(|pid| pid.to_string());
        let said = worker.status_text.as_deref().unwrap_or_default();
        // A number is a whole slot: 1 is not 10.
        worker.slot.to_string() == needle
            || worker.state.contains(needle)
            || said.contains(needle)
            || pid.is_some_and(|pid| pid == needle)
    }

    pub(super) fn on_key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
        }
        match std::mem::replace(&mut self.mode, Mode::Table) {
            Mode::Table => self.on_table_key(key.code),
            Mode::Filter => {
                self.on_filter_key(key.code);
                None
            }
            Mode::Policies => {
                self.on_policy_key(key.code);
                None
            }
            Mode::Confirm(_, request) if key.code == KeyCode::Char('y') => self.ask(request),
            Mode::Confirm(..) => {
                self.message = Some(Message::Good("nothing was changed".to_owned()));
                None
            }
        }
    }

    fn on_table_key(&mut self, key: KeyCode) -> Option<Action> {
        let slot = self.slot;
        match key {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => {
                self.filter.clear();
                self.mode = Mode::Filter;
            }
            KeyCode::Char('p') => self.mode = Mode::Policies,
            KeyCode::Char('R') => self.confirm("reload all workers", Request::reload(None)),
            KeyCode::Char('d' | 'u' | 'r') if !self.workers().iter().any(|it| it.slot == slot) => {
                let why = "no slot is chosen: press Esc to see all of them";
                self.message = Some(Message::Bad(why.to_owned()));
            }
            KeyCode::Char('d') => return self.ask(Request::Drain { slot }),
            KeyCode::Char('u') => return self.ask(Request::Undrain { slot }),
            KeyCode::Char('r') => return self.ask(Request::Restart { slot }),
            _ => {}
        }
        None
    }

    fn on_filter_key(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => return self.select(0),
            KeyCode::Esc => return self.filter.clear(),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.mode = Mode::Filter;
    }

    fn on_policy_key(&mut self, key: KeyCode) {
        let KeyCode::Char(digit) = key else { return };
        let number = digit.to_digit(10).unwrap_or(0) as usize;
        let Some(policy) = number.checked_sub(1).and_then(|at| Policy::NAMES.get(at)) else {
            return;
        };
        let Snapshot { name, steering, .. } = &self.snapshot;
        let question = format!(
            "change the policy of {name} from {} to {policy}",
            steering.policy
        );
        let request = Request::Steer {
            policy: (*policy).to_owned(),
            udp: false,
        };
        self.confirm(&question, request);
    }

    fn confirm(&mut self, question: &str, request: Request) {
        self.mode = Mode::Confirm(format!("{question}? y/n"), request);
    }

    fn ask(&mut self, request: Request) -> Option<Action> {
        let what = shown(&request);
        if self.asked == ASKED_MAX {
            let why = format!("{what}: {ASKED_MAX} requests are under way already");
            self.message = Some(Message::Bad(why));
            return None;
        }
        self.asked += 1;
        self.message = Some(Message::Good(format!("{what}: under way")));
        Some(Action::Ask(what, request))
    }

    /// Goes so many slots down; 0: stays, or goes to the first where the present one is not shown.
    fn select(&mut self, by: isize) {
        let mut slots: Vec<u32> = self.workers().iter().map(|worker| worker.slot).collect();
        slots.dedup();
        let Some(last) = slots.len().checked_sub(1) else {
            return;
        };
        let at = slots.iter().position(|&slot| slot == self.slot);
        let to = at.map_or(0, |at| at.saturating_add_signed(by).min(last));
        self.slot = slots[to];
    }
}
