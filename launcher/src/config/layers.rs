//! The command line over the environment over the file over what is so by default; and where each
//! value comes from.

mod merge;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::merge::{Laid, check_needs, from_above, unfitting, variables};
use super::{
    Given, Plan,
    file::{File, Table, did_you_mean},
};
use crate::{
    cli::{LogFormat, Run, Selection, Setting, keys, options},
    failure::{Exit, Failure},
};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An option of the command line.
    Flag,
    /// The environment variable of this name.
    Variable(String),
    /// The configuration file.
    File {
        /// Absolute.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// Nobody has set it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A key, its value and where that comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The option's name, `command`, or that of a variable for the workers.
    pub key: String,
    /// Empty: not set, and nothing is so by default.
    pub values: Vec<OsString>,
    /// Where they come from.
    pub source: Source,
}

/// What is in force for one launcher.
#[derive(Clone, Debug)]
pub struct App {
    /// What the file calls it; `None` where there is only one.
    pub name: Option<String>,
    /// Every option, in the order of the help.
    pub entries: Vec<Entry>,
    /// What to run; without values if nobody says.
    pub command: Entry,
    /// What the workers find in their environment because the file says so, sorted.
    pub variables: Vec<Entry>,
    /// The file, absolute.
    pub file: Option<PathBuf>,
    options: Run,
    given: Arc<Given>,
}

/// All that was configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, absolute.
    pub file: Option<PathBuf>,
    /// One, or those of the file; never empty.
    pub apps: Vec<App>,
    given: Arc<Given>,
}

impl Config {
    /// Reads the file, if there is one, and lays all that was given over it.
    ///
    /// # Errors
    /// When the file, a variable, or what they come to together is wrong.
    pub fn read(given: Given) -> Result<Self, Failure> {
        let given = Arc::new(given);
        let Selection { config, env, app } = given.selection();
        let Some(path) = config else {
            let useless = [("--env", env), ("--app", app)];
            if let Some((option, Some(name))) = useless.into_iter().find(|(_, name)| name.is_some())
            {
                let what = format!("cannot use {option} {name}");
                let why = "no configuration file is named in which it could be";
                return Err(
                    Failure::new(what, why, "name the file, too: --config FILE").exit(Exit::Usage)
                );
            }
            let apps = vec![App::lay(&given, None, &[], None)?];
            return Ok(Self {
                file: None,
                apps,
                given,
            });
        };
        let file = File::read(&path)?;
        let chosen = choose(&file, app.as_deref())?;
        if let Some(set) = &env
            && !file.sets().contains(set.as_str())
        {
            return Err(no_such("env", set, file.sets().into_iter(), &file));
        }
        if chosen.len() > 1 {
            given.check_common(&chosen)?;
        }
        let lay = |app: &Table| App::lay(&given, Some(&file), &[app, &file.top], env.as_deref());
        let apps = match file.apps.is_empty() {
            true => vec![App::lay(&given, Some(&file), &[&file.top], env.as_deref())?],
            false => chosen.into_iter().map(lay).collect::<Result<_, _>>()?,
        };
        let file = Some(file.path);
        Ok(Self { file, apps, given })
    }
}

impl Config {
    /// The same, as the file has it by now.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn reread(&self) -> Result<Self, Failure> {
        Self::read(Given::clone(&self.given))
    }
}

impl Config {
    /// How our own messages are written, and how many more than usual: as the first app has it.
    #[must_use]
    pub fn log(&self) -> (LogFormat, u8) {
        let first = self.apps.first().map(|app| &app.options);
        first.map_or((LogFormat::Auto, 0), |options| {
            (options.log_format, options.verbose)
        })
    }
}

/// The apps that are meant; none where the file has none.
fn choose<'f>(file: &'f File, app: Option<&str>) -> Result<Vec<&'f Table>, Failure> {
    let Some(name) = app else {
        return Ok(file.apps.iter().collect());
    };
    let found: Vec<_> = file.apps.iter().filter(|app| app.name == name).collect();
    match found.is_empty() {
        true => Err(no_such(
            "app",
            name,
            file.apps.iter().map(|app| &*app.name),
            file,
        )),
        false => Ok(found),
    }
}

fn no_such<'n>(
    table: &str,
    name: &str,
    known: impl Iterator<Item = &'n str>,
    file: &File,
) -> Failure {
    let known: Vec<&str> = known.collect();
    let alike = did_you_mean(name, known.iter().copied());
    let hint = match known.is_empty() {
        true => format!("add a table [{table}.{name}], or leave --{table} out"),
        false => format!("there are: {}", known.join(", ")),
    };
    Failure::new(
        format!("cannot use --{table} {name}"),
        format_args!(
            "{} has no table [{table}.{name}]{alike}",
            file.path.display()
        ),
        hint,
    )
    .exit(Exit::Config)
}

