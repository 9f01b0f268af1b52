//! Connections that a process passes to another one: a byte with a descriptor (`SCM_RIGHTS`), through a
//! `SOCK_SEQPACKET` pair. Nothing here waits.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    io::{Errno, Result},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

/// Two ends, either of which passes to the other.
pub(super) fn channel() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Passes a connection on; the caller's own copy stays.
///
/// # Errors
/// `EAGAIN` when the other end has too many that it has not received; `EPIPE` when it has gone, or once
/// `ECONNRESET` if it had some left.
pub(super) fn send(channel: impl AsFd, connection: impl AsFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let connection = [connection.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&connection)) {
        return Err(Errno::INVAL);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    sendmsg(channel, &[IoSlice::new(b".")], &mut control, flags)?;
    Ok(())
}

/// Receives a connection; `None` when the other end has gone, and all is received.
///
/// # Errors
/// `EAGAIN` when there is none yet, `EMFILE` when no more files can be opened: then it is lost.
pub(super) fn receive(channel: impl AsFd) -> Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut buffers = [IoSliceMut::new(&mut byte)];
    if recvmsg(channel, &mut buffers, &mut control, flags)?.bytes == 0 {
        return Ok(None);
    }
    let mut passed = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(passed) => passed.collect(),
        _ => Vec::new(),
    });
    // The kernel drops what it can't open here.
    passed.next().map(Some).ok_or(Errno::MFILE)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Write as _, pipe},
    };

    use super::*;

    #[test]
    fn what_is_passed_is_received_in_order_and_then_the_end() {
        let (ours, theirs) = channel().expect("a pair");
        assert_eq!(receive(&theirs).expect_err("nothing yet"), Errno::AGAIN);
        for letter in [b'a', b'b'] {
            let (reader, mut writer) = pipe().expect("a pipe");
            writer.write_all(&[letter]).expect("there is room");
            send(&ours, &reader).expect("there is room");
        }
        drop(ours);
        for letter in [b'a', b'b'] {
            let passed = receive(&theirs).expect("received").expect("a pipe");
            let mut byte = [0];
            File::from(passed).read_exact(&mut byte).expect("readable");
            assert_eq!(byte, [letter]);
        }
        assert!(receive(&theirs).expect("received").is_none());
    }

    #[test]
    fn an_end_that_is_not_emptied_is_full_at_some_time() {
        let (ours, theirs) = channel().expect("a pair");
        let (reader, _writer) = pipe().expect("a pipe");
        let mut tries = (0..100_000).map(|_| send(&ours, &reader));
        let refused = tries.find_map(Result::err);
        assert!(matches!(refused, Some(Errno::AGAIN | Errno::TOOMANYREFS)));
        drop(theirs);
        assert_eq!(send(&ours, &reader), Err(Errno::CONNRESET));
        assert_eq!(send(&ours, &reader), Err(Errno::PIPE));
    }
}
