use proptest::{collection::vec, prelude::*};

use super::*;

/// Normally distributed, from a seed: Box and Muller's way.
struct Normal(u64);

impl Normal {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn next(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[test]
fn medians() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(median(&[f64::NAN, 7.0, f64::INFINITY]), Some(7.0));
    assert_eq!(median(&[]), None);
}

#[test]
fn the_ordered_values_are_those_of_the_tables() {
    // The sign test's critical values at 5 %, two-sided.
    for (rounds, left_out) in [
        (6, 0),
        (8, 0),
        (9, 1),
        (12, 2),
        (20, 5),
        (50, 17),
        (100, 39),
    ] {
        assert_eq!(cut(rounds), left_out, "{rounds} rounds");
    }
    // Far beyond what 0.5^n can be as a number.
    assert!((4_850..4_930).contains(&cut(10_000)));
}

#[test]
fn the_interval_holds_what_it_promises() {
    for rounds in [2, 3, 5, 6, 9, 15] {
        let mut noise = Normal(rounds as u64);
        let inside = (0..4_000)
            .filter(|_| {
                let ratios: Vec<f64> = (0..rounds)
                    .map(|_| 1.5 * (0.05 * noise.next()).exp())
                    .collect();
                let found = interval(&ratios).unwrap();
                found.low <= 1.5 && 1.5 <= found.high
            })
            .count();
        // 95 % of 4000, less 3 standard deviations.
        assert!(inside >= 3_758, "{rounds} rounds: {inside} of 4000");
    }
}

#[test]
fn verdicts_follow_the_direction() {
    let pairs: Vec<(f64, f64)> = [1.9, 2.0, 1.95, 2.02, 1.98].map(|r| (r * 7.0, 7.0)).into();
    let verdict = |pairs: &[(f64, f64)], better| compare(pairs, better).unwrap().verdict;
    assert_eq!(verdict(&pairs, Better::More), Some(Verdict::Better));
    assert_eq!(verdict(&pairs, Better::Less), Some(Verdict::Worse));
    let noise = [(1.02, 1.0), (0.99, 1.0), (1.0, 1.0), (1.01, 1.0)];
    assert_eq!(verdict(&noise, Better::More), Some(Verdict::NoDifference));
    let same = [(3.0, 3.0); 5];
    assert_eq!(verdict(&same, Better::Less), Some(Verdict::NoDifference));
}

#[test]
fn few_rounds_claim_little() {
    let one = compare(&[(2.0, 1.0)], Better::More).unwrap();
    assert_eq!((one.ratio, one.interval, one.verdict), (2.0, None, None));
    assert_eq!(compare(&[], Better::More), None);
    assert_eq!(compare(&[(1.0, 0.0), (f64::NAN, 1.0)], Better::More), None);
    let nothing = compare(&[(0.0, 5.0), (0.0, 4.0), (4.0, 4.0)], Better::More).unwrap();
    let interval = nothing.interval.unwrap();
    assert_eq!((interval.low, interval.high), (0.0, 1.0));
}

#[test]
fn spreads() {
    let even = spread(&[25, 25, 25, 25]).unwrap();
    assert_eq!(
        (even.max_over_mean, even.variation, even.jain),
        (1.0, 0.0, 1.0)
    );
    let one = spread(&[0, 0, 80, 0]).unwrap();
    assert_eq!((one.max_over_mean, one.jain), (4.0, 0.25));
    assert!((one.variation - 3.0_f64.sqrt()).abs() < 1e-12);
    assert_eq!(spread(&[]), None);
    assert_eq!(spread(&[0, 0]), None);
}

proptest! {
    #[test]
    fn an_interval_encloses_its_median(values in vec(1e-3_f64..1e6, 2..60)) {
        let middle = median(&values).unwrap();
        let found = interval(&values).unwrap();
        prop_assert!(found.low <= middle * (1.0 + 1e-9) && middle <= found.high * (1.0 + 1e-9));
    }

    #[test]
    fn the_order_of_rounds_does_not_matter(mut pairs in vec((1.0_f64..1e5, 1.0_f64..1e5), 2..40)) {
        let before = compare(&pairs, Better::More).unwrap();
        pairs.reverse();
        let after = compare(&pairs, Better::More).unwrap();
        prop_assert_eq!(before.ratio, after.ratio);
        prop_assert_eq!(before.verdict, after.verdict);
    }

    #[test]
    fn whoever_is_better_has_one_that_is_worse(pairs in vec((1.0_f64..1e5, 1.0_f64..1e5), 2..40)) {
        let swapped: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (b, a)).collect();
        let one = compare(&pairs, Better::More).unwrap();
        let other = compare(&swapped, Better::More).unwrap();
        let expected = match one.verdict.unwrap() {
            Verdict::Better => Verdict::Worse,
            Verdict::Worse => Verdict::Better,
            Verdict::NoDifference => Verdict::NoDifference,
        };
        prop_assert_eq!(other.verdict.unwrap(), expected);
        prop_assert!((other.interval.unwrap().low * one.interval.unwrap().high - 1.0).abs() < 1e-6);
    }

    #[test]
    fn spreads_keep_their_bounds(counts in vec(0_u64..1_000_000, 1..64)) {
        let n = counts.len() as f64;
        if let Some(found) = spread(&counts) {
            prop_assert!((1.0..=n + 1e-9).contains(&found.max_over_mean));
            prop_assert!((1.0 / n - 1e-9..=1.0 + 1e-9).contains(&found.jain));
            // Jain's index is a function of the variation.
            prop_assert!((found.jain - 1.0 / (1.0 + found.variation.powi(2))).abs() < 1e-9);
        } else {
            prop_assert!(counts.iter().all(|&count| count == 0));
        }
    }
}
