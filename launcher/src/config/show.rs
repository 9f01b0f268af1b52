//! What `print-config` prints.

use std::ffi::OsString;

use serde::Serialize;

use super::layers::{App, Config, Entry, Source};
use crate::cli::{Key, Kind, keys};

/// What `check` says when all is well.
#[must_use]
pub fn checked(config: &Config) -> String {
    let apps = config.apps.iter().filter_map(|app| app.name.as_deref());
    let apps: Vec<&str> = apps.collect();
    let what = match &config.file {
        Some(file) => file.display().to_string(),
        None => "the command line".to_owned(),
    };
    match apps[..] {
        [] => format!("{what} is right\n"),
        _ => format!("{what} is right: {}\n", apps.join(", ")),
    }
}

/// The configuration as a file would have it, with the source of each value as a comment.
#[must_use]
pub fn text(config: &Config) -> String {
    let keys = keys();
    let parts: Vec<String> = config.apps.iter().map(|app| app_text(app, &keys)).collect();
    parts.join("\n")
}

fn app_text(app: &App, keys: &[Key]) -> String {
    let mut lines = Vec::new();
    let table = app.name.as_ref().map(|name| format!("app.{name}"));
    let mut line = |entry: &Entry, value: Option<String>| {
        let Entry { key, source, .. } = entry;
        lines.push(match value {
            // As a comment, so that an option that means nothing without another one is not set.
            Some(value) if *source == Source::Default => {
                (format!("#{key} = {value}"), source.to_string())
            }
            Some(value) => (format!("{key} = {value}"), source.to_string()),
            None => (format!("#{key} ="), "not set".to_owned()),
        });
    };
    line(
        &app.command,
        Some(array(&app.command.values)).filter(|_| !app.command.values.is_empty()),
    );
    for entry in &app.entries {
        let kind = keys
            .iter()
            .find(|key| key.name == entry.key)
            .map(|key| key.kind);
        line(entry, value(entry, kind.unwrap_or(Kind::Text)));
    }
    let mut text = table
        .as_ref()
        .map_or_else(String::new, |table| format!("[{table}]\n"));
    text.push_str(&columns(&lines));
    if !app.variables.is_empty() {
        let table = table.map_or_else(|| "env".to_owned(), |table| format!("{table}.env"));
        text.push_str(&format!("\n[{table}]\n"));
        let lines = app.variables.iter().filter_map(|entry| {
            let value = value(entry, Kind::Text)?;
            Some((format!("{} = {value}", entry.key), entry.source.to_string()))
        });
        text.push_str(&columns(&lines.collect::<Vec<_>>()));
    }
    text
}

/// Settings, and behind them their sources below each other.
fn columns(lines: &[(String, String)]) -> String {
    const WIDEST: usize = 40;
    let widths = lines.iter().map(|(setting, _)| setting.chars().count());
    let width = widths.filter(|width| *width <= WIDEST).max().unwrap_or(0);
    let lines = lines
        .iter()
        .map(|(setting, source)| format!("{setting:<width$}  # {source}\n"));
    lines.collect()
}

/// The value as TOML has it; none where there is none.
fn value(entry: &Entry, kind: Kind) -> Option<String> {
    let first = entry.values.first()?;
    Some(match kind {
        Kind::Text => quoted(first),
        Kind::Switch | Kind::Count => first.to_string_lossy().into_owned(),
        Kind::List => array(&entry.values),
    })
}

fn array(values: &[OsString]) -> String {
    let values: Vec<String> = values.iter().map(quoted).collect();
    format!("[{}]", values.join(", "))
}

/// On one line, whatever is in it.
fn quoted(value: &OsString) -> String {
    let text = value.to_string_lossy();
    if text.chars().any(char::is_control) {
        // Its escapes are those of TOML, but for the braces.
        let escaped = text.chars().map(|character| match character {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            control if control.is_control() => format!("\\u{:04X}", u32::from(control)),
            plain => plain.to_string(),
        });
        return format!("\"{}\"", escaped.collect::<String>());
    }
    toml::Value::from(text.into_owned()).to_string()
}

