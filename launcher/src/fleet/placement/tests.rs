//! Counts, orders and lists.

use proptest::{collection::vec, prelude::*};

use super::{
    CPUS_MAX, Cpu, CpuListError, Pinning, WORKERS_MAX, Workers, WorkersError, auto_count,
    format_cpu_list, parse_cpu_list, spread,
};

#[test]
fn workers_parse_and_show() {
    assert_eq!("auto".parse(), Ok(Workers::Auto));
    assert_eq!("1".parse(), Ok(Workers::Count(1)));
    assert_eq!("256".parse(), Ok(Workers::Count(WORKERS_MAX)));
    for text in ["auto", "1", "256"] {
        assert_eq!(text.parse::<Workers>().unwrap().to_string(), text);
    }
}

#[test]
fn other_numbers_of_workers_are_refused() {
    for (text, error) in [
        ("0", WorkersError::Zero),
        ("257", WorkersError::TooMany),
        ("99999999999999999999", WorkersError::TooMany),
        ("-1", WorkersError::NotANumber),
        ("2.5", WorkersError::NotANumber),
        ("max", WorkersError::NotANumber),
        ("", WorkersError::NotANumber),
    ] {
        assert_eq!(text.parse::<Workers>(), Err(error), "{text:?}");
    }
    assert_eq!(
        WorkersError::Zero.to_string(),
        "without workers nothing would serve; allowed: auto, or 1 to 256"
    );
}

#[test]
fn auto_is_the_smaller_of_affinity_and_quota() {
    for (affinity, quota, count, why) in [
        (4, None, 4, "affinity 4"),
        (16, Some(7.5), 8, "affinity 16, cpu.max 7.5 → 8"),
        (4, Some(7.5), 4, "affinity 4, cpu.max 7.5 → 4"),
        (16, Some(2.0), 2, "affinity 16, cpu.max 2 → 2"),
        (16, Some(0.5), 1, "affinity 16, cpu.max 0.5 → 1"),
        (16, Some(7.0 / 3.0), 3, "affinity 16, cpu.max 2.333 → 3"),
        (384, None, 256, "affinity 384, at most 256 → 256"),
        (
            384,
            Some(300.0),
            256,
            "affinity 384, cpu.max 300, at most 256 → 256",
        ),
        (0, None, 1, "affinity unknown → 1"),
        (2, Some(f64::NAN), 1, "affinity 2, cpu.max NaN → 1"),
        (2, Some(f64::INFINITY), 2, "affinity 2, cpu.max inf → 2"),
    ] {
        assert_eq!(auto_count(affinity, quota), (count, why.to_owned()));
    }
}

fn cpu(id: u32, package: u32, core: u32) -> Cpu {
    Cpu {
        id,
        core: (package, core),
    }
}

#[test]
fn physical_cores_come_before_their_siblings() {
    // Siblings next to each other, as on virtual machines.
    let adjacent: Vec<Cpu> = (0..8).map(|id| cpu(id, 0, id / 2)).collect();
    assert_eq!(spread(&adjacent), [0, 2, 4, 6, 1, 3, 5, 7]);
    // Siblings in the upper half, as on most servers; the same core numbers in both packages.
    let halves: Vec<Cpu> = (0..8).map(|id| cpu(id, id % 4 / 2, id % 2)).collect();
    assert_eq!(spread(&halves), [0, 1, 2, 3, 4, 5, 6, 7]);
    // Four threads a core, in any order.
    let mut four: Vec<Cpu> = (0..8).map(|id| cpu(id, 0, id / 4)).collect();
    four.reverse();
    assert_eq!(spread(&four), [0, 4, 1, 5, 2, 6, 3, 7]);
    // Where the affinity has only one of two siblings, that one is a core of its own.
    assert_eq!(
        spread(&[cpu(5, 0, 2), cpu(2, 0, 1), cpu(3, 0, 1)]),
        [2, 5, 3]
    );
    assert_eq!(spread(&[]), Vec::<u32>::new());
}

#[test]
fn slots_go_to_their_cpus_and_start_over() {
    let order = [0, 2, 1, 3];
    assert_eq!(Pinning::None.cpus_for(0, &order), None);
    assert_eq!(Pinning::Auto.cpus_for(1, &order), Some(vec![2]));
    assert_eq!(Pinning::Auto.cpus_for(6, &order), Some(vec![1]));
    assert_eq!(Pinning::Auto.cpus_for(0, &[]), None);
    let list = Pinning::List(vec![6, 1]);
    assert_eq!(list.cpus_for(0, &order), Some(vec![6]));
    assert_eq!(list.cpus_for(3, &order), Some(vec![1]));
}

#[test]
fn pinning_parses_and_shows() {
    assert_eq!("none".parse(), Ok(Pinning::None));
    assert_eq!("auto".parse(), Ok(Pinning::Auto));
    assert_eq!("0-3,6".parse(), Ok(Pinning::List(vec![0, 1, 2, 3, 6])));
    for text in ["none", "auto", "0-3,6", "6,0-3"] {
        assert_eq!(text.parse::<Pinning>().unwrap().to_string(), text);
    }
    assert_eq!(
        "all".parse::<Pinning>().unwrap_err().to_string(),
        "`all` is no CPU; allowed: none, auto, or a list of CPUs like 0-3,6"
    );
}

#[test]
fn malformed_lists_are_refused() {
    let not_a_cpu = |part: &str| CpuListError::NotACpu(part.to_owned());
    for (text, error) in [
        ("", not_a_cpu("")),
        (" ", not_a_cpu("")),
        ("1,,2", not_a_cpu("")),
        ("1,", not_a_cpu("")),
        ("-1", not_a_cpu("")),
        ("1-", not_a_cpu("")),
        ("0-6:2/4", not_a_cpu("6:2/4")),
        ("1-2-3", not_a_cpu("2-3")),
        ("3-1", CpuListError::Backwards("3-1".to_owned())),
        ("8192", CpuListError::TooHigh("8192".to_owned())),
        (
            "0-4294967296",
            CpuListError::TooHigh("4294967296".to_owned()),
        ),
    ] {
        assert_eq!(text.parse::<Pinning>(), Err(error), "{text:?}");
    }
}

#[test]
fn lists_of_the_kernel_parse() {
    assert_eq!(parse_cpu_list("0-1,4\n"), Ok(vec![0, 1, 4]));
    assert_eq!(parse_cpu_list("\n"), Ok(vec![]));
}

proptest! {
    #[test]
    fn lists_survive_a_round_trip(cpus in vec(0..CPUS_MAX, 0..40)) {
        prop_assert_eq!(parse_cpu_list(&format_cpu_list(&cpus)), Ok(cpus));
    }

    #[test]
    fn spread_is_a_permutation(cores in vec((0u32..2, 0u32..4), 0..64)) {
        let cpus: Vec<Cpu> = (0..).zip(&cores).map(|(id, &core)| Cpu { id, core }).collect();
        let mut order = spread(&cpus);
        order.sort_unstable();
        prop_assert_eq!(order, (0..cores.len() as u32).collect::<Vec<_>>());
    }
}
