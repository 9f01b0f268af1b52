//! Loads for little servers that each do one thing.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use hdrhistogram::Histogram;
use rustix::net::{Shutdown, shutdown};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::bench::model::{Errors, Pace, Shape};

/// What is answered at all is answered by then, in seconds: on a busy machine, too.
const PATIENCE: f64 = 30.0;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nX-Worker: 1\r\nContent-Length: 2\r\n\r\nok";

/// A server with a thread for each connection.
struct Server {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
    accepted: Arc<AtomicU64>,
}

impl Server {
    /// `serve` gets each connection, and which one it is, from 0.
    fn start(serve: impl Fn(u64, TcpStream) + Send + Sync + 'static) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), serve)
    }

    fn at(address: SocketAddr, serve: impl Fn(u64, TcpStream) + Send + Sync + 'static) -> Self {
        let listener = Arc::new(TcpListener::bind(address).unwrap());
        let accepted = Arc::new(AtomicU64::new(0));
        let (own, count, serve) = (listener.clone(), accepted.clone(), Arc::new(serve));
        let thread = thread::spawn(move || {
            while let Ok((connection, _)) = own.accept() {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let serve = serve.clone();
                thread::spawn(move || serve(number, connection));
            }
        });
        Self {
            listener,
            thread: Some(thread),
            accepted,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        shutdown(&*self.listener, Shutdown::Both).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads a request. `None`: the client has closed.
fn request(connection: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(came) => request.extend_from_slice(&buffer[..came]),
        }
    }
    Some(String::from_utf8(request).unwrap())
}

/// Answers until it is asked to close.
fn answer_all(connection: &mut TcpStream, answer: &[u8]) -> u64 {
    let mut answered = 0;
    while let Some(request) = request(connection) {
        if connection.write_all(answer).is_err() {
            break;
        }
        answered += 1;
        if request.contains("Connection: close") {
            break;
        }
    }
    answered
}

fn closed(connections: u32) -> Pace {
    Pace::Closed { connections }
}

fn open(rate: f64, connections: u32) -> Pace {
    Pace::Open { rate, connections }
}

/// Loads that address for 0.3 s, after 0.1 s that do not count.
#[track_caller]
fn load(address: SocketAddr, shape: Shape, pace: Pace) -> LoadResult {
    load_with(address, shape, pace, PATIENCE)
}

/// The same with another timeout, in seconds.
#[track_caller]
fn load_with(address: SocketAddr, shape: Shape, pace: Pace, timeout: f64) -> LoadResult {
    let spec = LoadSpec {
        address,
        path: "/".to_owned(),
        shape,
        pace,
        warmup: 0.1,
        seconds: 0.3,
        timeout,
        cpus: Vec::new(),
        seed: 1,
    };
    let result = generate(&Plan::new(&spec).unwrap()).unwrap();
    assert!(result.sent > 0, "{result:?}");
    assert_eq!(
        result.sent,
        result.answered + result.errors.total(),
        "{result:?}"
    );
    let latency = latency::decode(&result.latency).unwrap();
    assert_eq!(latency.len(), result.answered);
    result
}

/// All requests to a server that does this end in this way.
#[track_caller]
fn all_end(
    timeout: f64,
    serve: impl Fn(u64, TcpStream) + Send + Sync + 'static,
    expected: fn(u64) -> Errors,
) {
    let server = Server::start(serve);
    for pace in [closed(4), open(300.0, 20)] {
        let result = load_with(server.address(), Shape::Connection, pace, timeout);
        assert_eq!(result.errors, expected(result.sent), "{pace:?}");
    }
}

#[test]
fn a_good_server_answers_everything() {
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        (Ipv6Addr::LOCALHOST, 0).into(),
    ] {
        let server = Server::at(address, |_, mut connection| {
            answer_all(&mut connection, GOOD);
        });
        for pace in [closed(4), open(500.0, 20)] {
            let before = server.accepted();
            let result = load(server.address(), Shape::Connection, pace);
            assert_eq!(result.errors, Errors::default(), "{pace:?}");
            assert_eq!(result.connections, result.sent);
            assert_eq!(result.by_worker, [0, result.sent]);
            assert!(server.accepted() - before >= result.sent, "{result:?}");
            assert!(result.cpu_seconds > 0.0 && (0.0..=1.1).contains(&result.busiest_thread));
        }
    }
}

