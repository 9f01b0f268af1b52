//! The side of the control socket that answers. It only carries: each request goes to the event
//! loop as a [`Call`], and what the loop replies goes back.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::FileTypeExt as _, net::UnixListener as StdListener},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::{fs::Mode, process::geteuid};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};

use super::protocol::{REQUEST_MAX, Request, Response, to_line};
use crate::failure::Failure;

/// Clients served at once; further ones wait in the socket's queue.
const CLIENTS_MAX: u32 = 64;
const BACKLOG: i32 = 128;
/// How long a client may take to send a request, and to take an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long [`Server::close`] waits for clients to take their last answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request and the way to reply to it.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Takes the answer; nobody may be waiting for it any more. Dropped instead, it closes the
    /// connection, which tells the client that the launcher is ending.
    pub reply: oneshot::Sender<Response>,
}

/// The control socket of this launcher; removed on drop, which must come before the lock's.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    socket: OwnedFd,
    accepting: JoinHandle<()>,
    places: Arc<Semaphore>,
    /// Dropped, it tells the connections to end after the request at hand.
    open: Option<watch::Sender<()>>,
}

impl Server {
    /// Listens at `path` and sends the requests to `calls`. Must be called within a tokio runtime,
    /// by the holder of the name's [`Lock`](crate::sys::runtime::Lock): a socket that is already
    /// there is taken for one of a launcher that was killed, and replaced.
    ///
    /// # Errors
    /// When something else than a socket is there, the path is longer than a socket's may be (107
    /// bytes), or the socket cannot be made.
    pub fn bind(path: &Path, calls: mpsc::Sender<Call>) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux a bound socket file takes its mode from the socket: it is never open to others.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        Self::resume(path, socket.into(), calls)
    }

    /// Goes on with a socket that was passed on through exec: clients that came meanwhile wait in
    /// its queue.
    ///
    /// # Errors
    /// When it can't be duplicated or waited for.
    pub fn resume(path: &Path, socket: OwnedFd, calls: mpsc::Sender<Call>) -> io::Result<Self> {
        let listener = StdListener::from(socket.try_clone()?);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;

        let places = Arc::new(Semaphore::new(CLIENTS_MAX as usize));
        let (open, closing) = watch::channel(());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&places), closing, calls));
        Ok(Self {
            path: path.to_owned(),
            socket,
            accepting,
            places,
            open: Some(open),
        })
    }

    /// Takes no more requests, and returns once the answers given so far are delivered, or after a
    /// second. Without it, the last answers may be lost when the process ends. Drop the receiver
    /// of the calls first, and the calls that will have no answer: it would be waited for.
    pub async fn close(mut self) {
        self.accepting.abort();
        self.open = None;
        // All places are free again when no client is left; who dawdles is left behind.
        let _ = timeout(CLOSE_TIMEOUT, self.places.acquire_many(CLIENTS_MAX)).await;
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        // A file left behind is replaced by the next launcher.
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is there and is not a socket", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

async fn accept(
    listener: UnixListener,
    places: Arc<Semaphore>,
    closing: watch::Receiver<()>,
    calls: mpsc::Sender<Call>,
) {
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, place, closing.clone(), calls.clone()));
            }
            // Out of file descriptors, most likely: the client stays in the queue meanwhile.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one client until it leaves. A client that goes away half-way, or fails in any other
/// way, ends only its own connection.
async fn serve(
    mut stream: UnixStream,
    _place: OwnedSemaphorePermit,
    mut closing: watch::Receiver<()>,
    calls: mpsc::Sender<Call>,
) {
    if let Err(failure) = authorise(&stream) {
        let _ = answer(&mut stream, &failure.into()).await;
        return;
    }
    let mut stream = BufReader::new(stream);
    loop {
        let line = tokio::select! {
            biased;
            line = timeout(CLIENT_TIMEOUT, read_line(&mut stream)) => line,
            _ = closing.changed() => return,
        };
        let Ok(Ok(Some(line))) = line else { return };
        let whole = line.len() <= REQUEST_MAX;
        let response = match Request::parse(&line) {
            Ok(request) => call(&calls, request, stream.get_ref()).await,
            Err(failure) => Some(failure.into()),
        };
        let Some(response) = response else { return };
        // Behind the first part of a line that is too long stands no request, but its rest.
        if answer(stream.get_mut(), &response).await.is_err() || !whole {
            return;
        }
    }
}

/// The socket's mode keeps others out; this holds where a file system ignores modes, too.
fn authorise(stream: &UnixStream) -> Result<(), Failure> {
    let own = geteuid().as_raw();
    let why = match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own => return Ok(()),
        Ok(peer) => format!(
            "uid {} is neither root nor uid {own}, which it runs as",
            peer.uid()
        ),
        Err(error) => format!("it cannot be told who asks: {error}"),
    };
    Err(Failure::new(
        "cannot talk to this launcher",
        why,
        "ask as the user that started it, or as root",
    ))
}

/// `None` at the end of the stream, where the last newline may be missing. Of a line that is too
/// long, one byte more than is allowed.
async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = REQUEST_MAX as u64 + 1;
    stream.take(limit).read_until(b'\n', &mut line).await?;
    Ok((!line.is_empty()).then_some(line))
}

/// `None` when the launcher is ending, or the client has gone. The request is carried out all the
/// same; only the client's place is given to another one, as it may take long.
async fn call(
    calls: &mpsc::Sender<Call>,
    request: Request,
    client: &UnixStream,
) -> Option<Response> {
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request, reply }).await.ok()?;
    tokio::select! {
        biased;
        answer = answer => answer.ok(),
        () = gone(client) => None,
    }
}

/// Returns when the client has closed its end; not if that has something to say first, or will
/// say nothing more and still listens.
async fn gone(client: &UnixStream) {
    if client.readable().await.is_ok() {
        let mut fds = [PollFd::new(client.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        if events.contains(PollFlags::POLLHUP) {
            return;
        }
    }
    std::future::pending().await
}

async fn answer(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let line = to_line(response)?;
    timeout(CLIENT_TIMEOUT, stream.write_all(&line)).await?
}
