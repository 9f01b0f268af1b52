//! What a reload changes when the file has become another one: what can be, and what needs a restart.

use super::{
    Plan,
    layers::{App, Entry},
};

/// The options that hold for as long as a launcher runs: where it is found, who its workers are, how their sockets
/// are shared, and its own messages.
const FIXED: [&str; 18] = [
    "pin",
    "user",
    "group",
    "ipc",
    "steer-object",
    "udp-flow-timeout",
    "udp-flows",
    "port",
    "no-hold",
    "ready",
    "name",
    "metrics",
    "log-format",
    "log-lines",
    "log-file",
    "log-max-size",
    "log-keep",
    "verbose",
];

/// How much of a value is told, in characters.
const VALUE_MAX: usize = 60;

/// What is different in another configuration of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What a reload brings into force.
    pub live: Vec<Change>,
    /// What needs a restart.
    pub restart: Vec<Change>,
}

/// A key that has another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The option, `command`, or `env.NAME`.
    pub key: String,
    /// As it was; `None`: not set, or not to be told because it may be secret.
    pub from: Option<String>,
    /// As it is in the file by now; as above.
    pub to: Option<String>,
}

impl Changes {
    /// Whether this option has changed and can be had.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.live.iter().any(|change| change.key == key)
    }
}

impl App {
    /// What `next` has otherwise than this one.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Changes {
        let mut changes = Changes::default();
        let value = |entry: &Entry| {
            let values = entry.values.iter().map(|value| value.to_string_lossy());
            let text = values.collect::<Vec<_>>().join(" ");
            (!entry.values.is_empty()).then(|| shorten(&text))
        };
        // Where an object steers, no policy does.
        let object = |app: &Self| {
            app.entry("steer-object")
                .is_some_and(|entry| !entry.values.is_empty())
        };
        let steered_by_object = object(self) || object(next);
        let old = [&self.command].into_iter().chain(&self.entries);
        let new = [&next.command].into_iter().chain(&next.entries);
        for (old, new) in old.zip(new).filter(|(old, new)| old.values != new.values) {
            let key = old.key.clone();
            let fixed = FIXED.contains(&&*key) || (key == "steer" && steered_by_object);
            let change = Change {
                key,
                from: value(old),
                to: value(new),
            };
            match fixed {
                true => changes.restart.push(change),
                false => changes.live.push(change),
            }
        }
        changes
            .live
            .extend(changed_variables(&self.variables, &next.variables));
        changes
    }

    /// `next` as far as it comes into force while the launcher runs.
    #[must_use]
    pub fn followed_by(&self, mut next: Self) -> Self {
        let restart = self.changes(&next).restart;
        let keys: Vec<&str> = restart.iter().map(|change| &*change.key).collect();
        next.keep(&keys, self);
        next
    }

    /// Has these options as `old` has them.
    pub fn keep(&mut self, keys: &[&str], old: &Self) {
        for entry in &mut self.entries {
            if keys.contains(&&*entry.key)
                && let Some(old) = old.entry(&entry.key)
            {
                *entry = old.clone();
            }
        }
    }
}

/// For one line of a log: a command may contain a whole program.
fn shorten(text: &str) -> String {
    let mut letters = text.chars().map(|letter| match letter.is_control() {
        true => ' ',
        false => letter,
    });
    let mut short: String = letters.by_ref().take(VALUE_MAX).collect();
    if letters.next().is_some() {
        short.push('…');
    }
    short
}

/// Their names only: a log is no place for passwords.
fn changed_variables(old: &[Entry], new: &[Entry]) -> Vec<Change> {
    let value = |entries: &[Entry], name: &str| {
        let found = entries.iter().find(|entry| entry.key == name);
        found.map(|entry| entry.values.clone())
    };
    let mut names: Vec<&str> = old.iter().chain(new).map(|entry| &*entry.key).collect();
    names.sort_unstable();
    names.dedup();
    let changed = names
        .into_iter()
        .filter(|name| value(old, name) != value(new, name));
    let changes = changed.map(|name| Change {
        key: format!("env.{name}"),
        from: None,
        to: None,
    });
    changes.collect()
}

