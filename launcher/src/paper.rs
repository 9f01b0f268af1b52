//! What is printed about the program itself: the manual, and what shells complete by.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use crate::{
    cli::{self, Page, Shell},
    control::client,
    failure::{Exit, Failure},
};

/// Writes the page of a verb, or of the command, to `out`.
///
/// # Errors
/// When there is no such verb, or `out` can't be written to.
pub fn page(verb: Option<&str>, out: &mut impl Write) -> Result<(), Failure> {
    let pages = made(cli::pages())?;
    match pages.iter().find(|page| page.verb.as_deref() == verb) {
        Some(page) => client::write(&page.text, out),
        None => {
            let verbs: Vec<_> = pages
                .iter()
                .filter_map(|page| page.verb.as_deref())
                .collect();
            let what = format!("cannot show a page about {}", verb.unwrap_or_default());
            let hint = format!("the verbs are {}", verbs.join(", "));
            Err(Failure::new(what, "there is no such verb", hint).exit(Exit::Usage))
        }
    }
}

/// Writes all pages into `directory`, each to its file.
///
/// # Errors
/// When one can't be written.
pub fn pages(directory: &Path) -> Result<(), Failure> {
    for Page { file, text, .. } in made(cli::pages())? {
        let file = directory.join(file);
        fs::write(&file, text).map_err(|error| {
            let what = format!("cannot write {}", file.display());
            Failure::io(
                what,
                "writing",
                &error,
                "name a directory that you may write to",
            )
        })?;
    }
    Ok(())
}

/// Writes the script for `shell` to `out`.
///
/// # Errors
/// When `out` can't be written to.
pub fn completions(shell: Shell, out: &mut impl Write) -> Result<(), Failure> {
    let script = made(cli::script(shell))?;
    client::write(&String::from_utf8_lossy(&script), out)
}

fn made<T>(result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| {
        let hint = "report it, with the version: reuseport-launch --version";
        Failure::io("cannot make the text", "rendering", &error, hint)
    })
}
