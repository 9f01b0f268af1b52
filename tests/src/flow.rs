//! Clients of UDP: a flow each, from a port of its own.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, UdpSocket},
};

use crate::client::TIMEOUT;

/// A client's socket that talks to one server.
#[derive(Debug)]
pub struct Flow(UdpSocket);

impl Flow {
    /// From a new port of this machine's, of the same family.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn to(server: SocketAddr) -> Self {
        let loopback = match server {
            SocketAddr::V4(_) => "127.0.0.1:0",
            SocketAddr::V6(_) => "[::1]:0",
        };
        Self::from(loopback.parse().expect("an address"), server)
    }

    /// From this address and port.
    ///
    /// # Panics
    /// When it is taken.
    #[must_use]
    #[track_caller]
    pub fn from(client: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(client).expect("the port is free");
        socket.connect(server).expect("loopback");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        Self(socket)
    }

    /// So many of them.
    #[must_use]
    #[track_caller]
    pub fn many(server: SocketAddr, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::to(server)).collect()
    }

    /// Sends a datagram, and reads the answer.
    ///
    /// # Panics
    /// When none comes: loopback loses nothing this small.
    #[track_caller]
    pub fn ask(&self) -> String {
        let answer = self.exchange(b"?").expect("an answer");
        String::from_utf8_lossy(&answer).trim_end().to_owned()
    }

    /// Sends this datagram, and reads the answer.
    ///
    /// # Errors
    /// Those of the socket; an answer that does not come is one.
    pub fn exchange(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let mut answer = vec![0; 2048];
        self.0.send(question)?;
        let length = self.0.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Who answers each of these flows.
#[must_use]
#[track_caller]
pub fn answers(flows: &[Flow]) -> Vec<String> {
    flows.iter().map(Flow::ask).collect()
}

/// Who answers any of them.
#[must_use]
#[track_caller]
pub fn used(flows: &[Flow]) -> BTreeSet<String> {
    answers(flows).into_iter().collect()
}