impl App {
    /// Lays the layers over each other: what was given, and `tables` of the file, the first on top.
    fn lay(
        given: &Arc<Given>,
        file: Option<&File>,
        tables: &[&Table],
        set: Option<&str>,
    ) -> Result<Self, Failure> {
        let keys = keys();
        let mut laid = from_above(given, file, tables, &keys)?;
        check_needs(&mut laid, &keys, file)?;
        let path = file.map(|file| file.path.clone());
        let in_file = |line: usize| match &path {
            Some(path) => Source::File {
                path: path.clone(),
                line,
            },
            None => Source::Default,
        };
        let written = tables.iter().find_map(|table| table.command.as_ref());
        let command = match written {
            _ if !given.command.is_empty() => (given.command.clone(), Source::Flag),
            Some(command) => (command.words.clone(), in_file(command.place.line)),
            None => (Vec::new(), Source::Default),
        };
        let is_named = laid.iter().any(|laid| laid.setting.key == "name");
        let of_file = file.filter(|_| !is_named && written.is_some() && given.command.is_empty());
        let name = match tables {
            // What an app is called, unless something else is said.
            [app, _] if !is_named => Some((app.name.clone(), in_file(app.place.line))),
            // A name that stays when the command becomes another one.
            _ => of_file.map(|file| (file.default_name(), Source::Default)),
        };
        if let Some((name, source)) = name {
            laid.push(Laid {
                setting: Setting {
                    key: "name".to_owned(),
                    values: vec![name.into()],
                },
                source,
                layer: usize::MAX,
                place: None,
            });
        }
        let settings: Vec<Setting> = laid.iter().map(|laid| laid.setting.clone()).collect();
        let options = options(&settings, &command.0).map_err(|error| unfitting(&error))?;
        let entries = keys.into_iter().map(|key| {
            match laid.iter().find(|laid| laid.setting.key == key.name) {
                Some(laid) => Entry {
                    key: key.name,
                    values: laid.setting.values.clone(),
                    source: laid.source.clone(),
                },
                None => Entry {
                    key: key.name,
                    values: key.default.map(OsString::from).into_iter().collect(),
                    source: Source::Default,
                },
            }
        });
        Ok(Self {
            name: tables
                .first()
                .map(|table| table.name.clone())
                .filter(|name| !name.is_empty()),
            entries: entries.collect(),
            command: Entry {
                key: "command".to_owned(),
                values: command.0,
                source: command.1,
            },
            variables: variables(tables, set, in_file),
            file: path.clone(),
            options,
            given: Arc::clone(given),
        })
    }

    /// What to run: checked against this machine.
    ///
    /// # Errors
    /// What can't be done here, with the exit code for it.
    pub fn plan(&self) -> Result<Plan, Failure> {
        if let (true, Some(file)) = (self.command.values.is_empty(), &self.file) {
            let of = self
                .name
                .as_ref()
                .map_or_else(String::new, |name| format!(" for the app {name}"));
            return Err(Failure::new(
                "nothing to run",
                format_args!(
                    "neither the command line nor {} has a command{of}",
                    file.display()
                ),
                "write it into the file: command = [\"node\", \"server.js\"]",
            )
            .exit(Exit::Config));
        }
        let variables = self.variables.iter().map(|Entry { key, values, .. }| {
            (key.into(), values.first().cloned().unwrap_or_default())
        });
        Plan::new(self.options.clone(), variables.collect()).map_err(|failure| {
            match (&self.file, failure.exit) {
                // Some of it is the file's, or all.
                (Some(_), Exit::Usage) => failure.exit(Exit::Config),
                _ => failure,
            }
        })
    }

    /// The same app, as the file has it by now.
    ///
    /// # Errors
    /// As [`Config::read`]; also when the app is gone from the file.
    pub fn reread(&self) -> Result<Self, Failure> {
        let gone = |path: &Path, why: &str| {
            Failure::new(
                format!("cannot use the configuration {}", path.display()),
                why,
                "correct it, or start the launcher anew",
            )
            .exit(Exit::Config)
        };
        let path = self.file.as_deref().unwrap_or(Path::new(""));
        if self.name.is_none() && self.file.is_some() && !File::read(path)?.apps.is_empty() {
            let why =
                "it has tables [app.NAME] by now, and had none when this launcher was started";
            return Err(gone(path, why));
        }
        let mut given = Given::clone(&self.given);
        given.selection.app.clone_from(&self.name);
        let apps = Config::read(given)?.apps;
        let same = apps.into_iter().find(|app| app.name == self.name);
        same.ok_or_else(|| gone(path, "the app of this launcher is not in it any more"))
    }

    /// An option by its name.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}
