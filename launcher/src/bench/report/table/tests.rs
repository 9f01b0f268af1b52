use super::*;
use crate::bench::{model::Shape, report::fixture};

fn widest(text: &str) -> usize {
    text.lines().map(layout::columns).max().unwrap_or_default()
}

/// The cells of the first line that begins with `name`, behind the line `after`.
fn row<'a>(text: &'a str, after: &str, name: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(after));
    let line = lines.find(|line| line.starts_with(name)).unwrap();
    line.split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect()
}

#[test]
fn every_line_fits() {
    for report in [fixture::report(), fixture::disturbed()] {
        for width in [60, 80, 100] {
            let table = table(&report, width, false);
            assert!(widest(&table) <= width, "{width}:\n{table}");
            assert!(table.lines().all(|line| line == line.trim_end()), "{width}");
        }
    }
}

#[test]
fn a_hundred_columns_need_two_tables_for_a_load() {
    let table = table(&fixture::report(), 100, false);
    let heads = table.lines().filter(|line| line.starts_with("MODE "));
    assert_eq!(heads.count(), 4 * 2);
}

#[test]
fn nothing_is_left_out_where_it_is_narrow() {
    let report = fixture::report();
    for width in [80, 100] {
        let table = table(&report, width, false);
        for title in [
            "PER S",
            "RATIO",
            "CARRIED",
            "P50",
            "P90",
            "P99",
            "P99.9",
            "MAX",
            "P99, RATIO",
            "MAX/MEAN",
            "CV",
            "JAIN",
            "WORKERS",
            "DISPATCH",
            "LOAD",
            "PER REQ.",
            "OVERFLOW",
        ] {
            assert!(table.contains(title), "{width}: {title}");
        }
    }
}

#[test]
fn ratios_are_those_of_the_rounds() {
    let report = fixture::report();
    let table = table(&report, 100, false);
    let rate = |mode: usize, round: usize| {
        let load = &report.modes[mode].measured[0].rounds[round].load;
        load.answered as f64 / load.seconds
    };
    let mut ratios: Vec<f64> = (0..5)
        .map(|round| rate(6, round) / rate(3, round))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let cells = row(&table, "peak", "reuseport-ebpf:round-robin");
    assert!(
        cells[2].starts_with(&format!("{:.2} (", ratios[2])),
        "{cells:?}"
    );
    assert_eq!(row(&table, "peak", "master-dispatch")[2], "baseline");
    assert_eq!(
        row(&table, "peak", "reuseport-ebpf:source")[2],
        "no difference"
    );
    let overloaded = row(&table, "90 %", "proxy-dispatch");
    assert_eq!(overloaded[2], "58 %");
}

#[test]
fn a_limit_of_the_generator_is_marked_and_explained() {
    let table = table(&fixture::report(), 100, false);
    assert!(row(&table, "peak", "reuseport-ebpf:round-robin")[1].starts_with("≥ 3"));
    assert!(!row(&table, "peak", "reuseport-kernel")[1].contains('≥'));
    assert!(table.contains("· ≥: the generator was the bottleneck"));
}

#[test]
fn only_errors_that_happened_are_told() {
    let table = table(&fixture::report(), 100, false);
    let told: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("errors"))
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        told.iter()
            .all(|line| line.contains("proxy-dispatch: 60 timed out of "))
    );
}

#[test]
fn with_disturbances_failures_lead() {
    let table = table(&fixture::disturbed(), 100, false);
    let first_block = table.split("\n\n").nth(1).unwrap();
    assert!(first_block.contains("disturbed by kill"), "{first_block}");
    let cells = row(first_block, "50 %", "single");
    assert_eq!(cells[1..3], ["41.0", "10"]);
    let cells = row(first_block, "50 %", "reuseport-ebpf:round-robin");
    assert_eq!(cells[1..3], ["0", "10"]);
}

#[test]
fn colour_only_adds() {
    let report = fixture::report();
    let coloured = table(&report, 100, true);
    let mut plain = coloured.clone();
    for code in [
        "\u{1b}[0m",
        "\u{1b}[1m",
        "\u{1b}[2m",
        "\u{1b}[31m",
        "\u{1b}[32m",
    ] {
        assert!(coloured.contains(code), "{code:?}");
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, table(&report, 100, false));
    assert!(
        !plain.contains('\u{1b}'),
        "what a failed mode says is not passed on as it is"
    );
}

#[test]
fn a_report_of_failures_is_one() {
    let mut report = fixture::report();
    for mode in &mut report.modes {
        mode.measured.clear();
        mode.failed = Some(format!("no port\r\nfor it {}", "x".repeat(300)));
    }
    report.shape = Shape::LongLived;
    let table = table(&report, 80, false);
    assert!(widest(&table) <= 80, "{table}");
    assert!(table.contains("· single, not measured: no port for it"));
    assert!(table.contains("few connections, kept for the whole run"));
}

#[test]
fn what_is_missing_is_a_dash() {
    let mut report = fixture::report();
    report.baseline = "proxy-dispatch".to_owned();
    report.modes[4].measured.clear();
    for round in &mut report.modes[0].measured[0].rounds {
        round.load.answered = 0;
        round.load.latency = "nonsense".to_owned();
        round.load.by_worker.clear();
        round.usage.by_worker = None;
    }
    let table = table(&report, 100, false);
    // No ratio, no latency, no spread; then no CPU seconds and no switches.
    let first = row(&table, "peak", "single");
    assert_eq!((first[1], &first[2..]), ("0", &["–"; 9][..]));
    let mut lines = table.lines().filter(|line| line.starts_with("single"));
    assert_eq!(lines.nth(1).unwrap().matches('–').count(), 4);
}

#[test]
fn the_command_can_be_pasted() {
    let mut report = fixture::report();
    report
        .command
        .push(format!("it's {}\nlong", "very ".repeat(50)));
    for width in [60, 80, 100] {
        let table = table(&report, width, false);
        let from = table.find("reuseport-launch bench").unwrap();
        let script = format!("printf '%s\\0' {}", &table[from..]);
        let output = std::process::Command::new("bash")
            .arg("-c")
            .arg(script)
            .output()
            .unwrap();
        let arguments = String::from_utf8(output.stdout).unwrap();
        let arguments: Vec<&str> = arguments.trim_end_matches('\0').split('\0').collect();
        assert_eq!(arguments, report.command);
        assert!(widest(&table) <= width, "{table}");
    }
}
