//! Checks of small servers, good and bad.

use std::time::Duration;

use tokio::{net::TcpListener, task::JoinHandle};

use super::*;

/// Long enough for anything that is going to happen.
const LONG: Duration = Duration::from_secs(10);

/// What a server does after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Wait,
    Close,
}

/// Accepts one connection, reads the request and answers in these pieces, then closes the
/// connection or waits until the other side does; returns the request.
async fn server(answer: &'static [&'static str], then: Then) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        stream.set_nodelay(true).expect("no delay");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.expect("readable");
        }
        for piece in answer {
            stream.write_all(piece.as_bytes()).await.expect("writable");
        }
        if then == Then::Wait {
            let _ = stream.read_to_end(&mut request).await;
        }
        String::from_utf8(request).expect("text")
    });
    (address, serving)
}

async fn get(to: SocketAddr, within: Duration) -> Result<(), String> {
    let from = TcpSocket::new_v4().expect("a socket");
    from.bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    let deadline = Instant::now() + within;
    let connected = connect(from, to, deadline).await?;
    connected
        .check(&Check::Http("/health?a=1".to_owned()))
        .await
}

async fn answered(answer: &'static [&'static str], then: Then) -> Result<(), String> {
    get(server(answer, then).await.0, LONG).await
}

#[tokio::test]
async fn an_answer_of_2xx_or_3xx_is_good() {
    // Without its end, and the connection stays open: the body is not waited for.
    let good = [
        &["HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"][..],
        &["HTTP/1.0 204 No Content\r\n\r\n"],
        &["HTTP/1.1 399 \r\n\r\n"],
        &[
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 302 F\r\n\r\n",
        ],
        &["HT", "TP/1.1 20", "0 OK\r\nA: ", "b\r\n\r", "\n"],
    ];
    for answer in good {
        assert_eq!(answered(answer, Then::Wait).await, Ok(()), "{answer:?}");
    }
}

#[tokio::test]
async fn the_request_is_whole() {
    let (address, serving) = server(&["HTTP/1.1 200 OK\r\n\r\n"], Then::Wait).await;
    get(address, LONG).await.expect("good");
    let request = serving.await.expect("served");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        request,
        format!(
            "GET /health?a=1 HTTP/1.1\r\nHost: {address}\r\nUser-Agent: reuseport-launch/{version}\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        )
    );
}

#[tokio::test]
async fn any_other_answer_is_told() {
    let bad = [
        (
            &["HTTP/1.1 500 Internal Server Error\r\n\r\n"][..],
            Then::Wait,
            "was answered with 500",
        ),
        (
            &["HTTP/1.1 404 Not Found\r\n\r\n"],
            Then::Close,
            "was answered with 404",
        ),
        (
            &["220 mail ESMTP\r\n"],
            Then::Wait,
            "failed: the answer is not HTTP/1: ",
        ),
        (
            &["HTTP/1.1 200 OK\r\n"],
            Then::Close,
            "failed: the connection was closed without a whole answer",
        ),
        (
            &[],
            Then::Close,
            "failed: the connection was closed without a whole answer",
        ),
    ];
    for (answer, then, expected) in bad {
        let told = answered(answer, then).await.expect_err("bad");
        let expected = format!("GET /health?a=1 {expected}");
        assert!(told.starts_with(&expected), "{told}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut line = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        while stream.write_all(&line).await.is_ok() {
            line = vec![b'a'; 1024];
        }
    });
    let told = get(address, LONG).await.expect_err("too large");
    assert_eq!(
        told,
        "GET /health?a=1 failed: the head of the answer is too large"
    );
    serving.await.expect("cut off");
}

#[tokio::test]
async fn silence_has_an_end() {
    let (address, _serving) = server(&[], Then::Wait).await;
    let told = get(address, Duration::from_millis(50))
        .await
        .expect_err("silent");
    assert_eq!(told, "GET /health?a=1 was not answered in time");
}

#[tokio::test]
async fn nobody_listens() {
    // Bound, so that nobody else gets the port.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    let address = socket.local_addr().expect("bound");
    let told = get(address, LONG).await.expect_err("refused");
    assert!(
        told.starts_with(&format!(
            "connecting to {address} failed: Connection refused"
        )),
        "{told}"
    );
}

#[tokio::test]
async fn a_full_queue_is_no_connection() {
    let listener = TcpSocket::new_v4().expect("a socket");
    listener
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("bound");
    let listener = listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("bound");
    let deadline = Instant::now() + LONG;
    // A queue of length 0 takes one.
    let first = connect(TcpSocket::new_v4().expect("a socket"), address, deadline).await;
    assert_eq!(first.expect("connected").check(&Check::Tcp).await, Ok(()));
    let soon = Instant::now() + Duration::from_millis(50);
    let told = connect(TcpSocket::new_v4().expect("a socket"), address, soon).await;
    assert_eq!(
        told.expect_err("full"),
        format!("connecting to {address} took too long")
    );
}

#[tokio::test]
async fn a_path_can_not_smuggle_a_header_in() {
    for path in ["health", "", "/ HTTP/1.1\r\nX: y", "/a b", "/é"] {
        let (address, _serving) = server(&[], Then::Wait).await;
        let deadline = Instant::now() + LONG;
        let connected = connect(TcpSocket::new_v4().expect("a socket"), address, deadline).await;
        let check = Check::Http(path.to_owned());
        let told = connected.expect("connected").check(&check).await;
        assert!(
            told.expect_err("refused")
                .ends_with("failed: that is no path")
        );
    }
}
