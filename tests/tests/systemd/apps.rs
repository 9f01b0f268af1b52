//! Several apps below one supervisor: what the service manager is told of them together.

use std::{fs, process::Command};

use kernel_tests::{
    gate,
    launcher::{Site, binary},
    manager::Manager,
    process::Process,
    servers,
};
use nix::sys::signal::Signal;

#[test]
fn it_is_told_of_all_apps_together() {
    let Some(_netns) = gate::enter(&["node"]) else {
        return;
    };
    let sites = [Site::new(), Site::new()];
    let [web, api] = [sites[0].name(), sites[1].name()];
    let app = |name: &str, port: u16| {
        let command = servers::node(port);
        format!("[app.{name}]\ncommand = {command:?}\nport = {port}\n")
    };
    let file = sites[0].runtime_dir().join("apps.toml");
    let good = format!("workers = 1\n{}{}", app(web, 8080), app(api, 8081));
    fs::write(&file, &good).expect("written");
    let manager = Manager::of_file();
    let mut command = Command::new(binary());
    let supervisor = Process::spawn(
        command
            .args(["run".as_ref(), "--config".as_ref(), file.as_os_str()])
            .env("REUSEPORT_LAUNCH_RUNTIME_DIR", sites[0].runtime_dir())
            .env("NOTIFY_SOCKET", manager.name())
            .env("WATCHDOG_USEC", "3000000"),
    );
    let each = "1 of 1 worker ready";
    let all = format!("STATUS={web}: {each}; {api}: {each}");
    manager.told([&all, "READY=1"]);

    supervisor.signal(Signal::SIGHUP);
    manager.told(["RELOADING=1", "MONOTONIC_USEC=", "READY=1"]);
    for name in [web, api] {
        let status = sites[0].control(&["status", name, "--json"]).success();
        assert!(status.contains("\"generation\":2"), "{status}");
    }
    let _ = sites[0].control(&["reload", api]).success();
    manager.told(["RELOADING=1", "READY=1"]);

    fs::write(&file, "nonsense").expect("written");
    supervisor.signal(Signal::SIGHUP);
    manager.told(["RELOADING=1", "READY=1"]);
    fs::write(&file, good).expect("written");

    supervisor.signal(Signal::SIGTERM);
    manager.told(["STOPPING=1"]);
    let finished = supervisor.finish();
    assert_eq!(finished.code(), 0, "{}", finished.stderr);
    let heard = manager.heard();
    let count = |line: &str| heard.iter().filter(|heard| *heard == line).count();
    assert_eq!(count("READY=1"), 4, "{heard:#?}");
    assert!(count("WATCHDOG=1") > 0, "{heard:#?}");
    fs::remove_file(&file).expect("there");
    let left = fs::read_dir(sites[0].runtime_dir())
        .expect("there")
        .flatten();
    let sockets = left.filter(|entry| entry.path().extension().is_some_and(|end| end == "notify"));
    assert_eq!(sockets.count(), 0);
}
