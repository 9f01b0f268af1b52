//! The servers, as they come: nobody here wrote them, and none is told about port sharing.

use std::{fs, path::Path};

use crate::{dns, gate::path_of};

/// Files of the tests' own: what real servers are given to serve.
pub const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");

/// `node node.js`, which listens on `[::]` for both families and answers with its pid.
#[must_use]
pub fn node(port: u16) -> Vec<String> {
    vec![
        path_of("node"),
        format!("{FILES}/node.js"),
        port.to_string(),
    ]
}

/// `python3 -m http.server`.
#[must_use]
pub fn python(port: u16) -> Vec<String> {
    let [python, port] = [path_of("python3"), port.to_string()];
    [
        &python,
        "-u",
        "-m",
        "http.server",
        "--directory",
        FILES,
        &port,
    ]
    .map(str::to_owned)
    .into()
}

/// gunicorn with one worker process of its own; it answers with the pid of that.
#[must_use]
pub fn gunicorn(port: u16) -> Vec<String> {
    let [gunicorn, bind] = [path_of("gunicorn"), format!("0.0.0.0:{port}")];
    [
        &gunicorn,
        "--workers",
        "1",
        "--chdir",
        FILES,
        "--bind",
        &bind,
        "wsgi:app",
    ]
    .map(str::to_owned)
    .into()
}

/// nginx on port 8080 with a master and two workers per copy; it answers with the pid of the
/// worker. `dir` gets the files of `copies` copies.
///
/// # Panics
/// When they can't be written.
#[must_use]
pub fn nginx(dir: &Path, copies: u32) -> Vec<String> {
    for slot in 0..copies {
        fs::create_dir(dir.join(slot.to_string())).expect("a new temporary directory");
    }
    let prefix = dir
        .join("{slot}")
        .to_str()
        .expect("temporary directories have UTF-8 names")
        .to_owned();
    let [nginx, conf] = [path_of("nginx"), format!("{FILES}/nginx.conf")];
    [&nginx, "-p", &prefix, "-e", "error.log", "-c", &conf]
        .map(str::to_owned)
        .into()
}

/// nginx with one worker per copy, which listens where `servers` says: `server` blocks of its
/// configuration. `dir` gets the files of `copies` copies.
///
/// # Panics
/// When they can't be written.
#[must_use]
pub fn nginx_with(dir: &Path, copies: u32, servers: &str) -> Vec<String> {
    let conf = include_str!("../servers/nginx.conf");
    let (head, _) = conf.split_once("    server {").expect("it has one server");
    let conf = head.replace("worker_processes 2", "worker_processes 1") + servers + "}\n";
    let file = dir.join("nginx.conf");
    fs::write(&file, conf).expect("a new temporary directory");
    let mut command = nginx(dir, copies);
    let last = command.last_mut().expect("the configuration's path");
    *last = file
        .to_str()
        .expect("temporary directories have UTF-8 names")
        .to_owned();
    command
}

/// busybox's httpd: statically linked in Debian's `busybox-static`.
#[must_use]
pub fn busybox(port: u16) -> Vec<String> {
    let [busybox, port] = [path_of("busybox"), port.to_string()];
    [&busybox, "httpd", "-f", "-p", &port, "-h", FILES]
        .map(str::to_owned)
        .into()
}

/// The same, but each copy serves the directory below `dir` that has the number of its slot.
///
/// # Panics
/// When the path is not UTF-8.
#[must_use]
pub fn busybox_in(port: u16, dir: &Path) -> Vec<String> {
    let mut command = busybox(port);
    let files = command.last_mut().expect("the directory");
    let own = dir.join("{slot}");
    *files = own
        .to_str()
        .expect("temporary directories have UTF-8 names")
        .to_owned();
    command
}

/// dnsmasq, which answers with its slot (see [`crate::dns`]) in four groups: over TCP and UDP, each on
/// `0.0.0.0` and `[::]`. It is small: of 5 MB, all but half a MB is shared.
#[must_use]
pub fn dnsmasq(port: u16) -> Vec<String> {
    let [dnsmasq, port] = [path_of("dnsmasq"), format!("--port={port}")];
    let record = format!("--txt-record={},{{slot}}", dns::NAME);
    [
        &dnsmasq,
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        &port,
        &record,
    ]
    .map(str::to_owned)
    .into()
}

/// socat on the address (`UDP4-RECVFROM:5353,fork`), where it runs a program for each datagram. That
/// answers with the slot.
#[must_use]
pub fn socat(address: &str) -> Vec<String> {
    [
        &path_of("socat"),
        address,
        "SYSTEM:head -c1 >/dev/null; echo {slot}",
    ]
    .map(str::to_owned)
    .into()
}

/// `sockets.py`: a server on the sockets that are named (`tcp,0.0.0.0,8080`; see there), which
/// answers with its pid, and closes and opens them again on USR1 and USR2.
#[must_use]
pub fn sockets(specs: &[&str]) -> Vec<String> {
    let python = [
        path_of("python3"),
        "-u".to_owned(),
        format!("{FILES}/sockets.py"),
    ];
    let specs = specs.iter().map(|spec| (*spec).to_owned());
    python.into_iter().chain(specs).collect()
}

/// `node busy.js`, which is busy for 4 ms with each request and answers with its pid.
#[must_use]
pub fn busy_node(port: u16) -> Vec<String> {
    vec![
        path_of("node"),
        format!("{FILES}/busy.js"),
        port.to_string(),
    ]
}

/// A few lines of Python.
#[must_use]
pub fn python_code(code: &str) -> Vec<String> {
    vec![
        path_of("python3"),
        "-u".to_owned(),
        "-c".to_owned(),
        code.to_owned(),
    ]
}
