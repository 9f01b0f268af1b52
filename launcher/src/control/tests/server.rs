//! The answering side, against clients that behave and clients that do not.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::mpsc,
};

use super::launcher::{Launcher, directory, leave_stale_socket, name, runtime};
use crate::control::{
    protocol::{REQUEST_MAX, Request, Response},
    server::{Call, Server},
};

async fn connect(path: &Path) -> UnixStream {
    UnixStream::connect(path).await.unwrap()
}

/// All that the server says until it closes the connection.
async fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    match stream.read_to_string(&mut text).await {
        Ok(_) => {}
        // It closed without having read all.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    text
}

#[test]
fn the_socket_is_private_and_goes_with_the_server() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let launcher = Launcher::start(&directory, &name("web"));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(launcher);
        assert!(!path.exists());
    });
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else() {
    let (_root, directory) = directory();
    let path = leave_stale_socket(&directory, &name("web"));
    let other = directory.socket(&name("other"));
    std::fs::write(&other, "precious").unwrap();
    runtime().block_on(async {
        let _launcher = Launcher::start(&directory, &name("web"));
        connect(&path).await;
        let error = Server::bind(&other, mpsc::channel(1).0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "precious");
    });
}

#[test]
fn a_path_that_is_too_long_is_an_error() {
    let (root, _directory) = directory();
    let path = root.path().join("x".repeat(108));
    runtime().block_on(async {
        Server::bind(&path, mpsc::channel(1).0).unwrap_err();
    });
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    let (_root, directory) = directory();
    runtime().block_on(async {
        let _launcher = Launcher::start(&directory, &name("web"));
        let mut stream = connect(&directory.socket(&name("web"))).await;
        // The last one lacks its newline.
        stream
            .write_all(b"{\"verb\":\"stop\"}\ngarbage\n{\"verb\":\"stop\"}")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        let text = rest(stream).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "{\"ok\":true}");
        assert!(
            lines[1].starts_with("{\"ok\":false,\"error\":{\"what\":\"cannot understand"),
            "{text}"
        );
        assert_eq!(lines[2], "{\"ok\":true}");
    });
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    let (_root, directory) = directory();
    runtime().block_on(async {
        let _launcher = Launcher::start(&directory, &name("web"));
        let mut stream = connect(&directory.socket(&name("web"))).await;
        let mut line = vec![b' '; REQUEST_MAX];
        line.extend(b"{\"verb\":\"stop\"}\n");
        stream.write_all(&line).await.unwrap();
        let text = rest(stream).await;
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("longer than 65536 bytes"), "{text}");
    });
}

#[test]
fn the_longest_request_is_understood() {
    let (_root, directory) = directory();
    runtime().block_on(async {
        let _launcher = Launcher::start(&directory, &name("web"));
        let mut stream = connect(&directory.socket(&name("web"))).await;
        let request = b"{\"verb\":\"stop\"}\n";
        let mut line = vec![b' '; REQUEST_MAX - request.len()];
        line.extend(request);
        stream.write_all(&line).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(stream).await, "{\"ok\":true}\n");
    });
}

#[test]
fn clients_that_go_away_harm_nothing() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let _server = Server::bind(&path, calls).unwrap();
        // More of each kind than there are places.
        for _ in 0..100 {
            drop(connect(&path).await);
            connect(&path).await.write_all(b"{\"verb\":").await.unwrap();
            connect(&path)
                .await
                .write_all(b"{\"verb\":\"status\"}\n")
                .await
                .unwrap();
            let Call { request, reply } = requests.recv().await.unwrap();
            assert_eq!(request, Request::Status {});
            let _ = reply.send(Response::Done);
        }
        let mut stream = connect(&path).await;
        stream.write_all(b"{\"verb\":\"stop\"}\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let Call { reply, .. } = requests.recv().await.unwrap();
        reply.send(Response::Done).unwrap();
        assert_eq!(rest(stream).await, "{\"ok\":true}\n");
    });
}