impl Plan {
    /// `next` as far as it comes into force at the start of a reload. The policies and the number of
    /// workers are brought into force when that is done.
    #[must_use]
    pub fn followed_by(&self, next: Self) -> Self {
        let Self {
            name,
            command: _,
            directory: _,
            env_file: _,
            variables: _,
            workers,
            workers_reason,
            policies,
            steer_object,
            udp_flow_timeout,
            udp_flows,
            ports,
            hold,
            pinning,
            cpus,
            ready,
            ready_timeout: _,
            health: _,
            stall_timeout: _,
            drain_timeout: _,
            max_surge: _,
            recycle: _,
            ipc_node,
            stop_signal: _,
            stop_timeout: _,
            identity,
            metrics,
            log_format,
            output,
            verbose,
        } = self.clone();
        Self {
            name,
            workers,
            workers_reason,
            policies,
            steer_object,
            udp_flow_timeout,
            udp_flows,
            ports,
            hold,
            pinning,
            cpus,
            ready,
            ipc_node,
            identity,
            metrics,
            log_format,
            output,
            verbose,
            ..next
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{cli::keys, config::tests::config};

    /// The options that a running launcher takes over when it reloads.
    const LIVE: [&str; 18] = [
        "workers",
        "chdir",
        "env-file",
        "steer",
        "steer-udp",
        "ready-timeout",
        "health",
        "health-interval",
        "health-timeout",
        "health-threshold",
        "stall-timeout",
        "drain-timeout",
        "max-surge",
        "max-connections",
        "max-memory",
        "max-age",
        "stop-signal",
        "stop-timeout",
    ];

    #[test]
    fn it_is_known_of_every_option_whether_it_can_change() {
        for key in keys() {
            let known = |list: &[&str]| list.contains(&&*key.name);
            assert!(known(&LIVE) != known(&FIXED), "{}", key.name);
        }
    }

    #[test]
    fn changes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.toml");
        let app = |text: &str| {
            fs::write(&path, text).unwrap();
            let config = config(&format!("--config {} --max-surge 2", path.display()), &[]);
            config.unwrap().apps.remove(0)
        };
        let old = app("command = ['true']\nport = 80\nstop-timeout = '1s'\n[env]\nA = 1\nB = 1\n");
        let new = app(
            "command = ['true', 'x']\nport = 81\nmax-surge = 9\nworkers = 2\nstop-timeout = '1s'\n\
             verbose = 1\n[env]\nA = 2\nC = 1\n",
        );
        let changes = old.changes(&new);
        let shown = |changes: &[Change]| {
            let shown = changes.iter().map(|Change { key, from, to }| {
                let value = |value: &Option<String>| value.clone().unwrap_or_default();
                format!("{key} {}>{}", value(from), value(to))
            });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&changes.live),
            [
                "command true>true x",
                "workers auto>2",
                "env.A >",
                "env.B >",
                "env.C >"
            ]
        );
        assert_eq!(shown(&changes.restart), ["port 80>81", "verbose 0>1"]);
        let followed = old.followed_by(new.clone());
        assert_eq!(old.changes(&followed).restart, []);
        assert_eq!(followed.changes(&new).live, []);
        assert_eq!(
            shown(&followed.changes(&new).restart),
            ["port 80>81", "verbose 0>1"]
        );
        assert_eq!(old.changes(&old.clone()), Changes::default());

        let (before, after) = (old.plan().unwrap(), new.plan().unwrap());
        let plan = before.followed_by(after.clone());
        assert_eq!(
            (&plan.command, &plan.variables),
            (&after.command, &after.variables)
        );
        assert_eq!((&plan.ports, plan.workers), (&before.ports, before.workers));
    }

    #[test]
    fn a_long_value_is_told_in_short() {
        assert_eq!(shorten("python3 -c a\nb"), "python3 -c a b");
        let long = shorten(&"x".repeat(100));
        assert_eq!(long, format!("{}…", "x".repeat(60)));
    }

    #[test]
    fn where_an_object_steers_the_policy_needs_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.toml");
        let app = |text: &str| {
            fs::write(&path, text).unwrap();
            config(&format!("--config {} -- true", path.display()), &[])
                .unwrap()
                .apps
                .remove(0)
        };
        let changes = app("steer-object = 'a.o'").changes(&app("steer = 'hash'"));
        let keys: Vec<&str> = changes.restart.iter().map(|change| &*change.key).collect();
        assert_eq!(
            (keys, changes.live),
            (vec!["steer", "steer-object"], vec![])
        );
    }
}
