//! The report for people.

use std::{env, ffi::OsString, fmt::Write as _};

use super::{Area, Check, Report, Rung, State};

const AREAS: [(Area, &str); 5] = [
    (Area::Privileges, "Privileges"),
    (Area::Cgroup, "Cgroups"),
    (Area::Kernel, "Kernel"),
    (Area::Network, "Network"),
    (Area::Limits, "Limits"),
];

/// Whether the locale has more than ASCII (locale(7): the first of these that is not empty counts).
pub(super) fn is_utf8() -> bool {
    let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    let locale = locale.unwrap_or_default().to_string_lossy().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The whole report.
pub(super) fn text(report: &Report, colour: bool, utf8: bool) -> String {
    let mut text = format!(
        "reuseport-launch {}, Linux {}\n",
        report.version, report.kernel
    );
    for (area, title) in AREAS {
        let mut checks = report
            .checks
            .iter()
            .filter(|check| check.area == area)
            .peekable();
        if checks.peek().is_some() {
            let _ = writeln!(text, "\n{title}");
        }
        for check in checks {
            line(&mut text, check, colour, utf8);
        }
    }
    let _ = writeln!(text, "\n{}", verdict(report.rung));
    for advice in &report.raise {
        let _ = writeln!(text, "  {} {advice}", arrow(utf8));
    }
    text
}

fn line(text: &mut String, check: &Check, colour: bool, utf8: bool) {
    let (pretty, plain, hue) = match check.state {
        State::Ok => ("✓", "ok", 32),
        State::Warn => ("!", "! ", 33),
        State::Failed => ("✗", "X ", 31),
        State::Unknown => ("?", "? ", 33),
    };
    let mark = if utf8 { pretty } else { plain };
    let mark = match colour {
        true => format!("\x1b[{hue}m{mark}\x1b[0m"),
        false => mark.to_owned(),
    };
    let Check { title, found, .. } = check;
    let _ = writeln!(text, "  {mark} {title}: {}", found.replace('\n', "\n    "));
    if let Some(advice) = &check.advice {
        let _ = writeln!(text, "      {} {advice}", arrow(utf8));
    }
}

fn arrow(utf8: bool) -> &'static str {
    if utf8 { "→" } else { "->" }
}

fn verdict(rung: Rung) -> &'static str {
    match rung {
        Rung::None => "Not usable: workers can't share a port here.",
        Rung::KernelHash => {
            "Usable with --steer kernel only: connections are dealt out by the kernel's hash, and \
             may be lost at a reload."
        }
        Rung::Ebpf => {
            "Usable: connections are steered by eBPF. What waits in a worker that goes is lost, and \
             nothing is held."
        }
        Rung::EbpfWithMigration => {
            "Usable, with all there is: connections are steered by eBPF, move when a worker goes, \
             and are held while there is none."
        }
    }
}
