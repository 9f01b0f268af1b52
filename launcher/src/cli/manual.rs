//! The manual's pages, made from what `--help` says.

use std::io;

use clap::{Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::Cli;

/// A page of the manual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its file: `reuseport-launch-status.1`.
    pub file: String,
    /// The verb that it is about; `None`: the command as a whole.
    pub verb: Option<String>,
    /// Its text, in roff: ASCII only.
    pub text: String,
}

/// All pages: the command's, then one for each verb, in the order of `--help`.
///
/// # Errors
/// Never, as long as memory can be written to.
pub fn pages() -> io::Result<Vec<Page>> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![page(&command, None)?];
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        pages.push(page(verb, Some(command.get_name()))?);
    }
    Ok(pages)
}

/// The page of `command`, which is a verb of `of`, or of none.
fn page(command: &Command, of: Option<&str>) -> io::Result<Page> {
    let version = env!("CARGO_PKG_VERSION");
    let rendered = with_kept_lines(command.clone());
    let man = Man::new(rendered).source(format!("reuseport-launch {version}"));
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    if of.is_none() {
        man.render_description_section(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    if let Some(after) = command.get_after_help() {
        after_help(&mut rest, &after.to_string());
    }
    if let Some(of) = of {
        rest.control("SH", ["SEE ALSO"]);
        rest.text([bold(of), roman("(1)")]);
    }
    rest.to_writer(&mut text)?;
    Ok(Page {
        file: man.get_filename(),
        verb: of.map(|_| command.get_name().to_owned()),
        text: in_ascii(&String::from_utf8_lossy(&text)),
    })
}

/// roff reads bytes; other characters than ASCII's have names.
fn in_ascii(text: &str) -> String {
    let written = text.chars().map(|char| match char {
        char if char.is_ascii() => char.to_string(),
        char => format!("\\[u{:04X}]", u32::from(char)),
    });
    written.collect()
}

/// Keeps the lines of a help text that has several: roff fills all but those that begin with a space.
fn with_kept_lines(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_help().map(ToString::to_string) {
        Some(help) if help.contains('\n') => arg.help(help.replace('\n', "\n ")),
        _ => arg,
    })
}

/// What stands behind the options: a paragraph that begins with `Word:` or `Two words:` becomes a
/// section of that title, and others go on where they are.
fn after_help(roff: &mut Roff, text: &str) {
    let mut between = "NOTES";
    for paragraph in text.split("\n\n") {
        let titled = paragraph
            .split_once(':')
            .filter(|(title, _)| !title.contains(['.', ',']) && title.split(' ').count() <= 2);
        let body = match titled {
            Some((title, body)) => {
                roff.control("SH", [title.to_uppercase().as_str()]);
                between = if title == "Examples" { "NOTES" } else { "" };
                body.strip_prefix(' ')
                    .unwrap_or(body)
                    .trim_start_matches('\n')
            }
            // The examples go on behind an empty line.
            None if paragraph.starts_with(' ') => paragraph,
            None => {
                match between {
                    "" => roff.control("PP", []),
                    title => roff.control("SH", [title]),
                };
                between = "";
                paragraph
            }
        };
        for line in body.lines() {
            roff.text([roman(line)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(verb: Option<&str>) -> String {
        let page = pages()
            .unwrap()
            .into_iter()
            .find(|page| page.verb.as_deref() == verb)
            .unwrap();
        page.text
    }

    #[test]
    fn each_verb_has_a_page_and_the_command_lists_them() {
        let all = pages().unwrap();
        assert_eq!(all[0].file, "reuseport-launch.1");
        let whole = text(None);
        for page in &all[1..] {
            let verb = page.verb.as_deref().unwrap();
            assert_eq!(page.file, format!("reuseport-launch-{verb}.1"));
            let listed = format!("reuseport\\-launch\\-{}(1)", verb.replace('-', "\\-"));
            assert!(whole.contains(&listed), "{listed} in {whole}");
            assert!(text(Some(verb)).contains(".SH \"SEE ALSO\""), "{verb}");
        }
        let verbs = Cli::command().get_subcommands().count();
        assert_eq!(all.len(), verbs + 1);
    }

    #[test]
    fn a_page_is_ascii() {
        assert_eq!(in_ascii("20 µs – ok"), "20 \\[u00B5]s \\[u2013] ok");
        assert!(pages().unwrap().iter().all(|page| page.text.is_ascii()));
    }

    #[test]
    fn each_option_is_in_the_page_of_run() {
        let run = text(Some("run"));
        for key in crate::cli::keys() {
            let option = format!("\\-\\-{}", key.name.replace('-', "\\-"));
            assert!(run.contains(&option), "{option}");
        }
    }

    #[test]
    fn what_stands_behind_the_options_has_sections() {
        let whole = text(None);
        for section in ["EXAMPLES", "NOTES", "SIGNALS", "\"EXIT CODES\""] {
            assert!(whole.contains(&format!(".SH {section}\n")), "{section}");
        }
        assert!(!whole.contains(".SH EXTRA"));
    }
}
