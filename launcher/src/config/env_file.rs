//! The file of `--env-file`: `NAME=VALUE` lines, as systemd's `EnvironmentFile=` and `.env` files
//! have them.
//!
//! ```text
//! # A comment.
//! PLAIN=as it stands, without the spaces at both ends   # and without this
//! export EXPORTED=is fine, too
//! SINGLE='as it stands: # and \ and $ mean nothing'
//! DOUBLE="\n is a line break; \" \\ \$ are what follows the backslash"
//! LONG="quoted values may
//! go on in the next line"
//! ```
//!
//! Nothing is expanded: a `$` in a password stays one.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use crate::failure::{Exit, Failure};

/// The largest file, in bytes: an environment can't be larger by far.
const FILE_MAX: u64 = 1 << 20;

/// Reads the file. Of a name that is set twice, the last one counts.
///
/// # Errors
/// When it can't be read, or a line makes no sense; with [`Exit::Config`].
pub(super) fn read(path: &Path) -> Result<Vec<(OsString, OsString)>, Failure> {
    let failed = |why: String, hint: &str| {
        let what = format!("cannot use the environment file {}", path.display());
        Failure::new(what, why, hint).exit(Exit::Config)
    };
    let text = read_bytes(path).map_err(|error| {
        failed(
            error.to_string(),
            "name a file that can be read (--env-file)",
        )
    })?;
    parse(&text).map_err(|Wrong { line, why }| {
        failed(
            format!("line {line}: {why}"),
            "write NAME=VALUE, # and a comment, or nothing; quote a VALUE that has quotes or # in it",
        )
    })
}

/// The whole of a small regular file.
pub(super) fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // It is read again and again: from a pipe that would wait for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?
        .take(FILE_MAX + 1)
        .read_to_end(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!(
            "it has more than {FILE_MAX} bytes"
        )));
    }
    Ok(text)
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    /// From 1.
    line: usize,
    why: String,
}

fn parse(text: &[u8]) -> Result<Vec<(OsString, OsString)>, Wrong> {
    let mut variables = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.iter().position(|byte| !byte.is_ascii_whitespace()) {
        rest = &rest[start..];
        if matches!(rest.first(), Some(b'#' | b';')) {
            (_, rest) = split_line(rest);
            continue;
        }
        let line = 1 + newlines(&text[..text.len() - rest.len()]);
        let (variable, behind) = assignment(rest).map_err(|why| Wrong { line, why })?;
        variables.push(variable);
        rest = behind;
    }
    Ok(variables)
}

type Variable = (OsString, OsString);

/// Reads the assignment at the start of `text`, and returns it and what follows its last line.
fn assignment(text: &[u8]) -> Result<(Variable, &[u8]), String> {
    let (line, _) = split_line(text);
    let Some(equals) = line.iter().position(|byte| *byte == b'=') else {
        return Err("there is no = in it".to_owned());
    };
    let name = line[..equals].trim_ascii();
    let name = name.strip_prefix(b"export ").unwrap_or(name).trim_ascii();
    if !is_name(name) {
        return Err(format!(
            "{:?} is no variable's name",
            OsStr::from_bytes(name)
        ));
    }
    let spaces = |byte: &u8| matches!(byte, b' ' | b'\t');
    let text = &text[equals + 1..];
    let blanks = text.iter().take_while(|byte| spaces(byte)).count();
    let text = &text[blanks..];
    let (value, rest) = match text.first() {
        Some(quote @ (b'\'' | b'"')) => {
            let (value, behind) = quoted(&text[1..], *quote)?;
            let (ignored, rest) = split_line(behind);
            if !matches!(ignored.trim_ascii().first(), None | Some(b'#')) {
                return Err("something stands behind the closing quote".to_owned());
            }
            (value, rest)
        }
        _ => {
            let (line, rest) = split_line(text);
            // A value of nothing but a comment is empty: there was a space or the = before it.
            let comment =
                (0..line.len()).find(|&at| line[at] == b'#' && (at == 0 || spaces(&line[at - 1])));
            let value = line[..comment.unwrap_or(line.len())].trim_ascii();
            (value.to_vec(), rest)
        }
    };
    if value.contains(&0) {
        return Err("a NUL byte can't be in an environment".to_owned());
    }
    let name = OsString::from_vec(name.to_vec());
    Ok(((name, OsString::from_vec(value)), rest))
}

