//! What is packed: the manual, what shells complete, and the Debian package, installed into a directory
//! of its own and removed again.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kernel_tests::{
    client, gate,
    launcher::{Launch, Site, binary},
    process::{Finished, Process},
    servers,
};

/// Runs a program to its end.
#[track_caller]
fn run(program: &str, arguments: &[&OsStr]) -> Finished {
    Process::spawn(Command::new(gate::path_of(program)).args(arguments)).finish()
}

/// Has groff set a page, with all its warnings, and returns what it says, as plain text.
#[track_caller]
fn set(page: &Path) -> String {
    let options = ["-man", "-Tutf8", "-ww", "-P-cbou"].map(OsStr::new);
    let finished = run("groff", &[&options[..], &[page.as_os_str()]].concat());
    finished.success()
}

#[test]
fn each_page_of_the_manual_is_set_without_a_warning() {
    let Some(_netns) = gate::enter(&["groff"]) else {
        return;
    };
    let site = Site::new();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let to = dir.path().to_str().expect("it has a UTF-8 name");
    assert_eq!(site.control(&["man", "--to", to]).success(), "");
    let mut pages = 0;
    for entry in fs::read_dir(dir.path()).expect("it is there") {
        let page = entry.expect("it is there").path();
        let text = set(&page);
        for section in ["NAME", "SYNOPSIS", "OPTIONS"] {
            let title = format!("\n{section}\n");
            assert!(text.contains(&title), "{section} in {text}");
        }
        pages += 1;
    }
    assert!(pages > 15, "{pages}");

    let printed = site.control(&["man", "drain"]).success();
    let file = fs::read_to_string(dir.path().join("reuseport-launch-drain.1"));
    assert_eq!(file.expect("it was written"), printed);
    let unknown = site.control(&["man", "dance"]);
    unknown.assert_error(2, "there is no such verb");
    let nowhere = site.control(&["man", "--to", "/proc/nowhere"]);
    nowhere.assert_error(1, "No such file or directory");
}

/// What bash has to offer behind these words, the last of which is begun.
#[track_caller]
fn offered(site: &Site, words: &[&str]) -> BTreeSet<String> {
    let last = words.last().expect("the program at least");
    let script = format!(
        "source <(reuseport-launch completions bash)
        COMP_WORDS=({}) COMP_CWORD={} COMP_TYPE=9
        \"$(complete -p reuseport-launch | sed 's/.*-F \\([^ ]*\\).*/\\1/')\" reuseport-launch '{last}' ''
        printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        words.len() - 1,
    );
    let path = env::var_os("PATH").unwrap_or_default();
    let own = binary().parent().expect("it is in a directory").to_owned();
    let path = env::join_paths([own].into_iter().chain(env::split_paths(&path)));
    let mut bash = Command::new(gate::path_of("bash"));
    bash.args(["-c", &script])
        .env("PATH", path.expect("names without colons"))
        .env("REUSEPORT_LAUNCH_RUNTIME_DIR", site.runtime_dir());
    let offered = Process::spawn(&mut bash).finish().success();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_options_and_the_names_of_launchers() {
    let Some(_netns) = gate::enter(&["bash", "sed", "python3"]) else {
        return;
    };
    let launcher = Launch::of(servers::python(8080)).ready();
    let site = &launcher.site;
    let set = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let verbs: BTreeSet<String> = set(&["restart", "reload"]);
    assert_eq!(offered(site, &["reuseport-launch", "re"]), verbs);
    let options: BTreeSet<String> = set(&[
        "--max-age",
        "--max-connections",
        "--max-memory",
        "--max-surge",
    ]);
    assert_eq!(
        offered(site, &["reuseport-launch", "run", "--max-"]),
        options
    );
    let policies: BTreeSet<String> = set(&["random", "round-robin"]);
    assert_eq!(offered(site, &["reuseport-launch", "steer", "r"]), policies);
    let names: BTreeSet<String> = set(&[site.name()]);
    for words in [
        &["status", "te"][..],
        &["logs", "te"],
        &["scale", "2", "te"],
    ] {
        let words = [&["reuseport-launch"], words].concat();
        assert_eq!(offered(site, &words), names, "{words:?}");
    }
    launcher.stop_clean();
}

#[test]
fn each_shell_has_a_script_and_others_are_named() {
    let site = Site::new();
    for shell in ["bash", "elvish", "fish", "zsh"] {
        let script = site.control(&["completions", shell]).success();
        assert!(script.contains("REUSEPORT_LAUNCH_COMPLETE"), "{script}");
    }
    let unknown = site.control(&["completions", "csh"]);
    assert_eq!(unknown.code(), 2);
    assert!(
        unknown.stderr.contains("bash, elvish, fish, zsh"),
        "{}",
        unknown.stderr
    );
}

/// The files below a directory, without those that dpkg keeps for itself.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is there") {
            let path = entry.expect("it is there").path();
            match path.strip_prefix(root).expect("it is below") {
                own if own.starts_with("var/lib/dpkg") || own.starts_with("var/log") => {}
                _ if path.is_dir() => directories.push(path),
                own => {
                    found.insert(own.to_owned());
                }
            }
        }
    }
    found
}

