//! dnsmasq, which answers over UDP and TCP, on both families.

use std::{collections::BTreeSet, thread};

use kernel_tests::{
    dns::{self, Transport},
    flow::Flow,
    gate,
    launcher::{Launch, Launcher},
    servers,
};

use crate::{sum, v4, v6};

fn dnsmasq(workers: u32, options: &[&str]) -> Launcher {
    let launcher = Launch::of(servers::dnsmasq(5353))
        .options(["--workers", &workers.to_string()])
        .options(options)
        .ready();
    launcher.members(u64::from(workers) * 4);
    launcher
}

#[test]
fn by_default_a_client_has_one_server() {
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let launcher = dnsmasq(3, &[]);
    for to in [v4(), v6()] {
        let mut used = BTreeSet::new();
        for flow in Flow::many(to, 32) {
            let slots: BTreeSet<String> = (0..3).map(|_| dns::ask_on(&flow)).collect();
            assert_eq!(slots.len(), 1, "a flow was torn apart: {slots:?}");
            used.extend(slots);
        }
        assert_eq!(used.len(), 3, "not every worker is used: {used:?}");
    }
    launcher.stop_clean();
}

#[test]
fn questions_are_dealt_out_one_by_one_on_request() {
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let launcher = dnsmasq(4, &["--steer-udp", "round-robin"]);
    for to in [v4(), v6()] {
        let flow = Flow::to(to);
        let slots: Vec<String> = (0..16).map(|_| dns::ask_on(&flow)).collect();
        let (first, rest) = slots.split_at(4);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4, "{slots:?}");
        assert!(rest.chunks(4).all(|round| round == first), "{slots:?}");
    }
    launcher.stop_clean();
}

#[test]
fn no_question_is_lost_in_a_reload() {
    let Some(_netns) = gate::enter(&["dnsmasq"]) else {
        return;
    };
    let launcher = dnsmasq(2, &["--steer-udp", "round-robin"]);
    thread::scope(|scope| {
        let reloads = scope.spawn(|| (0..2).for_each(|_| launcher.reload()));
        while !reloads.is_finished() {
            for to in [v4(), v6()] {
                for transport in [Transport::Udp, Transport::Tcp] {
                    let _slots = dns::spread(transport, to, 5);
                }
            }
        }
    });
    assert!(launcher.status().is_ready(1, 3));
    assert_eq!(sum(&launcher, "fell_through_total"), 0);
    launcher.stop_clean();
}
