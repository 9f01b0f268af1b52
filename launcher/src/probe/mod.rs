//! Asking a worker whether it works, over its own port.
//!
//! Written on `httparse`, hyper's parser: one request without a body and the head of one answer do
//! not need a client with its connection task.

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr};

use httparse::{EMPTY_HEADER, Response, Status};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout_at},
};

/// The largest head of an answer, in bytes.
const HEAD: usize = 16 * 1024;

/// The largest number of headers in it.
const HEADERS: usize = 128;

/// How a worker is asked whether it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// It can be connected to: it listens, and its queue is not full. The kernel does that for it.
    Tcp,
    /// `GET` of this path is answered 2xx or 3xx. It starts with `/` and can stand in a request
    /// line: visible ASCII without `#`.
    Http(String),
}

/// A connection for one check. Once it exists, it stays with the worker that it was steered to.
#[derive(Debug)]
pub struct Connected {
    stream: TcpStream,
    to: SocketAddr,
    deadline: Instant,
}

/// Connects to a worker, from a socket that is bound already: the steering program knows the worker
/// that is meant by the port it comes from. The deadline is that of the whole check.
///
/// # Errors
/// A sentence that says why there is no connection: nobody listens, or not before the deadline.
pub async fn connect(
    from: TcpSocket,
    to: SocketAddr,
    deadline: Instant,
) -> Result<Connected, String> {
    match timeout_at(deadline, from.connect(to)).await {
        Ok(Ok(stream)) => Ok(Connected {
            stream,
            to,
            deadline,
        }),
        Ok(Err(error)) => Err(format!("connecting to {to} failed: {error}")),
        Err(_) => Err(format!("connecting to {to} took too long")),
    }
}

impl Connected {
    /// Does the check.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the answer, or that there is none before the
    /// deadline.
    pub async fn check(self, check: &Check) -> Result<(), String> {
        let path = match check {
            Check::Tcp => return Ok(()),
            Check::Http(path) => path,
        };
        let status = timeout_at(self.deadline, self.get(path))
            .await
            .map_err(|_| format!("GET {path} was not answered in time"))?
            .map_err(|error| format!("GET {path} failed: {error}"))?;
        match status {
            200..400 => Ok(()),
            _ => Err(format!("GET {path} was answered with {status}")),
        }
    }

    /// The status code of the answer.
    async fn get(self, path: &str) -> io::Result<u16> {
        let Self { mut stream, to, .. } = self;
        // The option's parser sees to that; without it, a path could smuggle in a header.
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("that is no path"));
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: reuseport-launch/{}\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::with_capacity(1024);
        loop {
            if (&mut stream).take(1024).read_buf(&mut head).await? == 0 {
                return Err(invalid("the connection was closed without a whole answer"));
            }
            while let Some((status, length)) = parse(&head)? {
                if status >= 200 {
                    return Ok(status);
                }
                // An interim answer, before the one that counts.
                head.drain(..length);
            }
            if head.len() > HEAD {
                return Err(invalid("the head of the answer is too large"));
            }
        }
    }
}

/// The status code and the length of a head, when it is whole.
fn parse(head: &[u8]) -> io::Result<Option<(u16, usize)>> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = Response::new(&mut headers);
    match response.parse(head) {
        Ok(Status::Complete(length)) => Ok(response.code.map(|status| (status, length))),
        Ok(Status::Partial) => Ok(None),
        Err(error) => Err(invalid(&format!("the answer is not HTTP/1: {error}"))),
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
