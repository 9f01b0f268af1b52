//! What the launcher and the pump say to each other: one JSON object per `SOCK_SEQPACKET` message,
//! pipes attached as `SCM_RIGHTS`. Both ends are always the same executable, so the format is free
//! to change.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::settings::Settings;

/// Pipes in one message: a worker's stdout and stderr.
const PIPES: usize = 2;

/// The largest message in bytes: a tail (8 KiB), each byte of it escaped (`\u001b`), and its frame.
const LARGEST: usize = 64 * 1024;

/// From the launcher to the pump.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first: what becomes of the lines. Where there is a socket for `logs`, it is attached.
    Begin {
        settings: Settings,
        /// Where the socket is; whoever ends last removes it.
        socket: Option<String>,
    },
    /// The read ends of this worker's stdout and stderr are attached, in this order.
    Open { slot: u32, generation: u64 },
    /// Asks for the last lines of this worker's stderr.
    Tail {
        number: u64,
        slot: u32,
        generation: u64,
    },
}

/// From the pump to the launcher: the answer to [`Request::Tail`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The request's number: an answer may come after the launcher has stopped waiting for it.
    pub(super) number: u64,
    pub(super) lines: Vec<String>,
}

/// What [`receive`] found.
#[derive(Debug)]
pub(super) enum Received<T> {
    Message(T, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more: the other end is gone.
    Closed,
}

/// Sends one message, or fails at once where it would have to wait.
pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    pipes: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PIPES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !pipes.is_empty() && !control.push(SendAncillaryMessage::ScmRights(pipes)) {
        return Err(Errno::INVAL.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
    Ok(())
}

/// Takes one message if there is one; never waits.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Received<T>> {
    let mut bytes = vec![0; LARGEST];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(PIPES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let length = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut buffers, &mut control, flags) {
            Ok(message) if message.bytes == 0 => return Ok(Received::Closed),
            Ok(message) => break message.bytes,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            // The other end has gone without reading all of ours, which is told once; what it had
            // sent before is still to be read.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let pipes = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(pipes) => pipes.collect(),
        _ => Vec::new(),
    });
    let pipes = pipes.collect();
    Ok(Received::Message(
        serde_json::from_slice(&bytes[..length])?,
        pipes,
    ))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Write as _, pipe},
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn pipes_travel_with_their_message() {
        let (left, right) = pair();
        let (reader, mut writer) = pipe().unwrap();
        let open = Request::Open {
            slot: 3,
            generation: u64::MAX,
        };
        send(&left, &open, &[reader.as_fd(), reader.as_fd()]).unwrap();
        drop((reader, left));

        let Received::Message(message, mut pipes) = receive::<Request>(&right).unwrap() else {
            panic!("no message");
        };
        assert_eq!(message, open);
        assert_eq!(pipes.len(), 2);
        let mut received = File::from(pipes.remove(0));
        drop(pipes);
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(matches!(
            receive::<Request>(&right).unwrap(),
            Received::Closed
        ));
    }

    #[test]
    fn the_largest_answer_fits() {
        let (left, right) = pair();
        assert!(matches!(
            receive::<Answer>(&right).unwrap(),
            Received::Nothing
        ));
        let answer = Answer {
            number: u64::MAX,
            lines: vec!["\u{1b}".repeat(8 * 1024 / 20); 20],
        };
        send(&left, &answer, &[]).unwrap();
        let Received::Message(received, _) = receive::<Answer>(&right).unwrap() else {
            panic!("no message");
        };
        assert_eq!(received, answer);
    }

    #[test]
    fn what_was_sent_before_the_end_arrives_although_the_other_end_left_something_unread() {
        let (left, right) = pair();
        send(&left, &1_u8, &[]).unwrap();
        send(&right, &2_u8, &[]).unwrap();
        drop(left);
        assert!(matches!(
            receive::<u8>(&right).unwrap(),
            Received::Message(1, _)
        ));
        assert!(matches!(receive::<u8>(&right).unwrap(), Received::Closed));
    }
}
