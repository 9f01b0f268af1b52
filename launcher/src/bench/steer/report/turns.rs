//! What turns cost, and how even they are.

use std::collections::BTreeSet;

use super::{median, paired, ranged};
use crate::{
    bench::steer::turns::{Cost, Costs, Evenness},
    steer::measure::Way,
};

/// The table of nanoseconds.
pub(in crate::bench::steer) fn costs(costs: &[Costs]) -> String {
    let mut text = format!(
        "{:>12}  {:<14}  {:>8}  {:<21}  {:>17}  CPUs were ours\n",
        "CPUs at once", "turns from", "gross", "net of no turn", "all CPUs together"
    );
    for Costs { cpus, ways } in costs {
        let floor = ways.iter().find(|(way, _)| *way == Way::None);
        let floor = floor.map_or_else(Vec::new, |(_, floor)| nanoseconds(floor));
        for (way, costs) in ways.iter().filter(|(way, _)| *way != Way::None) {
            let gross = nanoseconds(costs);
            let net = paired(&gross, &floor, |gross, floor| gross - floor);
            let ours: Vec<f64> = costs.iter().map(|cost| 100.0 * cost.ours).collect();
            text += &format!(
                "{cpus:>12}  {way:<14}  {:>5.1} ns  {:<21}  {:>7.1} million/s  {:>5.0} %\n",
                median(&gross),
                ranged(&net, 1),
                *cpus as f64 * 1e3 / median(&gross),
                median(&ours),
            );
        }
    }
    text
}

fn nanoseconds(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.nanoseconds).collect()
}

/// The table of evenness: a column for each number of CPUs.
pub(in crate::bench::steer) fn turns(simulated: &[Evenness]) -> String {
    type Figure = fn(&Evenness) -> f64;
    let figures: [(&str, usize, Figure); 4] = [
        ("± connections of a member, at worst", 1, |turns| turns.off),
        ("max/mean after a thousand each, at worst", 3, |turns| {
            turns.max_mean
        }),
        ("variation of the gaps (random: 0.94)", 2, |turns| {
            turns.gaps
        }),
        ("p99 at 70 %, in service times", 1, |turns| turns.p99),
    ];
    let cpus: BTreeSet<u64> = simulated.iter().map(|turns| turns.cpus).collect();
    let mut text = "Simulated: 8 members, connections that arrive at any CPU\n".to_owned();
    for (title, decimals, figure) in figures {
        text += &format!("{title:<40}");
        text.extend(
            cpus.iter()
                .map(|cpus| format!("{:>9}", format!("{cpus} CPUs"))),
        );
        text.push('\n');
        for (way, busy) in rows(simulated) {
            let name = match (way, busy) {
                (Way::Hybrid, true) => "hybrid, every CPU busy".to_owned(),
                (Way::Hybrid, false) => "hybrid, every CPU quiet".to_owned(),
                _ => way.to_string(),
            };
            text += &format!("  {name:<38}");
            let row = simulated
                .iter()
                .filter(|turns| (turns.way, turns.busy) == (way, busy));
            text.extend(row.map(|turns| format!("{:>9.decimals$}", figure(turns))));
            text.push('\n');
        }
    }
    text
}

/// Each way once, in their order.
fn rows(simulated: &[Evenness]) -> Vec<(Way, bool)> {
    let mut rows = Vec::new();
    for Evenness { way, busy, .. } in simulated {
        if !rows.contains(&(*way, *busy)) {
            rows.push((*way, *busy));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::steer::turns::simulate_all;

    fn fits(text: &str) -> bool {
        text.lines().all(|line| line.chars().count() <= 100)
    }

    #[test]
    fn a_turn_costs_what_it_takes_beyond_none() {
        let cost = |nanoseconds| Cost {
            nanoseconds,
            ours: 0.5,
        };
        let text = costs(&[Costs {
            cpus: 2,
            ways: vec![
                (Way::None, vec![cost(15.0), cost(19.0)]),
                (Way::Shared, vec![cost(24.0), cost(26.0)]),
            ],
        }]);
        assert!(text.contains("25.0 ns  8.0 (7.0–9.0)"), "{text}");
        assert!(text.contains("80.0 million/s     50 %"), "{text}");
        assert!(fits(&text), "{text}");
    }

    #[test]
    fn each_way_has_a_row_and_each_number_of_cpus_a_column() {
        let text = turns(&simulate_all());
        let rows = text.lines().filter(|line| line.starts_with("  "));
        assert!(
            rows.clone()
                .all(|row| row.split_ascii_whitespace().count() >= 8)
        );
        assert_eq!(rows.count(), 4 * 4);
        assert!(fits(&text), "{text}");
    }
}
