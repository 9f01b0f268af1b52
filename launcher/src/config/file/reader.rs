//! From the tables of TOML to those of a file, with all that is wrong on the way.

use std::{borrow::Cow, ffi::OsString, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Command, Placed, Table, Variable, conflict, did_you_mean};
use crate::{
    cli::{self, Key, Kind, Setting, check_setting, keys},
    config::{
        env_file,
        toml_values::{Mistake, Place, Value, count, elements, expected, switch, text, variable},
    },
    sys::runtime::Name,
};

/// The keys that are no options.
const COMMAND: &str = "command";
const ENV: &str = "env";
const APP: &str = "app";

/// What several apps can't have in common.
const OF_ONE_APP: [&str; 4] = ["command", "name", "port", "metrics"];

/// Reads the tables of a file; relative paths are meant from `base`. The top, the apps in their order, and
/// all mistakes.
pub(super) fn read(
    text: &str,
    base: &Path,
    table: &DeTable<'_>,
) -> (Table, Vec<Table>, Vec<Mistake>) {
    let mut reader = Reader {
        text,
        base,
        keys: keys(),
        mistakes: Vec::new(),
    };
    let mut apps = Vec::new();
    let start = Place { line: 1, column: 1 };
    let top = reader.table("", start, table, Some(&mut apps));
    apps.sort_by_key(|app| app.place);
    reader.compare(&top, &apps);
    let mut mistakes = reader.mistakes;
    mistakes.sort_by_key(|mistake| mistake.place);
    (top, apps, mistakes)
}

