use super::*;
use crate::bench::report::fixture;

/// A text with the box that it is about as large as: left, right, top, bottom.
#[derive(Debug)]
struct Placed {
    text: String,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let from = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    element[from..].split('"').next().unwrap()
}

fn texts(document: &str) -> Vec<Placed> {
    let element = |part: &str| {
        let (head, rest) = part.split_once('>').unwrap();
        let text = rest.split("</text>").next().unwrap().trim().to_owned();
        let number = |name| attribute(head, name).parse::<f64>().unwrap();
        let size = number("font-size");
        let bold = if head.contains("bold") { 1.08 } else { 1.0 };
        let width = text.chars().count() as f64 * size * 0.55 * bold;
        let left = match attribute(head, "text-anchor") {
            "start" => number("x"),
            "middle" => number("x") - width / 2.0,
            _ => number("x") - width,
        };
        Placed {
            text,
            left,
            right: left + width,
            top: number("y") - size / 2.0,
            bottom: number("y") + size / 2.0,
        }
    };
    document.split("<text").skip(1).map(element).collect()
}

#[test]
fn no_text_is_on_another_or_outside() {
    for report in [fixture::report(), fixture::disturbed()] {
        let document = svg(&report).unwrap();
        let width = 4.0 * f64::from(WIDTH);
        let texts = texts(&document);
        assert!(
            texts
                .iter()
                .any(|it| it.text == "reuseport-ebpf:round-robin")
        );
        for (index, one) in texts.iter().enumerate() {
            assert!(one.left >= 0.0 && one.right <= width, "{one:?}");
            for other in &texts[index + 1..] {
                let apart = one.right <= other.left
                    || other.right <= one.left
                    || one.bottom <= other.top
                    || other.bottom <= one.top;
                assert!(apart, "{one:?}\n{other:?}");
            }
        }
    }
}

#[test]
fn each_mode_has_a_bar_and_a_curve_under_each_load() {
    let document = svg(&fixture::report()).unwrap();
    let bars = document.lines().filter(|line| line.starts_with("<rect x="));
    assert_eq!(bars.count(), 12);
    let long = |line: &&str| {
        line.starts_with("<polyline") && attribute(line, "points").split(' ').count() > 50
    };
    let curves: Vec<&str> = document.lines().filter(long).collect();
    assert_eq!(curves.len(), 3 * 12);
    // Six colours, then again with dashes; the baseline is apart.
    let dashed = curves
        .iter()
        .filter(|line| line.contains("stroke-dasharray"));
    assert_eq!(dashed.count(), 3 * 5);
}

#[test]
fn bars_are_as_long_as_their_rates() {
    let report = fixture::report();
    let document = svg(&report).unwrap();
    let widths: Vec<f64> = document
        .lines()
        .filter(|line| line.starts_with("<rect x="))
        .map(|line| attribute(line, "width").parse().unwrap())
        .collect();
    let summary = Summary::of(&report);
    let rates: Vec<f64> = summary.levels[0]
        .modes
        .iter()
        .map(|mode| mode.rate)
        .collect();
    for (width, rate) in widths.iter().zip(&rates) {
        let expected = widths[3] * rate / rates[3];
        assert!((width - expected).abs() <= 2.0, "{width} {expected}");
    }
}

#[test]
fn with_disturbances_failures_lead() {
    let document = svg(&fixture::disturbed()).unwrap();
    let first = document.find("Failed requests for each kill").unwrap();
    assert!(first < document.find("per second at the peak").unwrap());
}

#[test]
fn what_names_contain_is_text() {
    let mut report = fixture::report();
    report.modes[0].mode = "<script>\u{1}&\"'".to_owned();
    report.work = "./server </title><script>".to_owned();
    let document = svg(&report).unwrap();
    assert!(!document.contains("<script"), "escaped");
    assert!(document.contains("&lt;script&gt;"));
    assert!(!document.contains('\u{1}'), "XML has no such character");
}

#[test]
fn nothing_measured_is_said() {
    let mut report = fixture::report();
    for mode in &mut report.modes {
        mode.measured.clear();
    }
    assert!(svg(&report).unwrap().contains("Nothing was measured."));
    // And where there were rounds, but no answer in any.
    let mut report = fixture::disturbed();
    for measured in report.modes.iter_mut().flat_map(|mode| &mut mode.measured) {
        for round in &mut measured.rounds {
            round.load.answered = 0;
            round.load.latency =
                crate::bench::latency::encode(&hdrhistogram::Histogram::new(3).unwrap());
        }
    }
    assert!(svg(&report).unwrap().contains("No request was answered."));
}
