//! What is given to the process that starts: its command line and its environment.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use super::file::Table;
use crate::{
    cli::{Key, Kind, Run, Selection, Setting, WORKERS_VARIABLE, keys, variable},
    failure::{Exit, Failure},
};

/// What was given to this process: all that a configuration is made of but the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub(super) settings: Vec<Setting>,
    pub(super) selection: Selection,
    pub(super) command: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
}

impl Given {
    /// What the command line has for `options`, of which `settings` were given, in this environment.
    pub fn new(
        options: &Run,
        settings: Vec<Setting>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        // Of a name that is there twice, `getenv` finds the first one.
        let mut variables = BTreeMap::new();
        for (name, value) in environment {
            variables.entry(name).or_insert(value);
        }
        // Empty is as good as unset.
        variables.retain(|_, value: &mut OsString| !value.is_empty());
        Self {
            settings,
            selection: options.selection.clone(),
            command: options.command.clone(),
            environment: variables,
        }
    }

    fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
    }

    /// `--config`, `--env` and `--app`, or their variables.
    pub(super) fn selection(&self) -> Selection {
        let Selection { config, env, app } = self.selection.clone();
        let text = |name: &str| {
            self.variable(name)
                .map(|value| value.to_string_lossy().into_owned())
        };
        Selection {
            config: config.or_else(|| self.variable("REUSEPORT_LAUNCH_CONFIG").map(PathBuf::from)),
            env: env.or_else(|| text("REUSEPORT_LAUNCH_ENV")),
            app: app.or_else(|| text("REUSEPORT_LAUNCH_APP")),
        }
    }

    /// What the environment has for an option, and by which variable. A launcher that is itself a
    /// worker was told its launcher's number of workers, by a variable of the same name.
    pub(super) fn of_environment(&self, key: &Key) -> Option<(String, Setting)> {
        let own = variable(&key.name);
        let is_workers = key.name == "workers";
        let told = is_workers && self.variable("REUSEPORT_LAUNCH_SLOT").is_some();
        let found = self
            .variable(&own)
            .filter(|_| !told)
            .map(|value| (own, value));
        let other = || {
            let value = self.variable(WORKERS_VARIABLE).filter(|_| is_workers)?;
            Some((WORKERS_VARIABLE.to_owned(), value))
        };
        let (name, value) = found.or_else(other)?;
        let values = match (key.kind, value.to_str()) {
            (Kind::List, Some(text)) => text.split(',').map(|part| part.trim().into()).collect(),
            (Kind::Switch, Some("1")) => vec!["true".into()],
            (Kind::Switch, Some("0")) => vec!["false".into()],
            _ => vec![value.to_owned()],
        };
        let key = key.name.clone();
        Some((name, Setting { key, values }))
    }

    /// Refuses what can't be meant for several apps at once.
    pub(super) fn check_common(&self, apps: &[&Table]) -> Result<(), Failure> {
        let keys = keys();
        let is_given = |name: &str| {
            let flag = self.settings.iter().any(|setting| setting.key == name);
            let key = keys.iter().find(|key| key.name == name);
            flag || key.and_then(|key| self.of_environment(key)).is_some()
        };
        let found = ["name", "port", "metrics"]
            .into_iter()
            .find(|name| is_given(name));
        let found = found.map(|name| format!("--{name}"));
        let command = (!self.command.is_empty()).then(|| "a command".to_owned());
        let Some(what) = found.or(command) else {
            return Ok(());
        };
        let names: Vec<&str> = apps.iter().map(|app| &*app.name).collect();
        Err(Failure::new(
            format!("cannot give several apps {what}"),
            format_args!("the file has {}", names.join(", ")),
            "say for which one: --app NAME, or write it into the file",
        )
        .exit(Exit::Usage))
    }
}
