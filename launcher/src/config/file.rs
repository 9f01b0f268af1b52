//! The file of `--config`: which keys and tables it may have, and where it is wrong.
//!
//! ```toml
//! drain-timeout = "1m"              # of every app, unless it has its own
//! [env]                             # of the workers of every app
//! LOG_LEVEL = "info"
//! [env.production]                  # besides, with --env production
//! LOG_LEVEL = "warn"
//! [app.web]                         # one of several; with one only, its keys stand at the top
//! command = ["node", "server.js"]
//! [app.web.env]
//! PORT = 8080
//! ```

mod reader;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    directory, env_file,
    toml_values::{Mistake, Place},
};
use crate::{
    cli::{Key, PortSpec, Setting},
    failure::{Exit, Failure},
    scrape::Address,
    sys::runtime::Name,
};

/// How alike a known word has to be to be the one that was meant: clap's own threshold.
const ALIKE: f64 = 0.7;

/// What a file says, checked as far as it can be without the rest of the options.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct File {
    /// Absolute.
    pub(super) path: PathBuf,
    /// What stands at the top: the only app's, or common to all.
    pub(super) top: Table,
    /// `[app.NAME]`, in the order of the file.
    pub(super) apps: Vec<Table>,
}

/// The keys of one app, or those common to all.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    /// What the app is called; empty at the top.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) settings: Vec<Placed>,
    pub(super) command: Option<Command>,
    /// `[env]`.
    pub(super) env: Vec<Variable>,
    /// `[env.NAME]`.
    pub(super) sets: Vec<(String, Vec<Variable>)>,
}

/// An option.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Placed {
    pub(super) setting: Setting,
    pub(super) place: Place,
}

/// A command and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    pub(super) words: Vec<OsString>,
    pub(super) place: Place,
}

/// A variable for the workers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) place: Place,
}

impl File {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it can't be read, or with all that is wrong in it, with [`Exit::Config`].
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let path = directory::current()?.join(path);
        let unreadable = |why: String| {
            let what = format!("cannot use the configuration {}", path.display());
            let hint = "name a TOML file that can be read (--config)";
            Failure::new(what, why, hint).exit(Exit::Config)
        };
        let bytes = env_file::read_bytes(&path).map_err(|error| unreadable(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            unreadable(format!("{}: it is not UTF-8", Place::of(&text, valid)))
        })?;
        Self::parse(&path, &text).map_err(|mistakes| refused(&path, &mistakes))
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Vec<Mistake>> {
        let table = DeTable::parse(text).map_err(|error| {
            let place = Place::of(text, error.span().map_or(0, |span| span.start));
            // It may have several lines, of which the others show the place.
            let why = error.message().trim().replace('\n', ", ");
            vec![Mistake { place, why }]
        })?;
        let base = path.parent().unwrap_or(Path::new("/"));
        let (top, apps, mistakes) = reader::read(text, base, table.get_ref());
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            path: path.to_owned(),
            top,
            apps,
        })
    }

    /// The failure of a key that is wrong together with others.
    pub(super) fn refuse(&self, place: Place, why: String) -> Failure {
        refused(&self.path, &[Mistake { place, why }])
    }

    /// What a launcher is called whose command stands in the file, unless that says something else.
    pub(super) fn default_name(&self) -> String {
        Name::of_command(self.path.file_stem().unwrap_or_default()).to_string()
    }

    /// The names of all `[env.NAME]`, sorted.
    pub(super) fn sets(&self) -> BTreeSet<&str> {
        let tables = self.apps.iter().chain([&self.top]);
        let sets = tables.flat_map(|table| table.sets.iter());
        sets.map(|(name, _)| name.as_str()).collect()
    }
}

fn refused(path: &Path, mistakes: &[Mistake]) -> Failure {
    let lines = mistakes
        .iter()
        .map(|Mistake { place, why }| format!("{place}: {why}"));
    Failure::new(
        format!("cannot use the configuration {}", path.display()),
        lines.collect::<Vec<_>>().join("\n    "),
        "correct it; `reuseport-launch print-config --example` shows all keys",
    )
    .exit(Exit::Config)
}

/// One of `known` that is spelled alike, as the end of a sentence.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    // In one or two letters anything is alike.
    let known = known.into_iter().filter(|_| word.chars().count() > 2);
    let alike = known
        .into_iter()
        .map(|known| (strsim::jaro(word, known), known));
    let best = alike.filter(|(score, _)| *score > ALIKE);
    match best.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((_, known)) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

/// Whether two options exclude each other.
pub(super) fn conflict(keys: &[Key], one: &str, other: &str) -> bool {
    let excludes = |one: &str, other: &str| {
        let key = keys.iter().find(|key| key.name == one);
        key.is_some_and(|key| key.conflicts.iter().any(|conflict| conflict == other))
    };
    excludes(one, other) || excludes(other, one)
}

impl Table {
    /// What the launcher of this app is called, and where that is said.
    fn launcher(&self) -> (String, Place) {
        match self
            .settings
            .iter()
            .find(|placed| placed.setting.key == "name")
        {
            Some(Placed { setting, place }) => {
                let name = setting
                    .values
                    .first()
                    .map(|name| name.to_string_lossy().into_owned());
                (name.unwrap_or_default(), *place)
            }
            None => (self.name.clone(), self.place),
        }
    }

    /// Where its metrics are, and where that is said.
    fn metrics(&self) -> Option<(Address, Place)> {
        let mut settings = self.settings.iter();
        let placed = settings.find(|placed| placed.setting.key == "metrics")?;
        let value = placed.setting.values.first()?.to_str()?;
        Some((value.parse().ok()?, placed.place))
    }

    fn ports(&self) -> Vec<(PortSpec, Place)> {
        let ports = self
            .settings
            .iter()
            .filter(|placed| placed.setting.key == "port");
        let values = ports.flat_map(|placed| {
            placed
                .setting
                .values
                .iter()
                .map(|value| (value, placed.place))
        });
        let known =
            values.filter_map(|(value, place)| Some((value.to_str()?.parse().ok()?, place)));
        known.collect()
    }
}
