//! What the generator is told, checked, and made into what its threads need.

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::{
    process::{Resource, getrlimit},
    thread::CpuSet,
};

use super::driver::FINISHING;
use crate::{
    bench::{
        model::{LoadSpec, Pace, Shape},
        sources::THREADS,
    },
    failure::{Failure, MORE_FILES},
    sys::{cpus::machine, process::raise_file_limit},
};

/// Files that are open beside connections, at most.
const FILES: u64 = 64 + (THREADS * FINISHING) as u64;

/// A load that can be sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) address: SocketAddr,
    pub(super) shape: Shape,
    /// The request, whole, after which the connection stays open.
    pub(super) request: Vec<u8>,
    /// The last one on its connection.
    pub(super) last_request: Vec<u8>,
    pub(super) warmup: Duration,
    pub(super) counted: Duration,
    pub(super) timeout: Duration,
    /// One for each thread.
    pub(super) shares: Vec<Share>,
}

/// A thread's part of the load.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    /// The thread's number, from 0.
    pub(super) thread: usize,
    /// The CPU it is to run on.
    pub(super) cpu: Option<usize>,
    /// Requests at a time, at most.
    pub(super) connections: u32,
    /// Requests per second; none: the closed pace.
    pub(super) rate: Option<f64>,
    /// For its arrivals.
    pub(super) seed: u64,
}

/// The same moments for all threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The first request.
    pub(super) start: Instant,
    /// The first that counts.
    pub(super) counted: Instant,
    /// No more are sent.
    pub(super) end: Instant,
}

impl Plan {
    /// Checks what is asked for.
    ///
    /// # Errors
    /// When it makes no sense, or there are too few files for so many connections.
    pub(super) fn new(spec: &LoadSpec) -> Result<Self, Failure> {
        let LoadSpec {
            address,
            ref path,
            shape,
            pace,
            warmup,
            seconds,
            timeout,
            ref cpus,
            seed,
        } = *spec;
        let (connections, rate) = match pace {
            Pace::Closed { connections } => (connections, None),
            Pace::Open { rate, connections } => (connections, Some(rate)),
        };
        // In the path, a space or a line's end would make another request of it.
        check("path", path, path.starts_with('/') && is_visible(path))?;
        check(
            "connections",
            connections,
            (1..=65_536).contains(&connections),
        )?;
        let rate_is_right = rate.is_none_or(|rate| (0.001..=10_000_000.0).contains(&rate));
        check("rate", rate.unwrap_or_default(), rate_is_right)?;
        check("warmup", warmup, (0.0..=3600.0).contains(&warmup))?;
        check("seconds", seconds, (0.001..=3600.0).contains(&seconds))?;
        // Latencies are told apart up to a minute.
        check("timeout", timeout, (0.001..=60.0).contains(&timeout))?;
        if let Shape::KeepAlive { requests } = shape {
            check("requests", requests, requests > 0)?;
        }
        for &cpu in cpus {
            check("cpus", cpu, cpu < CpuSet::MAX_CPU)?;
        }
        enough_files(connections)?;
        let threads = threads(cpus, connections);
        let share = |thread: usize| {
            let connections = nth_share(connections, threads, thread);
            let part = f64::from(connections) / f64::from(pace_connections(pace));
            Share {
                thread,
                cpu: cpus.get(thread).copied(),
                connections,
                rate: rate.map(|rate| rate * part),
                seed: seed
                    .wrapping_mul(THREADS as u64)
                    .wrapping_add(thread as u64),
            }
        };
        Ok(Self {
            address,
            shape,
            request: request(address, path, ""),
            last_request: request(address, path, "Connection: close\r\n"),
            warmup: Duration::from_secs_f64(warmup),
            counted: Duration::from_secs_f64(seconds),
            timeout: Duration::from_secs_f64(timeout),
            shares: (0..threads).map(share).collect(),
        })
    }

    /// The times of a load that starts then.
    pub(super) fn times(&self, start: Instant) -> Times {
        let counted = start + self.warmup;
        Times {
            start,
            counted,
            end: counted + self.counted,
        }
    }
}

fn check(what: &str, value: impl std::fmt::Display, is_right: bool) -> Result<(), Failure> {
    if is_right {
        return Ok(());
    }
    Err(Failure::new(
        "cannot send this load",
        format_args!("`{what}` is out of its range: {value}"),
        "this is a fault of who started the generator: report it",
    ))
}

fn is_visible(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic())
}

fn pace_connections(pace: Pace) -> u32 {
    match pace {
        Pace::Closed { connections } | Pace::Open { connections, .. } => connections,
    }
}

/// As many as there are CPUs for, but no more than [`THREADS`], and none without a connection.
fn threads(cpus: &[usize], connections: u32) -> usize {
    let allotted = match cpus.len() {
        0 => machine("/".as_ref()).cpus.len().max(1),
        given => given,
    };
    allotted.min(THREADS).min(connections as usize)
}

/// What the `nth` of so many threads gets of `all`: the first ones get one more where it does not
/// come out even.
fn nth_share(all: u32, threads: usize, nth: usize) -> u32 {
    let (all, threads) = (all as usize, threads.max(1));
    let share = all / threads + usize::from(nth < all % threads);
    // No more than `all`.
    share as u32
}

/// A connection that has been answered may linger until the server closes it, while the next one is
/// open already.
fn enough_files(connections: u32) -> Result<(), Failure> {
    raise_file_limit(0)?;
    let needed = FILES + 2 * u64::from(connections);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => Err(Failure::new(
            format!("cannot open {connections} connections"),
            format_args!("only {limit} files may be open at once, and up to {needed} are needed"),
            MORE_FILES,
        )),
        _ => Ok(()),
    }
}

fn request(address: SocketAddr, path: &str, header: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: reuseport-launch/{}\r\n\
         Accept: */*\r\n{header}\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}
