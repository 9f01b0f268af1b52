//! A worker's private notification socket (sd_notify(3)): what `NOTIFY_SOCKET` names.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt as _, lchown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    io::Errno,
    net::{RecvFlags, recv},
};
use socket2::{Domain, SockAddr, Socket, Type};

/// The largest notification in bytes, as in systemd; a larger one says nothing.
const LARGEST: usize = 4096;

/// The longest status in characters.
const STATUS: usize = 256;

/// The socket and its file, which is removed on drop.
#[derive(Debug)]
pub struct NotifySocket {
    socket: OwnedFd,
    path: PathBuf,
}

/// What one message said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub ready: bool,
    /// `RELOADING=1`
    pub reloading: bool,
    /// `STATUS=`: one line of at most 256 characters without control characters; may be empty,
    /// which takes back what was said before.
    pub status: Option<String>,
}

impl NotifySocket {
    /// Makes the socket at `path`, writable for `owner` (user and group) only, or for us when
    /// `None`. A socket that is there is taken for one of a launcher that was killed, and replaced.
    ///
    /// # Errors
    /// When something else than a socket is there, the path is longer than a socket's may be (107
    /// bytes), or the socket cannot be made or given away.
    pub fn bind(path: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        // Whatever else is there, `bind` refuses to replace.
        if fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        // On Linux a bound socket file takes its mode from the socket: it is never open to others.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let bound = Self::resume(socket.into(), path);
        if let Some((user, group)) = owner {
            lchown(path, Some(user), Some(group))?;
        }
        Ok(bound)
    }

    /// Goes on with a socket that was passed on through exec, and removes its file in the end.
    #[must_use]
    pub fn resume(socket: OwnedFd, path: &Path) -> Self {
        Self {
            socket,
            path: path.to_owned(),
        }
    }

    /// Takes one message, or `None` when there is none (left); never waits.
    pub fn receive(&self) -> Option<Notification> {
        let mut bytes = [0; LARGEST];
        loop {
            // With `recv`, which has no room for descriptors, the kernel closes those that come with
            // a message (FDSTORE=1, BARRIER=1) itself (`scm_detach_fds`).
            match recv(
                &self.socket,
                &mut bytes,
                RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            ) {
                Ok((_, length)) => {
                    return Some(bytes.get(..length).map(parse).unwrap_or_default());
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // A file left behind is replaced when its name is used again.
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a message: lines of the form `NAME=VALUE`, of which unknown ones are passed over.
fn parse(message: &[u8]) -> Notification {
    let mut notification = Notification::default();
    for line in message.split(|&byte| byte == b'\n') {
        if line == b"READY=1" {
            notification.ready = true;
        } else if line == b"RELOADING=1" {
            notification.reloading = true;
        } else if let Some(text) = line.strip_prefix(b"STATUS=") {
            notification.status = Some(status(text));
        }
    }
    notification
}

/// What can be shown of a status: it comes from the worker, and goes to terminals.
fn status(text: &[u8]) -> String {
    String::from_utf8_lossy(text)
        .chars()
        .filter(|character| !character.is_control())
        .take(STATUS)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{IoSlice, Read as _},
        mem::MaybeUninit,
        os::unix::{
            fs::MetadataExt as _,
            net::{UnixDatagram, UnixListener},
        },
    };

    use rustix::{
        cmsg_space,
        net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    };

    use super::*;

    /// A socket in a directory of its own, and a worker's end of it.
    fn pair() -> (tempfile::TempDir, NotifySocket, UnixDatagram) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = NotifySocket::bind(&path, None).expect("bound");
        let worker = UnixDatagram::unbound().expect("a socket");
        worker.connect(&path).expect("connected");
        (directory, socket, worker)
    }

    #[test]
    fn messages_are_taken_one_by_one() {
        let (_directory, socket, worker) = pair();
        assert_eq!(socket.receive(), None);
        worker.send(b"STATUS=loading\n").expect("sent");
        worker
            .send(b"nonsense\n=\nREADY=0\nMAINPID=1\n\xff\nREADY=1\nSTATUS=")
            .expect("sent");
        worker.send(b"").expect("sent");
        worker.send(b"STOPPING=1\nRELOADING=1").expect("sent");
        let said = |status: &str| Notification {
            status: Some(status.to_owned()),
            ..Notification::default()
        };
        assert_eq!(socket.receive(), Some(said("loading")));
        let ready = Notification {
            ready: true,
            ..said("")
        };
        assert_eq!(socket.receive(), Some(ready));
        assert_eq!(socket.receive(), Some(Notification::default()));
        let reloading = Notification {
            reloading: true,
            ..Notification::default()
        };
        assert_eq!(socket.receive(), Some(reloading));
        assert_eq!(socket.receive(), None);
    }

    #[test]
    fn a_status_is_one_short_line_of_text() {
        let (_directory, socket, worker) = pair();
        let mut message = b"STATUS=\x1b[31mred\r\x00\xff\xc2\x9b ".to_vec();
        message.extend("é".repeat(300).into_bytes());
        worker.send(&message).expect("sent");
        let status = socket.receive().and_then(|said| said.status);
        let expected = format!("[31mred\u{fffd} {}", "é".repeat(256 - 9));
        assert_eq!(status, Some(expected));
    }

    #[test]
    fn a_message_that_is_too_large_says_nothing() {
        let (_directory, socket, worker) = pair();
        let mut message = b"READY=1\n".to_vec();
        message.resize(LARGEST + 1, b'x');
        worker.send(&message).expect("sent");
        message.pop();
        worker.send(&message).expect("sent");
        assert_eq!(socket.receive(), Some(Notification::default()));
        assert!(socket.receive().is_some_and(|said| said.ready));
    }

    #[test]
    fn descriptors_that_come_along_are_closed() {
        let (_directory, socket, worker) = pair();
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let descriptors = [writer.as_fd(); 4];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let message = [IoSlice::new(b"BARRIER=1")];
        sendmsg(&worker, &message, &mut control, SendFlags::empty()).expect("sent");
        drop(writer);
        assert_eq!(socket.receive(), Some(Notification::default()));
        // The end of the pipe: nobody has its writing end any more.
        assert_eq!(reader.read(&mut [0]).expect("readable"), 0);
    }

    #[test]
    fn its_file_is_private_and_goes_with_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        drop(UnixListener::bind(&path).expect("a stale socket"));
        let uid = rustix::process::geteuid().as_raw();
        // Only root can give a file away.
        let owner = if uid == 0 {
            (1234, 5678)
        } else {
            (uid, rustix::process::getegid().as_raw())
        };
        let socket = NotifySocket::bind(&path, Some(owner)).expect("bound");
        let metadata = fs::symlink_metadata(&path).expect("there");
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert_eq!((metadata.uid(), metadata.gid()), owner);

        drop(socket);
        assert!(!path.exists());

        fs::write(&path, "precious").expect("written");
        let refused = NotifySocket::bind(&path, None).expect_err("not a socket");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
    }
}
