//! Who gets a connection: by each policy, by weight, and while both are changed under load.

mod deal;
mod live;
mod survive;
mod weights;

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use kernel_tests::{
    client::{self, Response},
    eventually,
    launcher::{Launch, Launcher},
    servers,
};
use socket2::{Domain, Socket, Type};

const PORT: u16 = 8080;

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT))
}

/// Node servers, which listen for both families.
fn nodes(workers: u32, options: &[&str]) -> Launch {
    Launch::of(servers::node(PORT))
        .options(["--workers", &workers.to_string()])
        .options(options)
}

/// Who answers a request that comes from this address; port 0: any.
#[track_caller]
fn answer_from(from: impl Into<SocketAddr>, to: SocketAddr) -> String {
    let from = from.into();
    // A process that another test's thread has forked has the last socket open until its exec.
    let asked = eventually("the port to be free again", || match ask_from(from, to) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
            ) =>
        {
            None
        }
        asked => Some(asked),
    });
    match asked {
        Ok(Response { status: 200, body }) => body,
        other => panic!("a request from {from}: {other:?}"),
    }
}

fn ask_from(from: SocketAddr, to: SocketAddr) -> io::Result<Response> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), client::TIMEOUT)?;
    let connection = TcpStream::from(socket);
    client::send(&connection)?;
    let response = client::receive(&connection)?;
    // Reset, so that the same port can be used again at once.
    socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
    Ok(response)
}

fn any_port(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), 0)
}

/// How many connections each slot got while `act` ran.
#[track_caller]
fn dealt(launcher: &Launcher, act: impl FnOnce()) -> BTreeMap<u64, u64> {
    let before = launcher.status().connections();
    act();
    let after = launcher.status().connections();
    after
        .into_iter()
        .map(|(slot, total)| (slot, total - before[&slot]))
        .collect()
}

/// Asserts that the program has decided about every connection.
#[track_caller]
fn assert_all_steered(launcher: &Launcher) {
    let status = launcher.status();
    for counter in ["fell_through_total", "refused_total"] {
        assert_eq!(status.counter(PORT, counter), 0, "{}", status.0);
    }
}
