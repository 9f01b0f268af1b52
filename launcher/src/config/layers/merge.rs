//! One layer over the other: which value of an option counts.

use std::collections::BTreeMap;

use super::{Entry, Source};
use crate::{
    cli::{Key, Setting, check_setting},
    config::{
        Given,
        file::{File, Table, conflict},
        toml_values::Place,
    },
    failure::{Exit, Failure},
};

/// What is found, from above: a setting, its source and what it stands in.
pub(super) struct Laid {
    pub(super) setting: Setting,
    pub(super) source: Source,
    pub(super) layer: usize,
    pub(super) place: Option<Place>,
}

/// Of each option the topmost layer that has it. What excludes another one of a layer above it is
/// left out.
pub(super) fn from_above(
    given: &Given,
    file: Option<&File>,
    tables: &[&Table],
    keys: &[Key],
) -> Result<Vec<Laid>, Failure> {
    let flags = given.settings.iter().map(|setting| Laid {
        setting: setting.clone(),
        source: Source::Flag,
        layer: 0,
        place: None,
    });
    let mut laid: Vec<Laid> = flags.collect();
    let is_free = |laid: &[Laid], key: &str, layer: usize| {
        laid.iter().all(|above| {
            let other = &above.setting.key;
            other != key && (above.layer == layer || !conflict(keys, other, key))
        })
    };
    for key in keys {
        if let Some((name, setting)) = given.of_environment(key)
            && is_free(&laid, &key.name, 1)
        {
            check_setting(&setting).map_err(|why| wrong_variable(&name, &why))?;
            let source = Source::Variable(name);
            laid.push(Laid {
                setting,
                source,
                layer: 1,
                place: None,
            });
        }
    }
    for (layer, table) in (2..).zip(tables) {
        for placed in &table.settings {
            if let Some(file) = file
                && is_free(&laid, &placed.setting.key, layer)
            {
                laid.push(Laid {
                    setting: placed.setting.clone(),
                    source: Source::File {
                        path: file.path.clone(),
                        line: placed.place.line,
                    },
                    layer,
                    place: Some(placed.place),
                });
            }
        }
    }
    Ok(laid)
}

/// Refuses options that mean nothing without another one; what all apps have in common may be for
/// others of them.
pub(super) fn check_needs(
    laid: &mut Vec<Laid>,
    keys: &[Key],
    file: Option<&File>,
) -> Result<(), Failure> {
    const IN_COMMON: usize = 3;
    let is_set: Vec<String> = laid.iter().map(|laid| laid.setting.key.clone()).collect();
    let lacks = |laid: &Laid| {
        let key = keys.iter().find(|key| key.name == laid.setting.key)?;
        let needed = key.needs?;
        (!is_set.iter().any(|key| key == needed)).then_some(needed)
    };
    laid.retain(|laid| laid.layer < IN_COMMON || lacks(laid).is_none());
    let Some((wrong, needed)) = laid.iter().find_map(|laid| Some((laid, lacks(laid)?))) else {
        return Ok(());
    };
    let key = &wrong.setting.key;
    if let (Some(file), Some(place)) = (file, wrong.place) {
        return Err(file.refuse(place, format!("`{key}` means nothing without `{needed}`")));
    }
    let what = match &wrong.source {
        Source::Variable(name) => format!("cannot use the environment variable {name}"),
        _ => format!("cannot use --{key}"),
    };
    let value = keys.iter().find(|key| key.name == needed);
    let value = value.map_or("", |key| &key.value_name);
    let why = format!("it means nothing without --{needed} <{value}>");
    Err(Failure::new(what, why, format!("set --{needed}, too, or leave it out")).exit(Exit::Usage))
}

/// The variables for the workers: each table's own and then its set, the common ones first.
pub(super) fn variables(
    tables: &[&Table],
    set: Option<&str>,
    in_file: impl Fn(usize) -> Source,
) -> Vec<Entry> {
    let mut variables = BTreeMap::new();
    for table in tables.iter().rev() {
        let sets = table
            .sets
            .iter()
            .filter(|(name, _)| Some(name.as_str()) == set);
        for variable in table
            .env
            .iter()
            .chain(sets.flat_map(|(_, variables)| variables))
        {
            variables.insert(
                variable.name.clone(),
                Entry {
                    key: variable.name.clone(),
                    values: vec![variable.value.clone().into()],
                    source: in_file(variable.place.line),
                },
            );
        }
    }
    variables.into_values().collect()
}

fn wrong_variable(name: &str, why: &str) -> Failure {
    Failure::new(
        format!("cannot use the environment variable {name}"),
        why,
        format!("correct it, or unset {name}"),
    )
    .exit(Exit::Usage)
}

/// Options each of which is right, but not all together.
pub(super) fn unfitting(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let said = text.split("\n\n").next().unwrap_or(text);
    let hint = "see what is in force: reuseport-launch print-config";
    Failure::new("cannot use these options together", said, hint).exit(Exit::Usage)
}