#[test]
fn clients_beyond_the_limit_wait_for_a_place() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let _launcher = Launcher::start(&directory, &name("web"));
        let mut served = Vec::new();
        for _ in 0..64 {
            let mut stream = connect(&path).await;
            stream.write_all(b"{\"verb\":\"stop\"}\n").await.unwrap();
            stream.read_u8().await.unwrap();
            served.push(stream);
        }
        let mut waiting = connect(&path).await;
        waiting.write_all(b"{\"verb\":\"stop\"}\n").await.unwrap();
        // Two tasks and their channel are run through many times before this gives up.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.try_read(&mut [0]).is_err());
        served.pop();
        assert_eq!(waiting.read_u8().await.unwrap(), b'{');
    });
}

#[test]
fn closing_delivers_the_answers_that_were_given() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(2);
        let server = Server::bind(&path, calls).unwrap();
        let mut idle = connect(&path).await;
        idle.write_all(b"garbage\n").await.unwrap();
        idle.read_u8().await.unwrap();
        let mut stop = connect(&path).await;
        stop.write_all(b"{\"verb\":\"stop\"}\n").await.unwrap();
        let Call { reply, .. } = requests.recv().await.unwrap();
        let mut late = connect(&path).await;
        late.write_all(b"{\"verb\":\"status\"}\n").await.unwrap();
        let unanswered = requests.recv().await.unwrap();

        reply.send(Response::Done).unwrap();
        drop((unanswered, requests));
        server.close().await;
        assert!(!path.exists());
        assert_eq!(rest(stop).await, "{\"ok\":true}\n");
        assert_eq!(rest(late).await, "");
        rest(idle).await;
    });
}

#[test]
fn while_one_client_waits_others_are_served() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let _server = Server::bind(&path, calls).unwrap();
        let mut reloading = connect(&path).await;
        reloading
            .write_all(b"{\"verb\":\"reload\"}\n")
            .await
            .unwrap();
        let reload = requests.recv().await.unwrap();
        let mut other = connect(&path).await;
        for _ in 0..2 {
            other.write_all(b"{\"verb\":\"stop\"}\n").await.unwrap();
            let Call { request, reply } = requests.recv().await.unwrap();
            assert_eq!(request, Request::Stop {});
            reply.send(Response::Done).unwrap();
            let mut answer = [0; 12];
            other.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"{\"ok\":true}\n");
        }
        reload.reply.send(Response::Done).unwrap();
        reloading.shutdown().await.unwrap();
        assert_eq!(rest(reloading).await, "{\"ok\":true}\n");
    });
}

#[test]
fn who_leaves_gives_up_a_place_and_calls_nothing_off() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let _server = Server::bind(&path, calls).unwrap();
        let mut under_way = Vec::new();
        // More than there are places.
        for _ in 0..100 {
            let mut stream = connect(&path).await;
            stream
                .write_all(b"{\"verb\":\"drain\",\"slot\":0}\n")
                .await
                .unwrap();
            under_way.push(requests.recv().await.unwrap());
        }
        for Call { request, mut reply } in under_way {
            assert_eq!(request, Request::Drain { slot: 0 });
            reply.closed().await;
        }
    });
}

#[test]
fn who_still_listens_gets_the_answer() {
    let (_root, directory) = directory();
    let path = directory.socket(&name("web"));
    runtime().block_on(async {
        let (calls, mut requests) = mpsc::channel(1);
        let _server = Server::bind(&path, calls).unwrap();
        for (second, ends) in [(&b""[..], true), (b"{\"verb\":\"stop\"}\n", false)] {
            let mut stream = connect(&path).await;
            stream.write_all(b"{\"verb\":\"upgrade\"}\n").await.unwrap();
            let upgrade = requests.recv().await.unwrap();
            // Neither the end of what it says nor its next request means that it has left.
            stream.write_all(second).await.unwrap();
            if ends {
                stream.shutdown().await.unwrap();
            }
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            upgrade.reply.send(Response::Done).unwrap();
            if !ends {
                let stop = requests.recv().await.unwrap();
                stop.reply.send(Response::Done).unwrap();
                stream.shutdown().await.unwrap();
            }
            let answers = rest(stream).await;
            assert_eq!(answers, "{\"ok\":true}\n".repeat(if ends { 1 } else { 2 }));
        }
    });
}