struct Reader<'t> {
    text: &'t str,
    /// What relative paths are meant from.
    base: &'t Path,
    keys: Vec<Key>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: usize, why: impl Into<String>) {
        let place = Place::of(self.text, at);
        let why = why.into();
        self.mistakes.push(Mistake { place, why });
    }

    /// Reads a table; `apps` takes those that are in it, where there may be any.
    fn table(
        &mut self,
        name: &str,
        place: Place,
        table: &DeTable<'_>,
        mut apps: Option<&mut Vec<Table>>,
    ) -> Table {
        let mut read = Table {
            name: name.to_owned(),
            place,
            settings: Vec::new(),
            command: None,
            env: Vec::new(),
            sets: Vec::new(),
        };
        for (key, value) in table {
            let at = key.span().start;
            let place = Place::of(self.text, at);
            match (key.get_ref().as_ref(), &mut apps) {
                (COMMAND, _) => read.command = self.command(value, place),
                (ENV, _) => self.env(value, &mut read),
                (APP, Some(apps)) => self.apps(value, apps),
                (word, _) => match self.keys.iter().position(|key| key.name == word) {
                    Some(number) => read.settings.extend(self.setting(number, value, place)),
                    None => self.unknown(at, word),
                },
            }
        }
        read.settings.sort_by_key(|placed| placed.place);
        self.check_conflicts(&read);
        read
    }

    fn unknown(&mut self, at: usize, word: &str) {
        let known = self.keys.iter().map(|key| key.name.as_str());
        let why = match word {
            "config" | "runtime-dir" => format!(
                "`{word}` can't stand in the file: use --{word}, or the environment variable {}",
                cli::variable(word)
            ),
            APP => "an app can't have apps of its own".to_owned(),
            _ => {
                let known = known.chain([COMMAND, ENV, APP]);
                format!("unknown key `{word}`{}", did_you_mean(word, known))
            }
        };
        self.wrong(at, why);
    }

    fn setting(&mut self, number: usize, value: &Value<'_>, place: Place) -> Option<Placed> {
        let Key {
            name, kind, path, ..
        } = self.keys.get(number)?.clone();
        let elements = match kind {
            Kind::List => elements(value),
            Kind::Text | Kind::Switch | Kind::Count => vec![(value.span(), value.get_ref())],
        };
        let mut values = Vec::new();
        let faults = self.mistakes.len();
        for (span, element) in elements {
            let written = match kind {
                Kind::Text | Kind::List => text(element, !path),
                Kind::Switch => switch(element),
                Kind::Count => count(element, 2),
            };
            let checked = written
                .map_err(|why| format!("`{name}`: {why}"))
                .and_then(|value| {
                    let key = name.clone();
                    let values = vec![value.clone().into()];
                    check_setting(&Setting { key, values })?;
                    Ok(value)
                });
            match checked {
                Ok(value) if path => values.push(self.base.join(value).into_os_string()),
                Ok(value) => values.push(match value.strip_prefix("unix:") {
                    Some(path) if name == "metrics" => {
                        let mut value = OsString::from("unix:");
                        value.push(self.base.join(path));
                        value
                    }
                    _ => value.into(),
                }),
                Err(why) => self.wrong(span.start, why),
            }
        }
        let setting = Setting { key: name, values };
        (faults == self.mistakes.len()).then_some(Placed { setting, place })
    }

    fn command(&mut self, value: &Value<'_>, place: Place) -> Option<Command> {
        const EXAMPLE: &str = "such as [\"node\", \"server.js\"]";
        let at = value.span().start;
        let DeValue::Array(array) = value.get_ref() else {
            let why = expected("an array of strings", value.get_ref());
            self.wrong(at, format!("`{COMMAND}`: {why}: {EXAMPLE}"));
            return None;
        };
        let mut words = Vec::new();
        for element in array {
            match text(element.get_ref(), false) {
                Ok(word) => words.push(word.into()),
                Err(why) => self.wrong(element.span().start, format!("`{COMMAND}`: {why}")),
            }
        }
        if array.is_empty()
            || words
                .first()
                .is_some_and(|program: &OsString| program.is_empty())
        {
            self.wrong(
                at,
                format!("`{COMMAND}`: there is no program in it: {EXAMPLE}"),
            );
            return None;
        }
        Some(Command { words, place })
    }

    fn env(&mut self, value: &Value<'_>, read: &mut Table) {
        let DeValue::Table(table) = value.get_ref() else {
            let why = expected("a table", value.get_ref());
            self.wrong(value.span().start, format!("`{ENV}`: {why}: [env]"));
            return;
        };
        for (name, value) in table {
            match value.get_ref() {
                DeValue::Table(set) => {
                    let variables = set
                        .iter()
                        .filter_map(|(name, value)| self.variable(name, value));
                    read.sets
                        .push((name.get_ref().to_string(), variables.collect()));
                }
                _ => read.env.extend(self.variable(name, value)),
            }
        }
    }

    fn variable(&mut self, name: &Spanned<Cow<'_, str>>, value: &Value<'_>) -> Option<Variable> {
        let at = name.span().start;
        let name = name.get_ref().as_ref();
        if !env_file::is_name(name.as_bytes()) {
            let why = match self.keys.iter().any(|key| key.name == name) {
                true => "options stand before the first [table]",
                false => "allowed: letters, digits and _, the first no digit",
            };
            self.wrong(at, format!("`{name}` is no variable's name; {why}"));
            return None;
        }
        match variable(value.get_ref()) {
            Ok(value) => Some(Variable {
                name: name.to_owned(),
                value,
                place: Place::of(self.text, at),
            }),
            Err(why) => {
                // The span of a table is where its keys are.
                let at = match value.get_ref() {
                    DeValue::Table(_) => at,
                    _ => value.span().start,
                };
                self.wrong(at, format!("the variable `{name}`: {why}"));
                None
            }
        }
    }

    fn apps(&mut self, value: &Value<'_>, apps: &mut Vec<Table>) {
        let DeValue::Table(table) = value.get_ref() else {
            let why = expected("a table", value.get_ref());
            self.wrong(value.span().start, format!("`{APP}`: {why}: [app.web]"));
            return;
        };
        for (key, value) in table {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            if let Err(why) = name.parse::<Name>() {
                self.wrong(at, format!("an app can't be called `{name}`: {why}"));
            }
            match value.get_ref() {
                DeValue::Table(table) => {
                    let place = Place::of(self.text, at);
                    let app = self.table(name, place, table, None);
                    apps.push(app);
                }
                other => {
                    let why = expected("a table", other);
                    self.wrong(at, format!("`{APP}.{name}`: {why}: [app.{name}]"));
                }
            }
        }
    }

    /// Whether two keys of one table exclude each other.
    fn check_conflicts(&mut self, table: &Table) {
        for (number, later) in table.settings.iter().enumerate() {
            for earlier in table.settings.iter().take(number) {
                let (one, other) = (&earlier.setting.key, &later.setting.key);
                if conflict(&self.keys, one, other) {
                    let line = earlier.place.line;
                    self.mistakes.push(Mistake {
                        place: later.place,
                        why: format!("`{other}` can't be set together with `{one}` (line {line})"),
                    });
                }
            }
        }
    }

    /// Whether what stands in several tables goes together.
    fn compare(&mut self, top: &Table, apps: &[Table]) {
        if apps.is_empty() {
            return;
        }
        let settings = top
            .settings
            .iter()
            .map(|placed| (&*placed.setting.key, placed.place));
        let command = top.command.iter().map(|command| (COMMAND, command.place));
        for (key, place) in settings.chain(command) {
            if OF_ONE_APP.contains(&key) {
                let why = format!("each app has a `{key}` of its own: write it below [app.NAME]");
                self.mistakes.push(Mistake { place, why });
            }
        }
        for (number, app) in apps.iter().enumerate() {
            for earlier in apps.iter().take(number) {
                self.compare_apps(earlier, app);
            }
        }
    }

    fn compare_apps(&mut self, earlier: &Table, later: &Table) {
        let (one, place) = later.launcher();
        if one == earlier.launcher().0 {
            let why = format!("the app {} is called {one:?}, too", earlier.name);
            self.mistakes.push(Mistake { place, why });
        }
        if let (Some((one, place)), Some((other, at))) = (later.metrics(), earlier.metrics())
            && one == other
        {
            let (app, line) = (&earlier.name, at.line);
            let why = format!("metrics of the app {app} are on {one}, too (line {line})");
            self.mistakes.push(Mistake { place, why });
        }
        for (port, place) in later.ports() {
            if let Some((_, at)) = earlier.ports().iter().find(|(other, _)| *other == port) {
                let (app, line) = (&earlier.name, at.line);
                let why = format!("the port {port} is that of the app {app} (line {line})");
                self.mistakes.push(Mistake { place, why });
            }
        }
    }
}