/// The value up to the closing `quote`, and what follows that.
fn quoted(text: &[u8], quote: u8) -> Result<(Vec<u8>, &[u8]), String> {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            _ if byte == quote => return Ok((value, bytes.as_slice())),
            b'\\' if quote == b'"' => match bytes.next() {
                Some(b'n') => value.push(b'\n'),
                Some(&escaped @ (b'"' | b'\\' | b'$' | b'`')) => value.push(escaped),
                // Not an escape, as in a shell.
                Some(&other) => value.extend([b'\\', other]),
                None => break,
            },
            _ => value.push(byte),
        }
    }
    Err("the quote is not closed".to_owned())
}

/// The first line, without its end, and the rest.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n');
    let end = end.unwrap_or(text.len());
    (&text[..end], text.get(end + 1..).unwrap_or_default())
}

fn newlines(text: &[u8]) -> usize {
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// Whether a variable may be called that.
pub(super) fn is_name(name: &[u8]) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.first().is_some_and(|byte| !byte.is_ascii_digit()) && name.iter().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables as `NAME=VALUE`.
    fn parsed(text: &str) -> Vec<String> {
        let variables = parse(text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        variables
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect()
    }

    #[test]
    fn values() {
        for (line, variable) in [
            ("A=b", "A=b"),
            ("A=b\r", "A=b"),
            ("  A = b c  ", "A=b c"),
            ("export A=b", "A=b"),
            ("exported=b", "exported=b"),
            ("A=", "A="),
            ("A=# comment", "A="),
            ("A=b # comment", "A=b"),
            ("A=b#c", "A=b#c"),
            ("A=b=c", "A=b=c"),
            ("A=$HOME ${x} \\n", "A=$HOME ${x} \\n"),
            ("A=it's", "A=it's"),
            ("A='b # c \\ $d \"'  # comment", "A=b # c \\ $d \""),
            (r#"A="b \" \\ \$ \` \x""#, r#"A=b " \ $ ` \x"#),
            ("A=\"b\\nc\"", "A=b\nc"),
            ("A='b\nc'", "A=b\nc"),
            ("A=ä", "A=ä"),
        ] {
            assert_eq!(parsed(line), [variable], "{line:?}");
        }
    }

    #[test]
    fn a_file() {
        let text = "# first\n\n; second\nA=1\n\tB='2\n3'\nA=4";
        assert_eq!(parsed(text), ["A=1", "B=2\n3", "A=4"]);
        assert!(parsed(" \n#A=1").is_empty());
    }

    #[test]
    fn a_value_can_be_any_bytes_but_nul() {
        let variables = parse(b"A=\xff").unwrap();
        assert_eq!(variables[0].1.as_bytes(), b"\xff");
        assert!(parse(b"A=b\0c").unwrap_err().why.contains("NUL"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line, why) in [
            ("A", 1, "no = in it"),
            ("A=1\n\nB\n", 3, "no = in it"),
            ("A='1\n2'\nB", 3, "no = in it"),
            ("=1", 1, "\"\" is no variable's name"),
            ("1A=1", 1, "\"1A\" is no variable's name"),
            ("A B=1", 1, "\"A B\" is no variable's name"),
            ("\u{feff}A=1", 1, "is no variable's name"),
            ("A=1\nB=\"2\nC=3", 2, "the quote is not closed"),
            ("A='1", 1, "the quote is not closed"),
            ("A=\"1\\", 1, "the quote is not closed"),
            ("A='1'2", 1, "behind the closing quote"),
        ] {
            let wrong = parse(text.as_bytes()).unwrap_err();
            assert_eq!(wrong.line, line, "{text:?}");
            assert!(wrong.why.contains(why), "{text:?}: {wrong:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        for (make, why) in [
            (None, "No such file"),
            (Some("A=1\nB"), "line 2: there is no = in it"),
            (Some(&*"x".repeat(FILE_MAX as usize + 1)), "more than"),
        ] {
            if let Some(text) = make {
                fs::write(&path, text).unwrap();
            }
            let failure = read(&path).unwrap_err();
            assert!(failure.why.contains(why), "{failure}");
            assert!(failure.what.contains("/env"), "{failure}");
            assert_eq!(failure.exit, Exit::Config);
        }
        let failure = read(dir.path()).unwrap_err();
        assert_eq!(failure.why, "it is not a regular file");
    }
}
