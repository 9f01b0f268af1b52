//! Nanoseconds per decision, from the kernel's own run-time statistics.
//!
//! A group of sockets is given an empty program, then the steering program under one policy after the
//! other, again and again. What the empty program costs is the price of measuring. The connections go
//! through the whole of TCP, so the program meets caches as a server's does, not those of a loop around
//! it.

use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::{Bench, Options};
use crate::{
    bench::sources::Sources,
    policy::{Policy, Site, Weighted, compile},
    steer::{
        account::Ledger,
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

/// How many copies of each program are measured, one in each round. Where the kernel puts a program makes
/// a difference of up to 50 ns, and the first free place is the same for each first copy.
const COPIES: u32 = 5;

/// Measures each policy by turns.
pub(super) fn measure(bench: &Bench, members: u16) -> Result<Decisions> {
    let Options {
        rounds,
        connections,
        ..
    } = bench.options;
    let mut copies: Vec<Copy> = (0..COPIES.min(rounds))
        .map(|_| Copy::load(bench, members))
        .collect::<Result<_>>()?;
    let _statistics = Statistics::enable()?;
    let policies: Vec<Policy> = bench.options.steering().collect();
    let mut decisions = Decisions {
        members,
        empty: Vec::new(),
        steered: policies
            .iter()
            .map(|&policy| (policy, Vec::new()))
            .collect(),
    };
    for round in 0..rounds {
        bench.interrupt.check()?;
        let Copy { empty, subjects } = &mut copies[(round % COPIES) as usize];
        let Some(Subject { group, .. }) = subjects.first() else {
            break;
        };
        empty.attach(&group.listeners[0])?;
        let cost = group.cost(connections, || Ok(empty.run_time()?))?;
        decisions.empty.push(cost);
        for (policy, costs) in &mut decisions.steered {
            let kind = kind(*policy);
            let subject = subjects.iter_mut().find(|subject| subject.kind == kind);
            let subject = subject.context("the program of a policy is loaded with it")?;
            costs.push(subject.cost(*policy, connections)?);
        }
    }
    Ok(decisions)
}

/// Each program once.
struct Copy {
    empty: Empty,
    subjects: Vec<Subject>,
}

impl Copy {
    fn load(bench: &Bench, members: u16) -> Result<Self> {
        bench.interrupt.check()?;
        let empty = Empty::load()?;
        let mut subjects: Vec<Subject> = Vec::new();
        for policy in bench.options.steering() {
            let kind = kind(policy);
            if !subjects.iter().any(|subject| subject.kind == kind) {
                subjects.push(Subject::load(kind, members)?);
            }
        }
        Ok(Self { empty, subjects })
    }
}

/// Which program a policy needs.
fn kind(policy: Policy) -> Kind {
    match policy {
        Policy::LeastConn => Kind::LeastConn,
        _ => Kind::Connections,
    }
}

/// A steering program, and what it decides about: sockets of its own, because one is in a single array.
struct Subject {
    kind: Kind,
    program: Program,
    group: Group,
    members: Vec<Weighted>,
}

impl Subject {
    fn load(kind: Kind, members: u16) -> Result<Self> {
        let group = Group::open(members).context("cannot open a group of listening sockets")?;
        let mut program = Program::load(kind, None)?;
        program.compare_by(&Ledger::of_nobody()?)?;
        let mut weighted = Vec::new();
        for (member, listener) in (0..).zip(&group.listeners) {
            program.set_member(member, listener)?;
            weighted.push(Weighted {
                member,
                weight: 1,
                seat: member,
                identity: member.into(),
                cpu: None,
            });
        }
        group.drive(BATCH)?;
        Ok(Self {
            kind,
            program,
            group,
            members: weighted,
        })
    }

    /// What a decision costs, in nanoseconds.
    fn cost(&mut self, policy: Policy, connections: u32) -> Result<f64> {
        let Self {
            program,
            group,
            members,
            ..
        } = self;
        let site = Site {
            slots: members.len() as u32,
            cpus: &[],
        };
        program.install(&compile(policy, members, site))?;
        program.attach(&group.listeners[0])?;
        group.cost(connections, || Ok(program.run_time()?))
    }
}

/// A reuseport group of our own.
struct Group {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
    clients: RefCell<Sources>,
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
        Ok(Self {
            listeners,
            address,
            clients: RefCell::new(Sources::of(0)),
        })
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
        let source = self.clients.borrow_mut().next();
        client.bind(&SocketAddr::from((source, 0)).into())?;
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
