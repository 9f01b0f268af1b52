//! Nanoseconds per decision, from the kernel's own run-time statistics.
//!
//! Groups of sockets are loaded by turns, one with an empty program, then one for each policy with the
//! steering program, again and again. What the empty program costs is the price of measuring. The
//! connections go through the whole of TCP, so the program meets caches as a server's does, not
//! those of a loop around it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::{Bench, Options};
use crate::{
    policy::{Policy, Weighted, compile},
    steer::{
        measure::{Empty, RunTime, Statistics},
        program::{Kind, Program},
    },
};

/// Connections that are opened before they are accepted and closed.
const BATCH: u32 = 32;

/// How long a connection takes, about: for estimates alone.
pub(super) const CONNECTION: Duration = Duration::from_micros(50);

/// What was measured with one number of members: nanoseconds per run, by round.
#[derive(Debug)]
pub(super) struct Decisions {
    pub(super) members: u16,
    pub(super) empty: Vec<f64>,
    pub(super) steered: Vec<(Policy, Vec<f64>)>,
}

/// Measures each program by turns.
pub(super) fn measure(bench: &Bench, members: u16) -> Result<Decisions> {
    let Options {
        rounds,
        connections,
        ..
    } = bench.options;
    let empty = Empty::load()?;
    let subjects: Vec<Subject> = bench
        .options
        .steering()
        .map(|policy| Subject::new(policy, members))
        .collect::<Result<_>>()?;
    for Subject { group, .. } in &subjects {
        group.drive(BATCH)?;
    }
    let _statistics = Statistics::enable()?;
    let mut decisions = Decisions {
        members,
        empty: Vec::new(),
        steered: subjects
            .iter()
            .map(|subject| (subject.policy, Vec::new()))
            .collect(),
    };
    let Some(Subject { group: any, .. }) = subjects.first() else {
        return Ok(decisions);
    };
    for _ in 0..rounds {
        bench.interrupt.check()?;
        empty.attach(&any.listeners[0])?;
        let cost = any.cost(connections, || Ok(empty.run_time()?))?;
        decisions.empty.push(cost);
        for (subject, (_, costs)) in subjects.iter().zip(&mut decisions.steered) {
            let Subject { group, program, .. } = subject;
            program.attach(&group.listeners[0])?;
            costs.push(group.cost(connections, || Ok(program.run_time()?))?);
        }
    }
    Ok(decisions)
}

/// A policy, and what it decides about. (Each has sockets of its own: one is in a single array.)
struct Subject {
    policy: Policy,
    group: Group,
    program: Program,
}

impl Subject {
    fn new(policy: Policy, members: u16) -> Result<Self> {
        let kind = match policy {
            Policy::LeastConn => Kind::LeastConn,
            _ => Kind::Connections,
        };
        let group = Group::open(members).context("cannot open a group of listening sockets")?;
        let mut program = Program::load(kind, None)?;
        let mut weighted = Vec::new();
        for (member, listener) in (0..).zip(&group.listeners) {
            program.set_member(member, listener)?;
            weighted.push(Weighted {
                member,
                weight: 1,
                identity: member.into(),
            });
        }
        program.install(&compile(policy, &weighted, members.into()))?;
        Ok(Self {
            policy,
            group,
            program,
        })
    }
}

/// A reuseport group of our own.
struct Group {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
}

impl Group {
    fn open(members: u16) -> io::Result<Self> {
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut listeners = Vec::new();
        for _ in 0..members {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            socket.listen(BATCH as i32)?;
            socket.set_nonblocking(true)?;
            let listener = TcpListener::from(socket);
            address = listener.local_addr()?;
            listeners.push(listener);
        }
        Ok(Self { listeners, address })
    }

    /// What a run of the attached program costs, in nanoseconds: the mean over `connections`.
    fn cost(&self, connections: u32, run_time: impl Fn() -> Result<RunTime>) -> Result<f64> {
        let before = run_time()?;
        self.drive(connections)?;
        let cost = run_time()?.nanoseconds_since(before);
        ensure!(
            cost.is_finite(),
            "the kernel did not run the program that is to be measured"
        );
        Ok(cost)
    }

    fn drive(&self, connections: u32) -> io::Result<()> {
        for _ in 0..connections.div_ceil(BATCH) {
            let clients: Vec<Socket> = (0..BATCH)
                .map(|_| self.connect())
                .collect::<io::Result<_>>()?;
            for listener in &self.listeners {
                while accept(listener)? {}
            }
            drop(clients);
        }
        Ok(())
    }

    fn connect(&self) -> io::Result<Socket> {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // As in the load: no port must wait to be used again.
        client.set_linger(Some(Duration::ZERO))?;
        client.connect(&self.address.into())?;
        Ok(client)
    }
}

/// Accepts a connection and closes it, if one waits.
fn accept(listener: &TcpListener) -> io::Result<bool> {
    match listener.accept() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
