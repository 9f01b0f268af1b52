//! The documents: every command in them is one that the command line knows, every link leads
//! somewhere, and the index has every page. (What the commands do is tested in `tests/`.)

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::error::ErrorKind;
use reuseport_launch::cli;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The README and the pages of `docs/`, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(ROOT);
    let pages = fs::read_dir(root.join("docs")).unwrap();
    let pages = pages.map(|page| page.unwrap().path());
    let mut files: Vec<_> = pages
        .filter(|page| page.extension().is_some_and(|ending| ending == "md"))
        .chain([root.join("README.md")])
        .collect();
    files.sort();
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).unwrap();
        (file, text)
    };
    files.into_iter().map(read).collect()
}

/// The lines of the blocks of this language; one that ends with a backslash goes on.
fn lines(text: &str, language: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inside = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), inside) {
            (Some(word), None) => inside = Some(word),
            (Some(_), Some(_)) => inside = None,
            (None, Some(word)) if word == language => lines.push(line),
            (None, _) => {}
        }
    }
    let joined = lines.join("\n").replace("\\\n", " ");
    joined.lines().map(str::to_owned).collect()
}

/// The words of a line for a shell: quotes and comments are understood, and nothing else is in them.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for char in line.chars() {
        match (char, quote) {
            (char, Some(open)) if char == open => quote = None,
            (char, Some(_)) => word.get_or_insert_default().push(char),
            ('\'' | '"', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (char, None) if char.is_whitespace() => words.extend(word.take()),
            (char, None) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

/// What is wrong with a command.
fn problem(line: &str) -> Option<String> {
    let words = words(line);
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_variable = |word: &str| {
        word.split_once('=').is_some_and(|(name, _)| {
            name.chars()
                .all(|char| char.is_ascii_uppercase() || char == '_')
        })
    };
    words.drain(..words.iter().take_while(|word| is_variable(word)).count());
    match &words[..] {
        [] => None,
        ["reuseport-launch", arguments @ ..]
        | ["cargo", "run", "--release", "--", arguments @ ..] => {
            let all = ["reuseport-launch"].iter().chain(arguments);
            match cli::parse(all.map(OsString::from)) {
                Ok(_) => None,
                Err(error) if error.kind() == ErrorKind::DisplayHelp => None,
                Err(error) => Some(error.to_string()),
            }
        }
        ["cargo", "install", "--path", directory] => {
            let manifest = Path::new(ROOT).join(directory).join("Cargo.toml");
            (!manifest.exists()).then(|| format!("there is no {}", manifest.display()))
        }
        ["cargo", "xtask", task, ..] => {
            let tasks = fs::read_to_string(Path::new(ROOT).join("xtask/src/lib.rs")).unwrap();
            let variant: String = task
                .split('-')
                .map(|part| part[..1].to_uppercase() + &part[1..])
                .collect();
            let known = [" {", ","]
                .iter()
                .any(|end| tasks.contains(&format!("\n    {variant}{end}\n")));
            (!known).then(|| format!("there is no task {task}"))
        }
        ["cargo", "build", ..] => None,
        // A script of ours.
        [script, ..] if script.contains('/') => {
            let there = Path::new(ROOT).join(script).exists();
            (!there).then(|| format!("there is no {script}"))
        }
        // The shells' own way to complete, and Debian's to install.
        ["source", ..] | ["apt", "install", ..] | ["man", ..] => None,
        [other, ..] => Some(format!("nobody knows what {other} is")),
    }
}

#[test]
fn every_command_is_one_that_the_command_line_knows() {
    let mut commands = 0;
    let mut problems = Vec::new();
    for (file, text) in documents() {
        for line in lines(&text, "sh") {
            commands += 1;
            if let Some(problem) = problem(&line) {
                problems.push(format!("{}: {line}: {problem}", file.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(commands > 30, "{commands}");
}

#[test]
fn a_command_that_nobody_knows_is_found() {
    assert_eq!(
        problem("reuseport-launch status 'a b'  # with a comment"),
        Some(problem("reuseport-launch status 'a b'").unwrap())
    );
    for wrong in [
        "reuseport-launch stauts",
        "cargo xtask dance",
        "curl x | sh",
        "cargo install --path x",
    ] {
        assert!(problem(wrong).is_some(), "{wrong}");
    }
    for right in [
        "A_B=1 reuseport-launch ls",
        "# nothing",
        "reuseport-launch send all '{\"a\": 1}' x",
    ] {
        assert_eq!(problem(right), None, "{right}");
    }
}

#[test]
fn every_link_leads_to_a_file() {
    for (file, text) in documents() {
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let path = target.split('#').next().unwrap();
            let there = file.parent().unwrap().join(path);
            assert!(there.exists(), "{}: {target}", file.display());
        }
    }
}

#[test]
fn the_index_has_every_page() {
    let index = fs::read_to_string(Path::new(ROOT).join("docs/README.md")).unwrap();
    let missing: BTreeSet<_> = documents()
        .into_iter()
        .filter_map(|(file, _)| {
            file.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .filter(|name| name != "README.md" && !index.contains(&format!("]({name})")))
        .collect();
    assert_eq!(missing, BTreeSet::new(), "not in docs/README.md");
}
