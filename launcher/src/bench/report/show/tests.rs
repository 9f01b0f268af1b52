use super::*;
use crate::bench::stats::Interval;

#[test]
fn three_digits() {
    for (value, shown) in [
        (0.0, "0"),
        (0.0412, "0.041"),
        (0.9999, "1.00"),
        (1.934, "1.93"),
        (9.996, "10.0"),
        (12.44, "12.4"),
        (99.96, "100"),
        (100.0, "100"),
        (812.4, "812"),
        (999.6, "1 000"),
        (38_243.0, "38 200"),
        (1_204_117.0, "1 200 000"),
        (f64::NAN, "–"),
    ] {
        assert_eq!(three(value), shown, "{value}");
    }
    assert_eq!(whole(1_204_117), "1 204 117");
    assert_eq!(whole(17), "17");
}

#[test]
fn times_have_their_own_unit() {
    assert_eq!(time(412.0), "412 ns");
    assert_eq!(time(85_300.0), "85.3 µs");
    assert_eq!(time(999_700.0), "1.00 ms");
    assert_eq!(time(2_400_000_000.0), "2.40 s");
    assert_eq!(round_time(199_999.9), "200 µs");
    assert_eq!(round_time(3_000_000.0), "3 ms");
}

#[test]
fn noise_is_no_ratio() {
    let shown = |ratio, low, high, verdict| {
        compared(&Compared {
            ratio,
            interval: Some(Interval { low, high }),
            verdict: Some(verdict),
        })
    };
    assert_eq!(
        shown(1.934, 1.88, 1.97, Verdict::Better),
        "1.93 (1.88–1.97)"
    );
    assert_eq!(
        shown(1.01, 0.98, 1.03, Verdict::NoDifference),
        "no difference"
    );
}

#[test]
fn only_what_happened_is_told() {
    assert_eq!(errors(&Errors::default()), "");
    let some = Errors {
        timeout: 1_200,
        reset: 3,
        ..Errors::default()
    };
    assert_eq!(errors(&some), "3 reset, 1 200 timed out");
}

#[test]
fn arguments_survive_a_shell() {
    for argument in [
        "bench",
        "--load=50,70",
        "a b",
        "it's",
        "",
        "\u{1b}[31m\n'\\",
        "é ü",
    ] {
        let output = std::process::Command::new("bash")
            .arg("-c")
            .arg(format!("printf %s {}", quoted(argument)))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), argument);
        assert!(!quoted(argument).chars().any(char::is_control));
    }
}
