//! What is written in a TOML file: where, and as the text that an option takes.

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeInteger, DeValue},
};

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
}

impl Place {
    /// Where the byte `at` is in `text`.
    pub(super) fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let newlines = before.bytes().filter(|byte| *byte == b'\n').count();
        let in_line = before.get(start..).unwrap_or_default();
        Self {
            line: newlines + 1,
            column: in_line.chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Something wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) place: Place,
    pub(super) why: String,
}

/// A value, and the bytes of the file that it is written in.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A string, or where that is as good a whole number.
///
/// # Errors
/// Says what was expected.
pub(super) fn text(value: &DeValue<'_>, number: bool) -> Result<String, String> {
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(integer) if number => integer_of(integer)?.to_string(),
        other if number => return Err(expected("a string or a whole number", other)),
        other => return Err(expected("a string", other)),
    };
    without_nul(text)
}

/// A string, a number, or `true` or `false`: what a variable of the environment may be set to.
///
/// # Errors
/// Says what was expected.
pub(super) fn variable(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => without_nul(text.to_string()),
        DeValue::Integer(integer) => Ok(integer_of(integer)?.to_string()),
        DeValue::Float(float) => Ok(float.as_str().to_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        other => Err(expected("a string", other)),
    }
}

/// A whole number of at most `max`.
///
/// # Errors
/// Says what was expected.
pub(super) fn count(value: &DeValue<'_>, max: i64) -> Result<String, String> {
    let allowed = format!("a whole number from 0 to {max}");
    match value {
        DeValue::Integer(integer) => match integer_of(integer)? {
            number if (0..=max).contains(&number) => Ok(number.to_string()),
            number => Err(format!("{allowed} is expected, not {number}")),
        },
        other => Err(expected(&allowed, other)),
    }
}

/// `true` or `false`.
///
/// # Errors
/// Says what was expected.
pub(super) fn switch(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        other => Err(expected("true or false", other)),
    }
}

/// The elements of an array, or a single value as its only one.
pub(super) fn elements<'v, 't>(value: &'v Value<'t>) -> Vec<(Range<usize>, &'v DeValue<'t>)> {
    match value.get_ref() {
        DeValue::Array(array) => array
            .iter()
            .map(|element| (element.span(), element.get_ref()))
            .collect(),
        single => vec![(value.span(), single)],
    }
}

/// Says that something else was found.
pub(super) fn expected(what: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    format!("{what} is expected, not {found}")
}

fn integer_of(integer: &DeInteger<'_>) -> Result<i64, String> {
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| format!("{} is too large", integer.as_str()))
}

fn without_nul(text: String) -> Result<String, String> {
    match text.contains('\0') {
        true => Err("a NUL character can't be in it".to_owned()),
        false => Ok(text),
    }
}