#[test]
fn who_refuses() {
    // Bound, so that nobody else gets it, and not listening.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    for pace in [closed(4), open(300.0, 20)] {
        let result = load(address, Shape::Connection, pace);
        assert_eq!(
            (result.errors.refused, result.connections),
            (result.sent, 0)
        );
        // 4 clients that pause for 10 ms after each.
        assert!(result.sent <= 300, "{pace:?}: {}", result.sent);
    }
}

#[test]
fn who_resets() {
    let serve = |_, mut connection: TcpStream| {
        request(&mut connection);
        let socket = Socket::from(connection);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    };
    all_end(PATIENCE, serve, |sent| Errors {
        reset: sent,
        ..Errors::default()
    });
}

#[test]
fn who_closes_half_way() {
    let serve = |number, mut connection: TcpStream| {
        request(&mut connection);
        let parts = [0, 10, GOOD.len() - 1];
        let _ = connection.write_all(&GOOD[..parts[number as usize % 3]]);
    };
    all_end(PATIENCE, serve, |sent| Errors {
        closed: sent,
        ..Errors::default()
    });
}

#[test]
fn who_never_answers() {
    let serve = |number, mut connection: TcpStream| {
        request(&mut connection);
        if number % 2 == 0 {
            let _ = connection.write_all(&GOOD[..20]);
        }
        // Until the client has gone.
        request(&mut connection);
    };
    all_end(0.1, serve, |sent| Errors {
        timeout: sent,
        ..Errors::default()
    });
}

#[test]
fn who_answers_nonsense_or_with_an_error() {
    let serve = |number, mut connection: TcpStream| {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
            b"220 mail.example ESMTP\r\n",
            b"HTTP/1.0 404 Not Found\r\n\r\nnothing here",
        ];
        answer_all(&mut connection, answers[number as usize % 3]);
    };
    all_end(PATIENCE, serve, |sent| Errors {
        bad: sent,
        ..Errors::default()
    });
}

