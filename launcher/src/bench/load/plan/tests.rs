use super::*;

fn spec() -> LoadSpec {
    LoadSpec {
        address: ([127, 0, 0, 1], 8080).into(),
        path: "/a?b=%20".to_owned(),
        shape: Shape::Connection,
        pace: Pace::Open {
            rate: 1000.0,
            connections: 5,
        },
        warmup: 0.5,
        seconds: 2.0,
        timeout: 1.0,
        cpus: vec![0, 1],
        seed: 7,
    }
}

#[test]
fn threads_share_connections_and_rate() {
    let plan = Plan::new(&spec()).unwrap();
    let [first, second] = &plan.shares[..] else {
        panic!("{plan:?}");
    };
    assert_eq!((first.connections, second.connections), (3, 2));
    assert_eq!((first.rate, second.rate), (Some(600.0), Some(400.0)));
    assert_eq!((first.cpu, second.cpu), (Some(0), Some(1)));
    assert_ne!(first.seed, second.seed);
    let single = LoadSpec {
        pace: Pace::Closed { connections: 1 },
        ..spec()
    };
    let shares = Plan::new(&single).unwrap().shares;
    assert_eq!((shares.len(), shares[0].rate), (1, None));
}

#[test]
fn requests_are_whole() {
    let plan = Plan::new(&spec()).unwrap();
    for (bytes, closes) in [(plan.request, false), (plan.last_request, true)] {
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with("GET /a?b=%20 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n") && text.matches("\r\n\r\n").count() == 1);
        assert_eq!(text.contains("\r\nConnection: close\r\n"), closes);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let open = |rate, connections| Pace::Open { rate, connections };
    let paths = ["", "a", "/a b", "/a\r\nX: 1", "/ä"];
    let mut wrong: Vec<LoadSpec> = paths
        .map(|path| LoadSpec {
            path: path.to_owned(),
            ..spec()
        })
        .into();
    let paces = [
        Pace::Closed { connections: 0 },
        Pace::Closed {
            connections: u32::MAX,
        },
        open(0.0, 1),
        open(-1.0, 1),
        open(f64::NAN, 1),
        open(f64::INFINITY, 1),
        open(1.0, 0),
    ];
    wrong.extend(paces.map(|pace| LoadSpec { pace, ..spec() }));
    for time in [-1.0, 1e300, f64::NAN] {
        wrong.extend([
            LoadSpec {
                warmup: time,
                ..spec()
            },
            LoadSpec {
                seconds: time,
                ..spec()
            },
            LoadSpec {
                timeout: time,
                ..spec()
            },
        ]);
    }
    wrong.push(LoadSpec {
        cpus: vec![1 << 20],
        ..spec()
    });
    let shape = Shape::KeepAlive { requests: 0 };
    wrong.push(LoadSpec { shape, ..spec() });
    for spec in wrong {
        let failure = Plan::new(&spec).unwrap_err();
        assert_eq!(failure.what, "cannot send this load", "{spec:?}");
    }
}