/// Has dpkg do this in a root of its own. What the package depends on is not there.
#[track_caller]
fn dpkg(root: &Path, arguments: &[&OsStr]) -> Finished {
    let mut of_root = std::ffi::OsString::from("--root=");
    of_root.push(root);
    let own = ["--force-script-chrootless", "--force-depends"].map(OsStr::new);
    let finished = run(
        "dpkg",
        &[&[of_root.as_os_str()], &own[..], arguments].concat(),
    );
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    finished
}

#[test]
fn the_package_is_installed_works_and_is_removed() {
    let needed = [
        "dpkg", "dpkg-deb", "strip", "gzip", "groff", "python3", "git",
    ];
    let Some(_netns) = gate::enter(&needed) else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let package = xtask::package(binary(), dir.path()).expect("all it takes is there");
    let root = dir.path().join("root");
    let known = root.join("var/lib/dpkg");
    for directory in ["info", "updates"] {
        fs::create_dir_all(known.join(directory)).expect("the test's own directory");
    }
    fs::write(known.join("status"), "").expect("the test's own directory");

    dpkg(&root, &[OsStr::new("--install"), package.as_os_str()]);
    let installed = files(&root);
    let doc = "usr/share/doc/reuseport-launch";
    for file in [
        "usr/bin/reuseport-launch",
        "usr/share/man/man1/reuseport-launch.1.gz",
        "usr/share/man/man1/reuseport-launch-print-config.1.gz",
        "usr/share/bash-completion/completions/reuseport-launch",
        "usr/share/fish/vendor_completions.d/reuseport-launch.fish",
        "usr/share/zsh/vendor-completions/_reuseport-launch",
        &format!("{doc}/copyright"),
        &format!("{doc}/changelog.gz"),
        &format!("{doc}/changelog.Debian.gz"),
        &format!("{doc}/docs/CONFIG.md"),
        &format!("{doc}/examples/reuseport-launch.toml"),
    ] {
        assert!(
            installed.contains(Path::new(file)),
            "{file} in {installed:?}"
        );
    }
    // Each unit of ours, as it is.
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for unit in fs::read_dir(deploy).into_iter().flatten() {
        let unit = unit.expect("it is there").path();
        if unit.extension() == Some(OsStr::new("service")) {
            let name = unit.file_name().expect("it has one");
            let there = fs::read(root.join("usr/lib/systemd/system").join(name));
            assert_eq!(
                there.expect("it is packed"),
                fs::read(&unit).expect("it is there")
            );
        }
    }
    // The digests are right, and the pages what groff can set.
    let name = OsStr::new("reuseport-launch");
    assert_eq!(dpkg(&root, &[OsStr::new("--verify"), name]).stdout, "");
    let page = root.join("usr/share/man/man1/reuseport-launch.1.gz");
    let text = run("gzip", &[OsStr::new("-dc"), page.as_os_str()]).success();
    fs::write(dir.path().join("page"), text).expect("the test's own directory");
    assert!(set(&dir.path().join("page")).contains("EXAMPLES"));

    // The binary serves, with the example for its configuration.
    let example = root.join(doc).join("examples/reuseport-launch.toml");
    let launcher = Launch::of(servers::python(8080))
        .executable(&root.join("usr/bin/reuseport-launch"))
        .options([
            OsStr::new("--workers=2"),
            OsStr::new("--config"),
            example.as_os_str(),
        ])
        .ready();
    client::spread(client::address("127.0.0.1:8080"), 4);
    launcher.stop_clean();

    dpkg(&root, &[OsStr::new("--purge"), name]);
    assert_eq!(files(&root), BTreeSet::new());
}
