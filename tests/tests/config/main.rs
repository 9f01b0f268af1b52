//! The configuration file: what is said about a wrong one, what a reload makes of a changed one, and
//! several apps in one.

mod apps;
mod docs;
mod reload;
mod verbs;

use std::{fs, path::PathBuf};

use kernel_tests::{
    client,
    launcher::{Launch, Launcher},
};
use tempfile::TempDir;

/// A configuration file in a directory of its own.
struct File {
    dir: TempDir,
}

impl File {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = Self { dir };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("shop.toml")
    }

    /// Its path as a word of a command line.
    fn word(&self) -> String {
        self.path().display().to_string()
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a file of ours");
    }

    /// A launcher that takes its command, too, from the file.
    fn start(&self) -> Launcher {
        Launch::of(Vec::<String>::new())
            .options(["--config", &self.word()])
            .ready()
    }
}

/// A command as TOML has it, whose strings may be written as those of JSON.
fn command(words: &[String]) -> String {
    let words = serde_json::to_string(words).expect("strings");
    format!("command = {words}\n")
}

/// What the workers on port 8080 answer at `/version`, one after the other.
fn versions(count: usize) -> Vec<String> {
    let versions = (0..count).map(|_| {
        let answer = client::get_path(client::address("127.0.0.1:8080"), "/version");
        answer.expect("an answer").body
    });
    versions.collect()
}
