//! The commented example of a configuration file, made of what `--help` says.

use crate::cli::{Key, Kind, keys, variable};

/// The width of its comments.
const WIDTH: usize = 98;

const HEAD: &str = "\
A configuration of reuseport-launch: reuseport-launch run --config FILE

Every option of `run` is a key here, by its name. The command line comes before the environment
variable that is named with each, and that before this file. Relative paths are meant from this
file's directory. What is commented out below shows what is so by default, or how a value looks.
Check a changed file with `reuseport-launch check --config FILE`; `reload` brings it into force.
";

const COMMAND: &str =
    "The server to start, as you would start one copy of it; {slot} becomes the worker's slot";

const TABLES: &str = r#"
# ---- Tables: they stand behind all keys

# Variables for the workers, over those of env-file and over the launcher's own.
#[env]
#LOG_LEVEL = "info"

# Those of a set that is chosen by --env production come over them.
#[env.production]
#LOG_LEVEL = "warn"

# Several apps: a launcher for each, called by its table's name. Then `command`, `name`, `port`
# and `metrics` stand in these tables only; what stands at the top is for all apps that do not say
# otherwise.
#[app.web]
#command = ["node", "server.js"]
#port = 8080
#[app.web.env]
#ROLE = "web"
#[app.api]
#command = ["./api"]
#workers = 2
"#;

/// A file with every key commented out.
#[must_use]
pub fn example() -> String {
    let mut text = comment(HEAD.trim_end());
    text.push('\n');
    text.push_str(&comment(COMMAND));
    text.push_str("#command = [\"node\", \"server.js\"]\n");
    let mut heading = String::new();
    for key in keys() {
        if key.heading != heading {
            text.push_str(&format!("\n# ---- {}\n", key.heading));
            heading.clone_from(&key.heading);
        }
        text.push('\n');
        text.push_str(&comment(&about(&key)));
        text.push_str(&comment(&format!("Environment: {}", variable(&key.name))));
        text.push_str(&format!("#{} = {}\n", key.name, sample(&key)));
    }
    text.push_str(TABLES);
    text
}

/// What the help says, and how a value is written.
fn about(key: &Key) -> String {
    let values = match key.kind {
        Kind::Text | Kind::List => format!("\nValue: {}", key.value_name),
        Kind::Switch | Kind::Count => String::new(),
    };
    format!("{}{values}", key.help)
}

/// The default, or a value that could be.
fn sample(key: &Key) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    match (key.kind, &key.default) {
        (Kind::Switch | Kind::Count, Some(default)) => default.clone(),
        (Kind::Text, Some(default)) => match default.parse::<u64>() {
            Ok(number) => number.to_string(),
            Err(_) => quoted(default),
        },
        (Kind::List, _) => "[8080, \"53/udp\"]".to_owned(),
        (_, None) => match &*key.name {
            "user" | "group" => quoted("www-data"),
            "chdir" => quoted("/srv/shop/current"),
            "env-file" => quoted("shop.env"),
            "ipc" => quoted("node"),
            "steer" => quoted("round-robin"),
            "steer-udp" => quoted("hash"),
            "steer-object" => quoted("steer.o"),
            "health" => quoted("http:/health"),
            "max-connections" => "100000".to_owned(),
            "max-memory" => quoted("512M"),
            "metrics" => quoted("127.0.0.1:9100"),
            "log-file" => quoted("shop.log"),
            "max-age" => quoted("7d"),
            "name" => quoted("shop"),
            // A new option: the first of what it may be, and the test below says whether that is one.
            _ => quoted(key.value_name.split('|').next().unwrap_or_default()),
        },
    }
}

/// The lines of a text as comments; what is too long goes on in the next line.
fn comment(text: &str) -> String {
    let mut comment = String::new();
    for line in text.lines() {
        if line.chars().count() <= WIDTH {
            comment.push_str(format!("# {line}").trim_end());
        } else {
            let mut length = usize::MAX;
            for word in line.split_whitespace() {
                let count = word.chars().count() + 1;
                if length.saturating_add(count) > WIDTH {
                    comment.push_str(if length == usize::MAX { "#" } else { "\n#" });
                    length = 0;
                }
                comment.push(' ');
                comment.push_str(word);
                length += count;
            }
        }
        comment.push('\n');
    }
    comment
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::tests::config;

    #[test]
    fn every_option_has_a_key_a_variable_and_a_line() {
        let example = example();
        let example = example.split(TABLES).next().unwrap();
        let keys = keys();
        assert!(keys.len() > 30, "{}", keys.len());
        for key in &keys {
            let count = |line: String| example.lines().filter(|it| **it == line).count();
            let lines = example
                .lines()
                .filter(|it| it.starts_with(&format!("#{} = ", key.name)));
            assert_eq!(lines.count(), 1, "{}", key.name);
            assert_eq!(
                count(format!("# Environment: {}", variable(&key.name))),
                1,
                "{}",
                key.name
            );
            assert!(
                !key.help.is_empty() && !key.heading.is_empty(),
                "{}",
                key.name
            );
        }
    }

    /// The lines of `text` with some of them in force.
    fn with(text: &str, uncomment: impl Fn(&str) -> bool) -> String {
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with([' ', '-']) && uncomment(rest) => rest,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_line_of_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("example.toml");
        let line = format!("--config {}", path.display());
        fs::write(&path, example()).unwrap();
        let entries = config(&line, &[]).unwrap().apps.remove(0).entries;
        assert!(
            entries
                .iter()
                .all(|entry| entry.source == crate::config::Source::Default)
        );

        let all = example();
        let keys_only = all.split(TABLES).next().unwrap();
        let keys = keys();
        for key in keys.iter().map(|key| &*key.name).chain(["command"]) {
            let text = with(keys_only, |line| {
                // What an option can't stand without.
                let needed = [("health", "health = "), ("log-", "log-file = ")];
                needed
                    .iter()
                    .any(|(of, it)| key.starts_with(of) && line.starts_with(it))
                    || line.starts_with(&format!("{key} = "))
            });
            fs::write(&path, text).unwrap();
            let app = config(&line, &[])
                .unwrap_or_else(|failure| panic!("{failure}"))
                .apps
                .remove(0);
            let entry = app.entry(key).unwrap_or(&app.command);
            assert!(
                matches!(entry.source, crate::config::Source::File { .. }),
                "{key}"
            );
        }
        let tables = with(TABLES, |_| true);
        fs::write(&path, tables).unwrap();
        let apps = config(&format!("{line} --env production"), &[])
            .unwrap()
            .apps;
        let names: Vec<_> = apps
            .iter()
            .map(|app| app.name.as_deref().unwrap())
            .collect();
        assert_eq!(names, ["web", "api"]);
        assert_eq!(apps[0].variables[0].values, ["warn"]);
    }

    #[test]
    fn its_lines_are_not_long() {
        let example = example();
        let long = example.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None);
    }
}
