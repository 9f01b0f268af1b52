//! A client's connection to the built-in worker.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use nix::sys::epoll::EpollFlags;

use super::http::{self, HEAD_MAX, Refused, Request};

/// How many bytes of a client that was refused are taken and forgotten, so that it gets to see the
/// answer: closing a socket with something unread resets the connection.
const FORGOTTEN_MAX: usize = 64 * 1024;

/// A connection. Its socket never blocks.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    /// What has come and is no whole request yet.
    input: Vec<u8>,
    /// What is being sent, and how much of it has been.
    output: Vec<u8>,
    sent: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Requests are answered.
    Open,
    /// It is closed after what is being sent.
    Last,
    /// The same, but the client may still be sending.
    Refused,
    /// So many bytes of the client have been forgotten since.
    Forgetting(usize),
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For something to read, or for room to write.
    For(EpollFlags),
    /// It is done, or broken.
    Over,
}

impl Connection {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            state: State::Open,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Goes on as far as it goes without waiting. `serve` does a request's work, and appends the answer.
    pub(super) fn proceed(&mut self, serve: &mut dyn FnMut(&mut Request, &mut Vec<u8>)) -> Waits {
        loop {
            match self.step(serve) {
                Ok(None) => {}
                Ok(Some(waits)) => return waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A client that has gone is the client's affair.
                Err(_) => return Waits::Over,
            }
        }
    }

    fn step(
        &mut self,
        serve: &mut dyn FnMut(&mut Request, &mut Vec<u8>),
    ) -> io::Result<Option<Waits>> {
        if self.sent < self.output.len() {
            return match self.socket.write(&self.output[self.sent..]) {
                Ok(0) => Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.sent += sent;
                    Ok(None)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    Ok(Some(Waits::For(EpollFlags::EPOLLOUT)))
                }
                Err(error) => Err(error),
            };
        }
        self.output.clear();
        self.sent = 0;
        match self.state {
            State::Open => {}
            State::Last => return Ok(Some(Waits::Over)),
            State::Refused => {
                self.socket.shutdown(Shutdown::Write)?;
                self.state = State::Forgetting(self.input.len());
            }
            State::Forgetting(bytes) if bytes > FORGOTTEN_MAX => return Ok(Some(Waits::Over)),
            State::Forgetting(_) => {}
        }
        if self.state == State::Open && !self.input.is_empty() {
            match http::parse(&self.input) {
                Ok(Some((mut request, length))) => {
                    self.input.drain(..length);
                    serve(&mut request, &mut self.output);
                    if !request.keep_alive {
                        self.state = State::Last;
                    }
                    return Ok(None);
                }
                Ok(None) => {}
                Err(refused) => {
                    self.refuse(refused);
                    return Ok(None);
                }
            }
        }
        self.read()
    }

    fn refuse(&mut self, refused: Refused) {
        http::refuse(refused, &mut self.output);
        self.input.clear();
        self.state = State::Refused;
    }

    fn read(&mut self) -> io::Result<Option<Waits>> {
        let mut bytes = [0; HEAD_MAX];
        let read = match self.socket.read(&mut bytes) {
            Ok(0) => return Ok(Some(Waits::Over)),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Ok(Some(Waits::For(EpollFlags::EPOLLIN)));
            }
            Err(error) => return Err(error),
        };
        match &mut self.state {
            State::Forgetting(forgotten) => *forgotten += read,
            _ => self.input.extend(&bytes[..read]),
        }
        Ok(None)
    }
}
