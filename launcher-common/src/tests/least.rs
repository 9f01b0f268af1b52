//! The least busy member.

use std::vec::Vec;

use proptest::{collection::vec, prelude::*};

use super::choose::{seat, table};
use crate::{Handshakes, Load, Policy, SCAN_MAX, Share, choose_least};

const LEAST: u32 = Policy::LeastConn as u32;

/// A sequence in which each member follows the one before it; their weights are all 1.
fn members(count: u16) -> Vec<u16> {
    (0..count).collect()
}

#[test]
fn idle_members_take_turns() {
    let table = table(LEAST, &[0, 1, 0, 2]);
    let chosen: Vec<u16> = (0..8)
        .filter_map(|turn| Some(choose_least(&table, turn, |_, _| 0, |_| true)?.member))
        .collect();
    assert_eq!(chosen, [0, 1, 0, 2, 0, 1, 0, 2]);
}

#[test]
fn a_window_of_many_members_moves_on() {
    let count = 4 * SCAN_MAX as u16;
    let table = table(LEAST, &members(count));
    // Whichever is idle is found, in a quarter of the turns.
    for idle in [0, 1, count / 4 - 1, count / 4, count - 20, count - 1] {
        let load = |_, share: Share| u32::from(share.seat != seat(idle));
        let found = (0..u32::from(count))
            .filter(|&turn| {
                choose_least(&table, turn, load, |_| true)
                    .is_some_and(|chosen| chosen.member == idle)
            })
            .count();
        assert_eq!(found, SCAN_MAX as usize);
    }
}

#[test]
fn a_thousand_handshakes_in_flight_are_dealt_out_evenly() {
    const WORKERS: usize = 8;
    const CLIENTS: u32 = 1000;
    let table = table(LEAST, &members(WORKERS as u16));
    // With some connections already, unevenly spread, and with handshakes that will never end.
    for (active, lost) in [
        ([0; WORKERS], 0),
        ([0, 9, 3, 0, 40, 0, 7, 1], 0),
        ([0; WORKERS], 500),
    ] {
        let mut loads = active.map(|active| Load {
            active,
            handshakes: 0,
        });
        let begin = |loads: &mut [Load; WORKERS], turn, now| {
            let load = |member: u16, _: Share| loads[usize::from(member)].total(now);
            let chosen = choose_least(&table, turn, load, |_| true).expect("all are there");
            let load = &mut loads[usize::from(chosen.member)];
            load.handshakes = Handshakes(load.handshakes).begun(now).0;
            usize::from(chosen.member)
        };
        for turn in 0..lost {
            begin(&mut loads, turn, 0);
        }
        // None is complete before the last has begun, in the next epoch for some.
        let epoch = |turn| 1 + u64::from(turn > CLIENTS / 2);
        let chosen: Vec<usize> = (0..CLIENTS)
            .map(|turn| begin(&mut loads, turn, epoch(turn)))
            .collect();
        for member in chosen {
            let load = &mut loads[member];
            load.handshakes = Handshakes(load.handshakes).completed(2).0;
            load.active += 1;
        }
        let most = loads.iter().map(|load| load.active).max().expect("eight");
        let sum: u64 = loads.iter().map(|load| load.active).sum();
        assert!(most * WORKERS as u64 * 100 <= sum * 115, "{loads:?}");
        assert!(
            loads
                .iter()
                .all(|load| Handshakes(load.handshakes).count(4) == 0)
        );
    }
}

proptest! {
    #[test]
    fn it_is_the_least_busy_for_its_weight(
        weighted in vec((1u16..5, 0u32..50), 1..SCAN_MAX as usize),
        turn: u32,
    ) {
        let entries: Vec<u16> = (0..).zip(&weighted)
            .flat_map(|(member, &(weight, _))| std::iter::repeat_n(member, weight.into()))
            .collect();
        let load = |member: u16, _: Share| weighted[usize::from(member)].1;
        let table = table(LEAST, &entries);
        let chosen = choose_least(&table, turn, load, |_| true).expect("all are there");
        let (weight, least) = weighted[usize::from(chosen.member)];
        for &(other, load) in &weighted {
            prop_assert!(least * u32::from(other) <= load * u32::from(weight));
        }
    }

    #[test]
    fn one_that_has_gone_is_passed_by(count in 2u16..SCAN_MAX as u16, turn: u32, gone: prop::sample::Index) {
        let gone = gone.index(count.into()) as u16;
        let table = table(LEAST, &members(count));
        let load = |_, share: Share| u32::from(share.seat != seat(gone));
        let chosen = choose_least(&table, turn, load, |member| member != gone).expect("others are there");
        prop_assert_ne!(chosen.member, gone);
        prop_assert!(chosen.after_miss);
    }

    #[test]
    fn loads_stay_even_while_connections_come_and_go(
        count in 2u16..20,
        // Each closes so many arrivals later.
        durations in vec(1usize..60, 200..400),
    ) {
        let table = table(LEAST, &members(count));
        let mut loads: Vec<u32> = std::iter::repeat_n(0, count.into()).collect();
        let mut open: Vec<(usize, u16)> = Vec::new();
        for (turn, duration) in durations.into_iter().enumerate() {
            open.retain(|&(until, member)| {
                let stays = until > turn;
                if !stays {
                    loads[usize::from(member)] -= 1;
                }
                stays
            });
            let least = *loads.iter().min().expect("there are two");
            let load = |member: u16, _: Share| loads[usize::from(member)];
            let chosen = choose_least(&table, turn as u32, load, |_| true).expect("all are there").member;
            prop_assert_eq!(loads[usize::from(chosen)], least);
            loads[usize::from(chosen)] += 1;
            open.push((turn + duration, chosen));
        }
    }
}