/// The same as one JSON object.
#[must_use]
pub fn json(config: &Config) -> serde_json::Value {
    let apps = config.apps.iter().map(|app| {
        let settings = [&app.command].into_iter().chain(&app.entries);
        serde_json::json!({
            "app": app.name,
            "settings": settings.map(shown).collect::<Vec<_>>(),
            "env": app.variables.iter().map(shown).collect::<Vec<_>>(),
        })
    });
    serde_json::json!({
        "file": config.file.as_ref().map(|file| file.to_string_lossy()),
        "apps": apps.collect::<Vec<_>>(),
    })
}

/// A value as JSON has it: `null` where none is set.
#[derive(Serialize)]
struct Shown {
    key: String,
    value: serde_json::Value,
    source: Origin,
}

#[derive(Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
enum Origin {
    CommandLine,
    Environment { variable: String },
    File { file: String, line: usize },
    Default,
}

fn shown(entry: &Entry) -> Shown {
    let Entry {
        key,
        values,
        source,
    } = entry;
    let texts: Vec<String> = values
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    let of_many = key == "command" || key == "port";
    let value = match &texts[..] {
        [] => serde_json::Value::Null,
        [one] if !of_many => one.as_str().into(),
        _ => texts.into(),
    };
    Shown {
        key: key.clone(),
        value,
        source: match source {
            Source::Flag => Origin::CommandLine,
            Source::Variable(variable) => Origin::Environment {
                variable: variable.clone(),
            },
            Source::File { path, line } => Origin::File {
                file: path.to_string_lossy().into_owned(),
                line: *line,
            },
            Source::Default => Origin::Default,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::tests::config;

    #[test]
    fn what_is_printed_is_a_file_that_means_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first.toml", "second.toml"].map(|name| dir.path().join(name));
        let written = "drain-timeout = \"1m\"\n[app.web]\ncommand = [\"a\\nb\", '\"']\nport = [80, \"53/udp\"]\n\
                       no-hold = true\nverbose = 1\n[app.web.env]\nTEXT = 'a \"b\" \\ $c'\n\
                       LINES = \"\"\"one\ntwo\"\"\"\n[app.api]\n";
        fs::write(&first, written).unwrap();
        let given = config(&format!("--config {} --max-surge 2", first.display()), &[]).unwrap();
        let printed = text(&given);
        fs::write(&second, &printed).unwrap();
        let again = config(&format!("--config {}", second.display()), &[]).unwrap();
        assert_eq!(again.apps.len(), 2);
        for (one, other) in given.apps.iter().zip(&again.apps) {
            let values = |app: &App| {
                let entries = app
                    .entries
                    .iter()
                    .chain([&app.command])
                    .chain(&app.variables);
                entries
                    .map(|entry| (entry.key.clone(), entry.values.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(values(one), values(other), "{printed}");
        }
        for part in [
            "max-surge = \"2\"",
            "# command line",
            "# default",
            "#user =",
            "# not set",
        ] {
            assert!(printed.contains(part), "{part} in {printed}");
        }
        assert!(
            printed.contains(&format!("# {}:1", first.display())),
            "{printed}"
        );
    }

    #[test]
    fn json_has_the_sources_by_kind() {
        let environment = [("REUSEPORT_LAUNCH_PORT", "80, 53/udp")];
        let shown = json(&config("-w 2 -- server", &environment).unwrap());
        assert_eq!(shown["file"], serde_json::Value::Null);
        let settings = shown["apps"][0]["settings"].as_array().unwrap();
        let of = |key: &str| {
            settings
                .iter()
                .find(|setting| setting["key"] == key)
                .unwrap()
        };
        assert_eq!(of("command")["value"][0], "server");
        assert_eq!(of("workers")["source"]["from"], "command-line");
        assert_eq!(of("port")["value"][1], "53/udp");
        assert_eq!(of("port")["source"]["variable"], "REUSEPORT_LAUNCH_PORT");
        assert_eq!(of("drain-timeout")["value"], "30s");
        assert_eq!(of("drain-timeout")["source"]["from"], "default");
        assert_eq!(of("user")["value"], serde_json::Value::Null);
    }
}
