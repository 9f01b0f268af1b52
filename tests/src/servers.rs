//! The servers, as they come: nobody here wrote them, and none is told about port sharing.

use std::path::Path;

use crate::gate::path_of;

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
        std::fs::create_dir(dir.join(slot.to_string())).expect("a new temporary directory");
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

/// busybox's httpd: statically linked in Debian's `busybox-static`.
#[must_use]
pub fn busybox(port: u16) -> Vec<String> {
    let [busybox, port] = [path_of("busybox"), port.to_string()];
    [&busybox, "httpd", "-f", "-p", &port, "-h", FILES]
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