#[test]
fn everything_at_once_is_told_apart() {
    let server = Server::start(|number, mut connection| match number % 5 {
        0 => drop(request(&mut connection)),
        1 => {
            answer_all(&mut connection, b"nonsense\r\n\r\n");
        }
        2 => {
            request(&mut connection);
            request(&mut connection);
        }
        3 => {
            request(&mut connection);
            let socket = Socket::from(connection);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        _ => {
            answer_all(&mut connection, GOOD);
        }
    });
    let result = load_with(server.address(), Shape::Connection, open(1000.0, 1000), 2.0);
    let Errors {
        refused,
        reset,
        closed,
        timeout,
        bad,
        other,
    } = result.errors;
    assert_eq!((refused, other), (0, 0));
    for count in [result.answered, reset, closed, timeout, bad] {
        // About a fifth of 300.
        assert!((20..120).contains(&count), "{result:?}");
    }
}

#[test]
fn queueing_is_not_hidden() {
    const WORK: Duration = Duration::from_millis(20);
    let server = Server::start(|_, mut connection| {
        request(&mut connection);
        // It is busy.
        thread::sleep(WORK);
        let _ = connection.write_all(GOOD);
    });
    // Four times what one connection can do: about 80 requests, each of which waits for longer than
    // the one before.
    let result = load_with(
        server.address(),
        Shape::Connection,
        open(200.0, 1),
        PATIENCE,
    );
    assert_eq!(result.errors, Errors::default());
    let latency = latency::decode(&result.latency).unwrap();
    let median = latency.value_at_quantile(0.5);
    assert!(median > 10 * WORK.as_nanos() as u64, "{median}");
    // What waits for the server is no fault of the generator.
    assert!(result.late_p99 < median, "{result:?}");
}

#[test]
fn connections_are_kept_for_so_many_requests() {
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let server = Server::start(move |_, mut connection| {
        let answered = answer_all(&mut connection, GOOD);
        seen.fetch_max(answered, Ordering::Relaxed);
    });
    for pace in [closed(4), open(1000.0, 4)] {
        let result = load(server.address(), Shape::KeepAlive { requests: 5 }, pace);
        assert_eq!(result.errors, Errors::default(), "{pace:?}");
        let (least, most) = (result.sent / 5, result.sent / 5 + 8);
        assert!((least..=most).contains(&result.connections), "{result:?}");
    }
    assert_eq!(most.load(Ordering::Relaxed), 5);
}

#[test]
fn long_lived_connections_stay() {
    let server = Server::start(|_, mut connection| {
        answer_all(&mut connection, GOOD);
    });
    for pace in [closed(3), open(1000.0, 3)] {
        let before = server.accepted();
        let result = load(server.address(), Shape::LongLived, pace);
        assert_eq!(result.errors, Errors::default(), "{pace:?}");
        assert_eq!((result.connections, server.accepted() - before), (3, 3));
    }
}

#[test]
fn a_server_that_keeps_no_connection_is_no_error() {
    // HTTP/1.0, whose answers end with the connection.
    let server = Server::start(|_, mut connection| {
        request(&mut connection);
        let _ = connection.write_all(b"HTTP/1.0 200 OK\r\n\r\nok");
    });
    for shape in [Shape::LongLived, Shape::KeepAlive { requests: 100 }] {
        let result = load(server.address(), shape, closed(3));
        assert_eq!(result.errors, Errors::default());
        assert_eq!(result.connections, result.sent);
    }
}

#[test]
fn idle_connections_may_be_closed() {
    // After each answer it waits for the next request, but not for long.
    let server = Server::start(|_, mut connection| {
        let patience = Some(Duration::from_millis(1));
        connection.set_read_timeout(patience).unwrap();
        answer_all(&mut connection, GOOD);
    });
    // Each is idle for some 40 ms before it has its turn again.
    let result = load(server.address(), Shape::LongLived, open(100.0, 4));
    assert!(result.answered > 0, "{result:?}");
    assert!(result.connections > 4, "{result:?}");
}

#[test]
fn a_server_that_does_not_close_is_left() {
    let server = Server::start(|_, mut connection| {
        while request(&mut connection).is_some() {
            if connection.write_all(GOOD).is_err() {
                break;
            }
        }
    });
    let result = load(server.address(), Shape::Connection, closed(4));
    assert_eq!(result.errors, Errors::default());
    assert_eq!(result.connections, result.sent);
}

#[test]
fn a_limit_is_told() {
    let mut latency = latency::histogram().unwrap();
    latency.saturating_record(10_000_000);
    let result = |latency: &Histogram<u64>, busiest_thread, late_p99| LoadResult {
        seconds: 1.0,
        sent: 1,
        answered: 1,
        errors: Errors::default(),
        connections: 1,
        latency: latency::encode(latency),
        by_worker: Vec::new(),
        cpu_seconds: 0.5,
        busiest_thread,
        late_p99,
    };
    assert!(!is_limit(&result(&latency, 0.5, 0)));
    assert!(is_limit(&result(&latency, 0.95, 0)), "it is busy");
    assert!(
        !is_limit(&result(&latency, 0.5, 1_500_000)),
        "that is little beside 10 ms"
    );
    assert!(is_limit(&result(&latency, 0.5, 2_500_000)), "it is late");
    latency.reset();
    latency.saturating_record(100_000);
    assert!(
        !is_limit(&result(&latency, 0.5, 900_000)),
        "that is not much"
    );
}
