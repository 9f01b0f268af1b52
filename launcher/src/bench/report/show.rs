//! Figures and commands as people read them. Three digits are what a few rounds can tell.

use crate::bench::{
    model::{Errors, Host, Report, Shape},
    stats::{Compared, Verdict},
};

/// Three digits, thousands apart: `0.041`, `1.93`, `12.4`, `38 200`.
pub(super) fn three(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    match value.abs() {
        v if v < 0.0005 => "0".to_owned(),
        v if v < 0.9995 => format!("{value:.3}"),
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        v => {
            let unit = 10_f64.powi((v.log10() + 1e-9).floor() as i32 - 2).max(1.0);
            whole(((value / unit).round() * unit) as u64)
        }
    }
}

/// Every digit: `1 204 117`.
pub(super) fn whole(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

/// A ratio, `1.93`, `12.4` or `0.061`.
fn ratio(value: f64) -> String {
    match value {
        v if v >= 99.5 => three(v),
        v if v >= 9.95 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// `1.93 (1.88–1.97)`, or `no difference`.
pub(super) fn compared(compared: &Compared) -> String {
    match (compared.verdict, compared.interval) {
        (Some(Verdict::NoDifference), _) => "no difference".to_owned(),
        (_, Some(interval)) => format!(
            "{} ({}–{})",
            ratio(compared.ratio),
            ratio(interval.low),
            ratio(interval.high)
        ),
        (_, None) => ratio(compared.ratio),
    }
}

/// A time in its own unit: `85 µs`, `1.20 ms`, `2.40 s`.
pub(super) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 999.5 => format!("{} ns", three(ns.round())),
        ns if ns < 999_500.0 => format!("{} µs", three(ns / 1e3)),
        ns if ns < 999_500_000.0 => format!("{} ms", three(ns / 1e6)),
        ns => format!("{} s", three(ns / 1e9)),
    }
}

/// The same of a round number: `200 µs`, `3 ms`.
pub(super) fn round_time(nanoseconds: f64) -> String {
    let (value, unit) = match nanoseconds {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999_500.0 => (ns / 1e3, "µs"),
        ns if ns < 999_500_000.0 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{value:.0} {unit}")
}

/// What happened, and nothing else: `12 timed out, 3 reset`. Empty where all went well.
pub(super) fn errors(errors: &Errors) -> String {
    let happened = errors.happened([
        "refused",
        "reset",
        "closed early",
        "timed out",
        "bad answers",
        "other",
    ]);
    let happened: Vec<String> = happened
        .map(|(count, kind)| format!("{} {kind}", whole(count)))
        .collect();
    happened.join(", ")
}

/// How connections were used.
pub(super) fn shape(shape: Shape) -> String {
    match shape {
        Shape::Connection => "a new connection for each request".to_owned(),
        Shape::KeepAlive { requests } => {
            format!("connections kept for {} requests", whole(requests.into()))
        }
        Shape::LongLived => "few connections, kept for the whole run".to_owned(),
    }
}

/// The machine, in pieces to be joined.
pub(super) fn host(report: &Report) -> Vec<String> {
    let Host {
        kernel,
        cpu,
        cpus,
        affinity,
        cpu_limit,
        memory_limit,
        somaxconn,
        own_namespace,
    } = &report.host;
    let mut pieces = vec![format!("Linux {}", clean(kernel)), clean(cpu)];
    let mut share = format!("{cpus} CPUs");
    if affinity != cpus {
        share.push_str(&format!(", {affinity} of them ours"));
    }
    pieces.push(share);
    for (cpus, whose) in [
        (&report.worker_cpus, "workers"),
        (&report.generator_cpus, "generator"),
    ] {
        if !cpus.is_empty() {
            let list: Vec<String> = cpus.iter().map(ToString::to_string).collect();
            pieces.push(format!("{whose} on {}", list.join(",")));
        }
    }
    pieces.extend(cpu_limit.map(|limit| format!("CPU limit {}", ratio(limit))));
    pieces.extend(memory_limit.map(|limit| {
        let gib = limit as f64 / f64::from(1 << 30);
        format!("memory limit {} GiB", three(gib))
    }));
    pieces.push(format!("somaxconn {somaxconn}"));
    pieces.push(if *own_namespace {
        "network namespace of its own".to_owned()
    } else {
        "the host's loopback".to_owned()
    });
    pieces
}

/// Text from elsewhere on one line: nothing in it can write to the terminal.
pub(super) fn clean(text: &str) -> String {
    let visible: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// One argument as a shell takes it.
pub(super) fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else if argument.chars().any(char::is_control) {
        // Bash's, zsh's and POSIX's (2024) way to write what can't be seen.
        let escaped: String = argument
            .chars()
            .map(|c| match c {
                '\'' | '\\' => format!("\\{c}"),
                '\n' => "\\n".to_owned(),
                c if c.is_control() => c
                    .to_string()
                    .bytes()
                    .map(|byte| format!("\\{byte:03o}"))
                    .collect(),
                c => c.to_string(),
            })
            .collect();
        format!("$'{escaped}'")
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
