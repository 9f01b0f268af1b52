//! The name of a launcher, safe as part of a file name, a cgroup's name and a metric's label.

use std::{ffi::OsStr, fmt, path::Path, str::FromStr};

const LENGTH_MAX: usize = 64;

/// 1–64 of `A–Z a–z 0–9 . _ -`, the first neither `.` nor `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name of a launcher that was given none: the command's file name, with `-` for what a
    /// name cannot hold.
    pub fn of_command(command: &OsStr) -> Self {
        let file = Path::new(command)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let name: String = file
            .chars()
            .map(|c| if allowed(c) { c } else { '-' })
            .skip_while(|c| leading_refused(*c))
            .take(LENGTH_MAX)
            .collect();
        Self(if name.is_empty() {
            "command".into()
        } else {
            name
        })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn leading_refused(c: char) -> bool {
    matches!(c, '.' | '-')
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=LENGTH_MAX).contains(&text.len())
            && text.chars().all(allowed)
            && !text.starts_with(leading_refused);
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "allowed: 1 to {LENGTH_MAX} of A-Z a-z 0-9 . _ -, not starting with . or -"
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
