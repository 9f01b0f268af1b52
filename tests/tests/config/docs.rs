//! Every command and every file in `docs/CONFIG.md`, in their order.

use std::{env, fs, process::Command};

use kernel_tests::{
    gate,
    launcher::{Site, binary},
    process::Process,
    servers::FILES,
};

const TEXT: &str = include_str!("../../../docs/CONFIG.md");

/// The blocks of code, each with the word behind its quotes.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = TEXT;
    while let Some((_, block)) = rest.split_once("\n```") {
        let (language, block) = block.split_once('\n').expect("it goes on");
        let (code, behind) = block.split_once("```").expect("each block ends");
        blocks.push((language, code));
        rest = behind;
    }
    blocks
}

#[test]
fn every_command_works() {
    let Some(_netns) = gate::enter(&["node", "sh"]) else {
        return;
    };
    // Names that nobody else on this machine has.
    let sites = [Site::new(), Site::new()];
    let own = |text: &str| {
        text.replace("shop-web", sites[0].name())
            .replace("shop-api", sites[1].name())
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::copy(format!("{FILES}/node.js"), dir.path().join("server.js")).expect("a file of ours");
    let bin = binary().parent().expect("it is in a directory");
    let path = env::var_os("PATH").unwrap_or_default();
    let node = std::path::PathBuf::from(gate::path_of("node"));
    let directories = [bin.to_owned(), node.parent().expect("likewise").to_owned()];
    let path = env::join_paths(directories.into_iter().chain(env::split_paths(&path)));
    let path = path.expect("names without colons");
    let shell = |line: &str| {
        let mut command = Command::new(gate::path_of("sh"));
        command
            .args(["-c", line])
            .current_dir(dir.path())
            .env("PATH", &path)
            .env("REUSEPORT_LAUNCH_RUNTIME_DIR", sites[0].runtime_dir());
        Process::spawn(&mut command)
    };

    let mut running: Vec<Process> = Vec::new();
    let mut commands = 0;
    for (language, code) in blocks() {
        match language {
            "toml" => {
                let name = code.lines().next().and_then(|line| line.strip_prefix("# "));
                let file = dir.path().join(name.expect("its first line names it"));
                fs::write(file, own(code)).expect("the test's own directory");
            }
            "sh" => {
                for line in code.lines().map(own) {
                    commands += 1;
                    if line.starts_with("reuseport-launch run ") {
                        let checked = shell(&line.replacen("run", "check", 1)).finish().success();
                        let apps = checked.matches(", ").count() + 1;
                        let process = shell(&format!("exec {line}"));
                        process.wait_until(&line, |lines| {
                            let ready = lines.iter().filter(|it| it.text.contains(" · steer "));
                            (ready.count() == apps).then_some(())
                        });
                        running.push(process);
                    } else {
                        let finished = shell(&line).finish();
                        assert_eq!(finished.code(), 0, "{line}: {}", finished.stderr);
                    }
                }
            }
            other => panic!("what is {other}?"),
        }
    }
    assert!(commands > 15, "{commands}");
    // The last command for each has stopped it.
    for process in running {
        assert_eq!(process.finish().code(), 0);
    }
}
