//! Bytes on their way from one socket to another, through a pipe: they stay in the kernel.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, pipe_with, splice},
};

/// How many bytes are moved at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// How often they are, before other connections have their turn.
const TURNS: u32 = 16;

/// Pipes that are kept for later.
const SPARE_MAX: usize = 256;

/// A pipe: its ends to read from and to write to.
#[derive(Debug)]
struct Pipe(OwnedFd, OwnedFd);

/// Pipes that nothing is in.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    fn take(&mut self) -> rustix::io::Result<Pipe> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe(read, write))
    }

    fn give_back(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_MAX {
            self.0.push(pipe);
        }
    }
}

/// One direction of a proxied connection. It has a pipe only while something is in that.
#[derive(Debug, Default)]
pub(super) struct Direction {
    /// The pipe, and how many bytes are in it.
    held: Option<(Pipe, usize)>,
    /// Nothing more will come.
    ended: bool,
    /// And that has been passed on.
    over: bool,
}

/// How far a direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// As far as it goes: the next event tells when it goes on.
    AllThereIs,
    /// There may be more at once.
    More,
}

impl Direction {
    /// Whether its end has been passed on.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Moves what there is.
    ///
    /// # Errors
    /// Those of the sockets: the connection is broken.
    pub(super) fn proceed(
        &mut self,
        from: &TcpStream,
        to: &TcpStream,
        pipes: &mut Pipes,
    ) -> io::Result<Moved> {
        for _ in 0..TURNS {
            if self.over {
                return Ok(Moved::AllThereIs);
            }
            if self.held.is_none() && !self.ended {
                let pipe = pipes.take()?;
                let length = move_bytes(from, &pipe.1, CHUNK);
                match length {
                    Ok(Some(length)) if length > 0 => self.held = Some((pipe, length)),
                    Ok(length) => {
                        pipes.give_back(pipe);
                        if length.is_none() {
                            return Ok(Moved::AllThereIs);
                        }
                        self.ended = true;
                    }
                    Err(error) => {
                        pipes.give_back(pipe);
                        return Err(error);
                    }
                }
            }
            if let Some((pipe, length)) = &mut self.held {
                match move_bytes(&pipe.0, to, *length)? {
                    None => return Ok(Moved::AllThereIs),
                    Some(moved) => *length -= moved,
                }
            }
            if let Some((pipe, _)) = self.held.take_if(|(_, length)| *length == 0) {
                pipes.give_back(pipe);
            }
            if self.held.is_none() && self.ended {
                to.shutdown(Shutdown::Write)?;
                self.over = true;
            }
        }
        Ok(Moved::More)
    }
}

/// How many bytes were moved, 0 at the end; `None`: none can be now.
fn move_bytes(
    from: &impl std::os::fd::AsFd,
    to: &impl std::os::fd::AsFd,
    most: usize,
) -> io::Result<Option<usize>> {
    loop {
        match splice(from, None, to, None, most, SpliceFlags::NONBLOCK) {
            Ok(moved) => return Ok(Some(moved)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    /// A connection: the client's end, and ours, which does not block.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let to = listener.local_addr().expect("bound");
        let client = TcpStream::connect(to).expect("connected");
        let (ours, _) = listener.accept().expect("accepted");
        ours.set_nonblocking(true).expect("a socket");
        (client, ours)
    }

    #[test]
    fn bytes_and_the_end_are_passed_on_and_the_pipe_is_free_again() {
        let (mut client, from) = connection();
        let (mut server, to) = connection();
        let (mut direction, mut pipes) = (Direction::default(), Pipes::default());
        let mut proceed = || direction.proceed(&from, &to, &mut pipes).expect("open");
        assert_eq!(proceed(), Moved::AllThereIs);

        client.write_all(b"hello").expect("there is room");
        assert_eq!(proceed(), Moved::AllThereIs);
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).expect("passed on");
        assert_eq!(&bytes, b"hello");

        drop(client);
        assert_eq!(proceed(), Moved::AllThereIs);
        assert_eq!(server.read(&mut bytes).expect("the end"), 0);
        assert!(direction.is_over());
        assert_eq!(pipes.0.len(), 1);
    }

    #[test]
    fn what_finds_no_room_waits_in_the_pipe() {
        let (mut client, from) = connection();
        let (mut server, to) = connection();
        let (mut direction, mut pipes) = (Direction::default(), Pipes::default());
        client.set_nonblocking(true).expect("a socket");
        let (mut written, chunk) = (0, [7; CHUNK]);
        // Until nobody takes any more.
        loop {
            let moved = direction.proceed(&from, &to, &mut pipes).expect("open");
            match client.write(&chunk) {
                Ok(more) => written += more,
                Err(_) if moved == Moved::AllThereIs && direction.held.is_some() => break,
                Err(_) => {}
            }
        }
        drop(client);
        server.set_nonblocking(true).expect("a socket");
        let mut read = 0;
        let mut bytes = vec![0; 4 * CHUNK];
        loop {
            direction.proceed(&from, &to, &mut pipes).expect("open");
            match server.read(&mut bytes) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert_eq!(read, written);
    }
}
