use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::bench::report::fixture;

const DOCUMENT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/BENCH-JSON.md"
));

/// Each field that occurs, such as `modes[].measured[].rounds[].load.sent`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                found.insert(path.clone());
                paths(value, &path, found);
            }
        }
        Value::Array(values) => {
            for value in values {
                paths(value, &format!("{path}[]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn parsed(report: &Report) -> Value {
    serde_json::from_str(&json(report)).unwrap()
}

#[test]
fn each_field_is_documented_and_each_documented_one_is_there() {
    let mut found = BTreeSet::new();
    for report in [fixture::report(), fixture::disturbed()] {
        paths(&parsed(&report), "", &mut found);
    }
    // Each table says with `Below NAME:` what its fields are below.
    let mut documented = BTreeSet::new();
    let mut below = Vec::new();
    for line in DOCUMENT.lines() {
        if let Some(rest) = line.strip_prefix("Below ") {
            below = rest.split('`').skip(1).step_by(2).collect();
        } else if line.starts_with("## ") {
            below = vec![""];
        } else if let Some(field) = line.strip_prefix("| `").and_then(|it| it.split('`').next()) {
            for place in &below {
                let dot = if place.is_empty() { "" } else { "." };
                documented.insert(format!("{place}{dot}{field}"));
            }
        }
    }
    let missing: Vec<_> = found.difference(&documented).collect();
    assert!(missing.is_empty(), "not documented: {missing:#?}");
    let gone: Vec<_> = documented.difference(&found).collect();
    assert!(gone.is_empty(), "documented, but not there: {gone:#?}");
}

#[test]
fn the_report_can_be_read_again() {
    for report in [fixture::report(), fixture::disturbed()] {
        let read: Report = serde_json::from_str(&json(&report)).unwrap();
        assert!(read == report);
    }
}

#[test]
fn the_summary_is_that_of_the_rounds() {
    let report = fixture::report();
    let value = parsed(&report);
    let levels = value["summary"]["levels"].as_array().unwrap();
    assert_eq!(levels.len(), 4);
    assert_eq!(levels[0]["level"], "peak");
    assert_eq!(levels[3]["level"]["percent"], 90);
    for (mode, summary) in report
        .modes
        .iter()
        .zip(levels[0]["modes"].as_array().unwrap())
    {
        let rounds = &mode.measured[0].rounds;
        assert_eq!(summary["mode"], *mode.mode);
        let mut rates: Vec<f64> = rounds
            .iter()
            .map(|round| round.load.answered as f64 / round.load.seconds)
            .collect();
        rates.sort_by(f64::total_cmp);
        assert_eq!(summary["rate"], rates[2]);
        let sent: u64 = rounds.iter().map(|round| round.load.sent).sum();
        assert_eq!(summary["sent"], sent);
        let ratio = summary["rate_ratio"]["ratio"].as_f64().unwrap();
        let interval = &summary["rate_ratio"]["interval"];
        assert!(interval["low"].as_f64().unwrap() <= ratio, "{summary}");
        assert!(interval["high"].as_f64().unwrap() >= ratio, "{summary}");
    }
    let single = &levels[0]["modes"][0];
    assert_eq!(single["spread"]["max_over_mean"], 2.0);
    assert_eq!(single["spread"]["jain"], 0.5);
    let baseline = &levels[0]["modes"][3]["rate_ratio"];
    assert_eq!(baseline["ratio"], 1.0);
    assert_eq!(baseline["verdict"], "no-difference");
    assert_eq!(levels[0]["modes"][6]["rate_ratio"]["verdict"], "better");
}

#[test]
fn failures_are_counted_per_disturbance() {
    let value = parsed(&fixture::disturbed());
    let level = &value["summary"]["levels"][0];
    assert_eq!(level["level"]["percent"], 50);
    assert_eq!(level["modes"][0]["failed_per_disturbance"], 41.0);
    assert_eq!(level["modes"][4]["failed_per_disturbance"], 0.0);
    let peak = &value["summary"]["levels"][1]["modes"][0];
    assert!(peak["failed_per_disturbance"].is_null());
}
