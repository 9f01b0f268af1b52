//! The small HTTP server beside the control socket: the page of metrics, and whether the fleet is
//! ready and the launcher healthy, for orchestrators. It only carries: each question goes to the
//! event loop as a [`Call`]. Clients are few, have little time and say little; one that reads slowly
//! keeps nobody but itself waiting.

mod address;
mod listen;
mod request;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use self::request::{HEAD_MAX, Parsed, Request, parse};
pub use self::{address::Address, listen::Bound};
use crate::metrics::{Format, negotiate};

/// Clients served at once; further ones wait in the socket's queue.
const CLIENTS_MAX: usize = 32;
/// How long a client may take to send its request, and to take the answer; and the event loop to
/// answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long, and for how many bytes, a client that was answered is heard out: to close with
/// something unread would cut the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX: u64 = 64 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The page of metrics.
    Page(Format),
    /// Whether some worker is ready, and nothing is stopping.
    Ready,
    /// Whether the event loop answers.
    Healthy,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is a yes; the page always is.
    pub yes: bool,
    /// The body.
    pub text: String,
}

/// A question and the way to reply to it.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub question: Question,
    /// Takes the answer; nobody may be waiting for it any more.
    pub reply: oneshot::Sender<Answer>,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    /// The socket that it listens on.
    pub bound: Bound,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves clients of this socket and sends their questions to `calls`. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the socket can't be duplicated or waited for.
    pub fn start(bound: Bound, calls: mpsc::Sender<Call>) -> io::Result<Self> {
        let listener = Listener::of(&bound)?;
        let accepting = tokio::spawn(accept(listener, calls));
        Ok(Self { bound, accepting })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn of(bound: &Bound) -> io::Result<Self> {
        let socket = bound.duplicate()?;
        Ok(match bound.is_unix() {
            true => Self::Unix(UnixListener::from_std(socket.into())?),
            false => Self::Tcp(TcpListener::from_std(socket.into())?),
        })
    }

    async fn accept(
        &self,
        place: OwnedSemaphorePermit,
        calls: mpsc::Sender<Call>,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve(stream, place, calls));
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(serve(stream, place, calls));
            }
        }
        Ok(())
    }
}

async fn accept(listener: Listener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        // Out of file descriptors, most likely: the client stays in the queue meanwhile.
        if let Err(error) = listener.accept(place, calls.clone()).await {
            tracing::warn!(%error, "cannot accept a metrics connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Answers one request. A client that fails in any way ends only its own connection.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    _place: OwnedSemaphorePermit,
    calls: mpsc::Sender<Call>,
) {
    let Ok(Ok(parsed)) = timeout(TIMEOUT, read(&mut stream)).await else {
        return;
    };
    let response = match parsed {
        Parsed::Whole(request) => respond(&request, &calls).await,
        Parsed::Wrong(status) => Response::plain(status, "").bytes(false),
        Parsed::Part => return,
    };
    let written = timeout(TIMEOUT, async {
        stream.write_all(&response).await?;
        stream.shutdown().await
    });
    if matches!(written.await, Ok(Ok(()))) {
        let mut rest = stream.take(LINGER_MAX);
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}

/// Reads a request's head; [`Parsed::Part`] when the client leaves before its end.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Parsed> {
    let mut head = Vec::new();
    loop {
        let room = (HEAD_MAX + 1).saturating_sub(head.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Ok(Parsed::Part);
        }
        match parse(&head) {
            Parsed::Part => {}
            parsed => return Ok(parsed),
        }
    }
}

async fn respond(request: &Request, calls: &mpsc::Sender<Call>) -> Vec<u8> {
    let format = negotiate(&request.accept);
    let question = match &*request.path {
        "/metrics" => Question::Page(format),
        "/-/ready" => Question::Ready,
        "/-/healthy" => Question::Healthy,
        _ => {
            let text = "there are /metrics, /-/ready and /-/healthy\n";
            return Response::plain("404 Not Found", text).bytes(request.head_only);
        }
    };
    let (reply, answer) = oneshot::channel();
    let asked = async {
        calls.send(Call { question, reply }).await.ok()?;
        answer.await.ok()
    };
    let response = match timeout(TIMEOUT, asked).await {
        Ok(Some(Answer { yes, text })) => Response {
            status: if yes { "200 OK" } else { UNAVAILABLE },
            content_type: match question {
                Question::Page(format) => format.content_type(),
                Question::Ready | Question::Healthy => PLAIN,
            },
            text,
        },
        Ok(None) => Response::plain(UNAVAILABLE, "the launcher is ending\n"),
        Err(_) => Response::plain(UNAVAILABLE, "the launcher does not answer\n"),
    };
    response.bytes(request.head_only)
}

const PLAIN: &str = "text/plain; charset=utf-8";
const UNAVAILABLE: &str = "503 Service Unavailable";

struct Response {
    status: &'static str,
    content_type: &'static str,
    text: String,
}

impl Response {
    fn plain(status: &'static str, text: &str) -> Self {
        let text = match text {
            "" => format!("{status}\n"),
            _ => text.to_owned(),
        };
        Self {
            status,
            content_type: PLAIN,
            text,
        }
    }

    fn bytes(self, head_only: bool) -> Vec<u8> {
        let Self {
            status,
            content_type,
            text,
        } = self;
        let allow = match status.starts_with("405") {
            true => "Allow: GET, HEAD\r\n",
            false => "",
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nVary: Accept\r\nConnection: close\r\n\r\n",
            text.len()
        );
        let body = if head_only { "" } else { &text };
        [head.as_bytes(), body.as_bytes()].concat()
    }
}
