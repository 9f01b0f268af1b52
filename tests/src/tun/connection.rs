//! What a client knows of its connection, and the packets it makes of that.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, TcpHeader, TcpSlice};

/// What a client's sequence numbers start with, and what it says it can receive (there is no window
/// scaling): no test looks at either.
const FIRST_SEQUENCE: u32 = 1;
const WINDOW: u16 = u16::MAX;

/// What has come to a client so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// SYN-ACKs. Beyond the first, they are repetitions by the server's timer.
    pub syn_acks: u32,
    /// The data, in order and once.
    pub data: Vec<u8>,
    /// The server has sent all it had to (FIN).
    pub finished: bool,
    /// The connection was refused or reset (RST).
    pub reset: bool,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) own: SocketAddr,
    pub(super) server: SocketAddr,
    /// The sequence number of what is sent next, and of what is to come next (RFC 9293's SND.NXT
    /// and RCV.NXT).
    send_next: u32,
    receive_next: u32,
    /// The client has answered the SYN-ACK, or is about to.
    established: bool,
    pub(super) received: Received,
}

/// What a packet says besides its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    syn: bool,
    ack: bool,
    fin: bool,
    rst: bool,
}

impl Flags {
    const NONE: Self = Self {
        syn: false,
        ack: false,
        fin: false,
        rst: false,
    };
    pub(super) const SYN: Self = Self {
        syn: true,
        ..Self::NONE
    };
    pub(super) const ACK: Self = Self {
        ack: true,
        ..Self::NONE
    };
    pub(super) const RST: Self = Self {
        rst: true,
        ..Self::NONE
    };
}

impl Connection {
    pub(super) fn new(own: SocketAddr, server: SocketAddr) -> Self {
        Self {
            own,
            server,
            send_next: FIRST_SEQUENCE,
            receive_next: 0,
            established: false,
            received: Received::default(),
        }
    }

    /// What answers the SYN-ACK, and carries data later on.
    #[track_caller]
    pub(super) fn establish(&mut self) -> Flags {
        assert!(self.received.syn_acks > 0, "no SYN-ACK to answer");
        self.established = true;
        Flags::ACK
    }

    /// Takes a packet in, and returns what it asks for as an answer.
    pub(super) fn take(&mut self, tcp: &TcpSlice<'_>) -> Option<Flags> {
        let received = &mut self.received;
        if tcp.rst() {
            received.reset = true;
            return None;
        }
        if tcp.syn() {
            received.syn_acks += 1;
            if !self.established {
                // Data in the SYN may have been taken or not.
                self.send_next = tcp.acknowledgment_number();
                self.receive_next = tcp.sequence_number().wrapping_add(1);
            }
            return None;
        }
        let asks = !tcp.payload().is_empty() || tcp.fin();
        if !self.established || !asks {
            return None;
        }
        let mut answer = Flags::ACK;
        // Anything else is a repetition of what was taken.
        if tcp.sequence_number() == self.receive_next && !received.finished {
            received.data.extend(tcp.payload());
            let len = sequence_len(tcp.payload(), tcp.fin());
            self.receive_next = self.receive_next.wrapping_add(len);
            received.finished = tcp.fin();
            // The client has no more to say either.
            answer.fin = tcp.fin();
        }
        Some(answer)
    }

    /// Makes a packet of the client's, and counts it as sent.
    pub(super) fn packet(&mut self, flags: Flags, data: &[u8]) -> Vec<u8> {
        let Flags { syn, ack, fin, rst } = flags;
        let (from, to) = (self.own.port(), self.server.port());
        let mut header = TcpHeader::new(from, to, self.send_next, WINDOW);
        header.syn = syn;
        header.fin = fin;
        header.rst = rst;
        header.ack = ack;
        if ack {
            header.acknowledgment_number = self.receive_next;
        }
        let len = sequence_len(data, syn || fin);
        self.send_next = self.send_next.wrapping_add(len);

        const HOPS: u8 = 64;
        let builder = match (self.own.ip(), self.server.ip()) {
            (IpAddr::V4(own), IpAddr::V4(server)) => {
                PacketBuilder::ipv4(own.octets(), server.octets(), HOPS)
            }
            (IpAddr::V6(own), IpAddr::V6(server)) => {
                PacketBuilder::ipv6(own.octets(), server.octets(), HOPS)
            }
            _ => unreachable!("the own address is of the server's family"),
        };
        let mut packet = Vec::new();
        let built = builder.tcp_header(header).write(&mut packet, data);
        built.expect("data of one packet, and writing to memory");
        packet
    }
}

/// How many sequence numbers a packet takes: SYN and FIN take one, as a byte of data does.
fn sequence_len(data: &[u8], syn_or_fin: bool) -> u32 {
    let len = u32::try_from(data.len()).expect("data of one packet");
    len.wrapping_add(u32::from(syn_or_fin))
}
