//! The two formats of the page: OpenMetrics 1.0, and the older text format 0.0.4 of Prometheus.

use std::fmt::Write as _;

use super::families::{Family, Kind, PREFIX};

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The format that this value of `Accept` asks for: OpenMetrics where it is named and nothing else that
/// we have is liked better.
#[must_use]
pub fn negotiate(accept: &str) -> Format {
    let quality = |wanted: &str| {
        accept
            .split(',')
            .filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(wanted);
                let quality = parts.find_map(|part| part.strip_prefix("q="));
                named.then(|| quality.map_or(1.0, |q| q.parse().unwrap_or(0.0)))
            })
            .fold(0.0, f64::max)
    };
    let open = quality("application/openmetrics-text");
    match open > 0.0 && open >= quality("text/plain") {
        true => Format::OpenMetrics,
        false => Format::Text,
    }
}

/// The value of a sample. Integers are written whole, however large.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    /// A finite number.
    Real(f64),
}

/// The labels of a sample, in their order.
pub(super) type Labels<'l> = &'l [(&'static str, &'l str)];

/// A page that is being written.
pub(super) struct Text {
    format: Format,
    text: String,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        let text = String::new();
        Self { format, text }
    }

    /// Begins a family. What it is called: in OpenMetrics the endings are the samples', not the
    /// family's.
    pub(super) fn family(&mut self, family: Family) {
        let Family { name, kind, help } = family;
        let open = self.format == Format::OpenMetrics;
        let base = match kind {
            Kind::Counter if open => name.strip_suffix("_total").unwrap_or(name),
            Kind::Info if open => name.strip_suffix("_info").unwrap_or(name),
            _ => name,
        };
        let kind = match kind {
            Kind::Info if !open => "gauge",
            kind => kind.name(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {PREFIX}{base} {help}");
        let _ = writeln!(self.text, "# TYPE {PREFIX}{base} {kind}");
        let unit = ["seconds", "bytes"].into_iter();
        for unit in unit.filter(|unit| open && base.ends_with(unit)) {
            let _ = writeln!(self.text, "# UNIT {PREFIX}{base} {unit}");
        }
    }

    /// Adds a sample to the family begun last.
    pub(super) fn sample(&mut self, name: &str, ending: &str, labels: Labels<'_>, value: Value) {
        let _ = write!(self.text, "{PREFIX}{name}{ending}");
        let mut separator = '{';
        for (label, text) in labels {
            let _ = write!(self.text, "{separator}{label}=\"{}\"", escape(text));
            separator = ',';
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = match value {
            Value::Whole(number) => writeln!(self.text, " {number}"),
            Value::Real(number) => writeln!(self.text, " {number}"),
        };
    }

    /// The whole page.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            _ => escaped.push(letter),
        }
    }
    escaped
}
