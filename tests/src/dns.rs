//! Questions to name servers: each answers with the number of its slot, over UDP and TCP.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::{
    client::{self, TIMEOUT},
    flow::Flow,
};

/// The name whose text record a server of [`crate::servers::dnsmasq`] answers with.
pub const NAME: &str = "slot";

/// How a question travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// On a connection of its own.
    Tcp,
    /// In a datagram from a port of its own.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Asks once, and returns the answer.
///
/// # Errors
/// Those of the socket, an answer that does not come among them; and `InvalidData` for what is no
/// answer.
pub fn ask(transport: Transport, to: SocketAddr) -> io::Result<String> {
    let question = question();
    let message = match transport {
        Transport::Tcp => over_tcp(to, &question)?,
        Transport::Udp => client::exchange(to, &question)?,
    };
    answer(&question, &message).ok_or_else(|| {
        let what = format!("no answer to the question: {message:x?}");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Asks on this flow, and returns the answer.
///
/// # Panics
/// When there is none.
#[must_use]
#[track_caller]
pub fn ask_on(flow: &Flow) -> String {
    let question = question();
    let message = flow.exchange(&question).expect("an answer");
    answer(&question, &message).unwrap_or_else(|| panic!("no answer: {message:x?}"))
}

/// Asks so often, one question after another, and counts the answers by slot.
///
/// # Panics
/// When a question is not answered with the number of a slot.
#[track_caller]
pub fn spread(transport: Transport, to: SocketAddr, count: u64) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    for number in 1..=count {
        let answer = ask(transport, to);
        let slot = answer.as_ref().ok().and_then(|text| text.parse().ok());
        let slot = slot.unwrap_or_else(|| {
            panic!("question {number} of {count} to {transport} {to}: {answer:?}")
        });
        *counts.entry(slot).or_default() += 1;
    }
    counts
}

fn over_tcp(to: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect_timeout(&to, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    // A message is preceded by its length (RFC 1035, 4.2.2), in the same write.
    let length = u16::try_from(question.len()).expect("a short question");
    connection.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    connection.read_exact(&mut message)?;
    Ok(message)
}

/// TXT and IN, as a record has them behind its name.
const TEXT_RECORD: [u8; 4] = [0, 16, 0, 1];

/// One question for [`NAME`]'s text record.
fn question() -> Vec<u8> {
    let header: [u16; 6] = [1, 0x0100, 1, 0, 0, 0]; // id, recursion desired, one question
    let mut message: Vec<u8> = header
        .iter()
        .flat_map(|field| field.to_be_bytes())
        .collect();
    message.push(u8::try_from(NAME.len()).expect("a short name"));
    message.extend(NAME.bytes());
    message.push(0);
    message.extend(TEXT_RECORD);
    message
}

/// The text in the only record of an answer to this question.
fn answer(question: &[u8], message: &[u8]) -> Option<String> {
    // No error, and one record behind the question, which is repeated.
    let header = message.get(..12)?;
    let good = header[3] & 0xf == 0 && header[6..8] == [0, 1];
    let record = message.strip_prefix(header)?;
    let record = record.strip_prefix(&question[12..])?;
    // A pointer to the name in the question, type and class, time to live, length, and the text
    // preceded by its own length.
    let record = record
        .strip_prefix(&[0xc0, 12])?
        .strip_prefix(&TEXT_RECORD)?;
    let (&length, text) = record.get(6..)?.split_first()?;
    let text = text.get(..length.into())?;
    good.then(|| String::from_utf8_lossy(text).into_owned())
}
