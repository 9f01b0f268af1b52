//! The runtime directory on a real file system.

use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use super::*;

fn prepared() -> (tempfile::TempDir, RuntimeDir) {
    let root = tempfile::tempdir().unwrap();
    let directory = RuntimeDir::locate(Some(&root.path().join("run"))).unwrap();
    directory.prepare().unwrap();
    (root, directory)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

#[test]
fn names_are_checked() {
    for good in ["a", "web-1.blue_green", &"x".repeat(64)] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        ".",
        "..",
        ".hidden",
        "-v",
        "a/b",
        "a b",
        "é",
        "a\0",
        &"x".repeat(65),
    ] {
        assert!(
            bad.parse::<Name>().unwrap_err().starts_with("allowed:"),
            "{bad:?}"
        );
    }
}

#[test]
fn names_come_from_commands() {
    let of = |command: &str| Name::of_command(command.as_ref()).to_string();
    assert_eq!(of("/usr/bin/python3"), "python3");
    assert_eq!(of("./my server"), "my-server");
    assert_eq!(of("..hidden"), "hidden");
    assert_eq!(of(".."), "command");
    assert_eq!(of(""), "command");
    assert_eq!(of(&"é".repeat(70)), "command");
    assert_eq!(of(&"x".repeat(70)).len(), 64);
}

#[test]
fn everyone_has_a_directory() {
    let own = |uid, xdg: Option<&str>| own_directory(uid, xdg.map(OsString::from));
    assert_eq!(
        own(0, Some("/run/user/0")),
        Path::new("/run/reuseport-launch")
    );
    assert_eq!(
        own(1000, Some("/run/user/1000")),
        Path::new("/run/user/1000/reuseport-launch")
    );
    assert_eq!(own(1000, None), Path::new("/tmp/reuseport-launch-1000"));
    assert_eq!(own(1000, Some("")), Path::new("/tmp/reuseport-launch-1000"));
    assert_eq!(
        own(1000, Some("relative")),
        Path::new("/tmp/reuseport-launch-1000")
    );
}

#[test]
fn a_directory_others_can_write_to_is_refused() {
    let (_root, directory) = prepared();
    directory.prepare().unwrap();
    directory.verify().unwrap();
    let mode =
        |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o770);
    let failure = directory.prepare().unwrap_err();
    assert_eq!(failure.why, "its mode 770 lets others write to it");
    mode(0o755);
    directory.prepare().unwrap();
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    let (_root, directory) = prepared();
    let metadata = fs::symlink_metadata(directory.path()).unwrap();
    let stranger = metadata.uid() + 1;
    let failure = directory.check(&metadata, &[stranger]).unwrap_err();
    assert_eq!(failure.why, format!("it belongs to uid {}", metadata.uid()));
    directory
        .check(&metadata, &[stranger, metadata.uid()])
        .unwrap();
}

#[test]
fn a_link_or_a_file_is_no_directory() {
    let (root, directory) = prepared();
    let link = root.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    let failure = RuntimeDir(link).prepare().unwrap_err();
    assert_eq!(failure.why, "it is not a directory");
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    RuntimeDir(file).prepare().unwrap_err();
}

#[test]
fn one_lock_per_name() {
    let (_root, directory) = prepared();
    let held = Lock::acquire(&directory, &name("web")).unwrap();
    Lock::acquire(&directory, &name("other")).unwrap();
    let failure = Lock::acquire(&directory, &name("web")).unwrap_err();
    let pid = std::process::id();
    assert_eq!(
        failure.why,
        format!("a launcher named web already runs (pid {pid})")
    );
    assert!(
        failure.hint.contains("reuseport-launch stop web"),
        "{}",
        failure.hint
    );
    drop(held);
    // A child that another test is starting shares our open files until it runs its program.
    let started = Instant::now();
    while let Err(failure) = Lock::acquire(&directory, &name("web")) {
        assert!(started.elapsed() < Duration::from_secs(10), "{failure}");
        std::thread::yield_now();
    }
}

#[test]
fn a_longer_pid_of_an_earlier_holder_leaves_nothing() {
    let (_root, directory) = prepared();
    fs::write(directory.lock(&name("web")), "4194304999\n").unwrap();
    let _held = Lock::acquire(&directory, &name("web")).unwrap();
    let text = fs::read_to_string(directory.lock(&name("web"))).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn state_is_written_replaced_and_removed() {
    let (_root, directory) = prepared();
    let web = name("web");
    assert_eq!(State::<Vec<u8>>::read(&directory, &web).unwrap(), None);
    <State>::remove(&directory, &web).unwrap();
    let mut state = State {
        pid: 1,
        cgroup: "/sys/fs/cgroup/web".into(),
        started_at: "2026-11-21T05:57:00Z".into(),
        name: "web".into(),
        fleet: vec![7],
    };
    state.write(&directory, &web).unwrap();
    state.pid = 2;
    state.write(&directory, &web).unwrap();
    assert_eq!(
        State::<Vec<u8>>::read(&directory, &web).unwrap(),
        Some(state)
    );
    <State>::remove(&directory, &web).unwrap();
    assert_eq!(State::<Vec<u8>>::read(&directory, &web).unwrap(), None);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_torn_state_is_said_to_be_one() {
    let (_root, directory) = prepared();
    fs::write(directory.state(&name("web")), "{\"pid\":").unwrap();
    <State>::read(&directory, &name("web")).unwrap_err();
}

#[test]
fn names_are_those_with_a_socket() {
    let (_root, directory) = prepared();
    for file in ["web.sock", "api.sock", "api.lock", "-x.sock", ".sock"] {
        fs::write(directory.path().join(file), "").unwrap();
    }
    assert_eq!(directory.names().unwrap(), [name("api"), name("web")]);
    let nowhere = RuntimeDir(directory.path().join("missing"));
    assert_eq!(nowhere.names().unwrap(), []);
    nowhere.verify().unwrap();
}

#[test]
fn output_sockets_are_told_apart_by_name() {
    let (_root, directory) = prepared();
    let (web, dotted) = (name("web"), name("web.12"));
    assert_eq!(directory.outputs(&web), Vec::<PathBuf>::new());
    for (of, pid) in [(&web, 7), (&dotted, 8)] {
        fs::write(directory.output(of, pid), "").unwrap();
    }
    fs::write(directory.socket(&web), "").unwrap();
    assert_eq!(directory.outputs(&web), [directory.output(&web, 7)]);
    assert_eq!(directory.outputs(&dotted), [directory.output(&dotted, 8)]);
    let nowhere = RuntimeDir::locate(Some(Path::new("/nonexistent"))).unwrap();
    assert_eq!(nowhere.outputs(&web), Vec::<PathBuf>::new());
}
