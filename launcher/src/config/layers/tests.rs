use std::fs;

use super::*;
use crate::config::tests::config;

/// A file in a directory of its own.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.toml");
    fs::write(&path, text).unwrap();
    let option = format!("--config {}", path.display());
    (dir, option)
}

/// A key's first value, and its source as it is shown: of a file the line only.
fn shown(app: &App, key: &str) -> (String, String) {
    let entry = app.entry(key).unwrap();
    let source = match &entry.source {
        Source::File { line, .. } => format!("line {line}"),
        other => other.to_string(),
    };
    let value = entry
        .values
        .first()
        .map(|value| value.to_string_lossy().into_owned());
    (value.unwrap_or_default(), source)
}

#[test]
fn flags_come_before_the_environment_and_that_before_the_file() {
    let (_dir, option) = file("workers = 2\nmax-surge = 2\nstop-timeout = '2s'\ncommand = ['a']\n");
    let environment = [
        ("REUSEPORT_LAUNCH_WORKERS", "3"),
        ("REUSEPORT_LAUNCH_MAX_SURGE", "3"),
        ("REUSEPORT_LAUNCH_STOP_TIMEOUT", ""),
    ];
    let apps = config(&format!("{option} -w 4"), &environment)
        .unwrap()
        .apps;
    let [app] = &apps[..] else { panic!("{apps:?}") };
    let of = |key| shown(app, key);
    let pair = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(of("workers"), pair("4", "command line"));
    assert_eq!(of("max-surge"), pair("3", "REUSEPORT_LAUNCH_MAX_SURGE"));
    assert_eq!(of("stop-timeout"), pair("2s", "line 3"));
    assert_eq!(of("drain-timeout"), pair("30s", "default"));
    assert_eq!(app.options.max_surge, 3);
    assert_eq!(app.command.values, ["a"]);

    let app = config(&format!("{option} -- b c"), &[])
        .unwrap()
        .apps
        .remove(0);
    assert_eq!(
        (&app.command.values[..], &app.command.source),
        (&["b".into(), "c".into()][..], &Source::Flag)
    );
    // The file, too, can be named by the environment.
    let path = option.trim_start_matches("--config ");
    let app = config("run", &[("REUSEPORT_LAUNCH_CONFIG", path)])
        .unwrap()
        .apps
        .remove(0);
    assert_eq!(shown(&app, "workers").0, "2");
}

#[test]
fn a_switch_can_be_turned_off_again() {
    let (_dir, option) = file("no-hold = true\nverbose = 2\n");
    let hold = |line: &str, environment: &[(&str, &str)]| {
        let app = config(&format!("{option} {line} -- x"), environment)
            .unwrap()
            .apps
            .remove(0);
        (app.options.no_hold, app.options.verbose)
    };
    assert_eq!(hold("", &[]), (true, 2));
    assert_eq!(hold("--no-hold=false -v", &[]), (false, 1));
    assert_eq!(
        hold(
            "",
            &[
                ("REUSEPORT_LAUNCH_NO_HOLD", "0"),
                ("REUSEPORT_LAUNCH_VERBOSE", "0")
            ]
        ),
        (false, 0)
    );
}

#[test]
fn the_number_of_workers_has_a_second_variable() {
    let workers = |line: &str, environment: &[(&str, &str)]| {
        shown(&config(line, environment).unwrap().apps[0], "workers")
    };
    let web = ("WEB_CONCURRENCY", "6");
    assert_eq!(
        workers("-- x", &[web]),
        ("6".to_owned(), "WEB_CONCURRENCY".to_owned())
    );
    assert_eq!(
        workers("run -- x", &[web, ("REUSEPORT_LAUNCH_WORKERS", "5")]).0,
        "5"
    );
    assert_eq!(workers("-w 2 -- x", &[web]).0, "2");
    assert_eq!(
        workers("-w auto -- x", &[("WEB_CONCURRENCY", "garbage")]).0,
        "auto"
    );
    assert_eq!(workers("-- x", &[("WEB_CONCURRENCY", "")]).0, "auto");
    // What a launcher tells its workers is not meant for a launcher among them.
    let told = [
        ("REUSEPORT_LAUNCH_WORKERS", "5"),
        ("REUSEPORT_LAUNCH_SLOT", "0"),
    ];
    assert_eq!(workers("-- x", &told).0, "auto");
}

#[test]
fn a_wrong_variable_is_named() {
    for (name, value, why) in [
        ("WEB_CONCURRENCY", "0", "allowed: auto, or 1 to 256"),
        (
            "REUSEPORT_LAUNCH_WORKERS",
            "257",
            "more than a fleet can have",
        ),
        ("REUSEPORT_LAUNCH_PORT", "80,http", "allowed: a port"),
        ("REUSEPORT_LAUNCH_NO_HOLD", "maybe", "true, false"),
        ("REUSEPORT_LAUNCH_STEER", "x", "round-robin"),
        (
            "REUSEPORT_LAUNCH_HEALTH_TIMEOUT",
            "1s",
            "without --health <tcp|http:PATH>",
        ),
    ] {
        let failure = config("-- x", &[(name, value)]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(
            failure.what.contains(name) && failure.why.contains(why),
            "{failure}"
        );
    }
}

#[test]
fn options_about_health_need_a_check() {
    for option in ["health-interval", "health-timeout"] {
        let failure = config(&format!("--{option} 1s -- x"), &[]).unwrap_err();
        assert!(
            failure.why.contains("--health <tcp|http:PATH>"),
            "{failure}"
        );
        assert_eq!(failure.exit, Exit::Usage);
        config(&format!("--health tcp --{option} 1s -- x"), &[]).unwrap();
        let (_dir, file) = file(&format!("workers = 1\n{option} = '1s'"));
        let failure = config(&format!("{file} -- x"), &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(
            failure.why.starts_with("line 2, column 1: `health-"),
            "{failure}"
        );
        config(&format!("{file} --health tcp -- x"), &[]).unwrap();
    }
    // What all apps have in common may be for one of them only.
    let (_dir, option) = file("health-interval = '1s'\n[app.a]\nhealth = 'tcp'\n[app.b]\n");
    let apps = config(&option, &[]).unwrap().apps;
    assert_eq!(shown(&apps[0], "health-interval").0, "1s");
    assert_eq!(shown(&apps[1], "health-interval").1, "default");
}

#[test]
fn what_excludes_something_above_it_is_left_out() {
    let (_dir, option) = file("steer = 'hash'");
    let app = config(&format!("{option} --steer-object x.o -- x"), &[])
        .unwrap()
        .apps
        .remove(0);
    assert_eq!(shown(&app, "steer").1, "default");
    assert_eq!(app.options.steer, None);
    let both = [
        ("REUSEPORT_LAUNCH_STEER", "hash"),
        ("REUSEPORT_LAUNCH_STEER_OBJECT", "x.o"),
    ];
    let failure = config("-- x", &both).unwrap_err();
    assert!(failure.why.contains("cannot be used with"), "{failure}");
}

#[test]
fn the_workers_variables_come_from_the_most_special_table() {
    let (_dir, option) = file(
        "[env]\nA = 'top'\nB = 'top'\nC = 'top'\nD = 'top'\n[env.live]\nB = 'top live'\nC = 'top live'\n\
         [app.web.env]\nC = 'web'\nD = 'web'\n[app.web.env.live]\nD = 'web live'\n[app.api.env.test]\nA = 1\n",
    );
    let values = |line: &str| {
        let app = config(&format!("{option} --app web {line}"), &[])
            .unwrap()
            .apps
            .remove(0);
        let values = app
            .variables
            .iter()
            .map(|entry| entry.values[0].to_string_lossy().into_owned());
        values.collect::<Vec<_>>()
    };
    assert_eq!(values("--env live"), ["top", "top live", "web", "web live"]);
    assert_eq!(values(""), ["top", "top", "web", "web"]);
    assert_eq!(values("--env test"), values(""));
    let failure = config(&format!("{option} --env lve"), &[]).unwrap_err();
    assert!(
        failure
            .why
            .ends_with("has no table [env.lve]; did you mean `live`?"),
        "{failure}"
    );
    assert_eq!(failure.exit, Exit::Config);
}

#[test]
fn apps_are_chosen_and_named() {
    let (dir, option) =
        file("chdir = 'sub'\n[app.web]\ncommand = ['true']\n[app.api]\nname = 'shop-api'\n");
    let apps = config(&option, &[]).unwrap().apps;
    let names: Vec<_> = apps.iter().map(|app| shown(app, "name").0).collect();
    assert_eq!(names, ["web", "shop-api"]);
    fs::create_dir(dir.path().join("sub")).unwrap();
    let plan = apps[0].plan().unwrap();
    assert_eq!(plan.name.as_str(), "web");
    assert_eq!(plan.directory, dir.path().join("sub"));
    let failure = apps[1].plan().unwrap_err();
    assert!(
        failure.why.ends_with("has a command for the app api"),
        "{failure}"
    );
    assert_eq!(failure.exit, Exit::Config);

    let one = config(&format!("{option} --app api --port 80 -- true"), &[])
        .unwrap()
        .apps;
    assert_eq!(one.len(), 1);
    let failure = config(&format!("{option} --app apy"), &[]).unwrap_err();
    assert!(failure.why.contains("did you mean `api`?"), "{failure}");
    for common in ["--port 80", "--name x", "-- true"] {
        let failure = config(&format!("{option} {common}"), &[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.hint.contains("--app NAME"), "{failure}");
    }
    for useless in ["--app web -- x", "--env live -- x"] {
        let failure = config(useless, &[]).unwrap_err();
        assert!(failure.hint.contains("--config FILE"), "{failure}");
    }
}

#[test]
fn a_launcher_of_a_file_keeps_its_name_whatever_it_runs() {
    let name = |line: &str| config(line, &[]).unwrap().apps[0].plan().unwrap().name;
    let (_dir, option) = file("command = ['true']");
    assert_eq!(name(&option).as_str(), "shop");
    assert_eq!(name(&format!("{option} -- true")).as_str(), "true");
    assert_eq!(name(&format!("{option} --name web")).as_str(), "web");
}

#[test]
fn a_file_is_read_anew() {
    let (dir, option) = file("stop-timeout = '1s'\ncommand = ['true']\n");
    let app = config(&option, &[]).unwrap().apps.remove(0);
    let path = dir.path().join("shop.toml");
    fs::write(&path, "stop-timeout = '2s'\ncommand = ['true']\n").unwrap();
    let again = app.reread().unwrap();
    assert_eq!(shown(&again, "stop-timeout").0, "2s");
    assert_eq!(again.plan().unwrap().stop_timeout.as_secs(), 2);
    for (text, why) in [
        ("stop-timeout = 2x", ""),
        ("[app.a]\n[app.b]\n", "it has tables [app.NAME] by now"),
    ] {
        fs::write(&path, text).unwrap();
        let failure = app.reread().unwrap_err();
        assert!(failure.why.contains(why), "{failure}");
        assert_eq!(failure.exit, Exit::Config);
    }
    fs::remove_file(&path).unwrap();
    assert!(app.reread().is_err());
    assert_eq!(app.file.as_deref(), Some(Path::new(&path)));
}

#[test]
fn the_files_variables_come_over_the_environment_file() {
    let (dir, option) = file("env-file = 'shop.env'\ncommand = ['true']\n[env]\nB = 'table'\n");
    fs::write(dir.path().join("shop.env"), "A=file\nB=file\n").unwrap();
    let plan = config(&option, &[]).unwrap().apps[0].plan().unwrap();
    let worker = crate::worker::WorkerId {
        slot: 0,
        generation: 1,
    };
    let ours = [
        ("A", "ours"),
        ("C", "ours"),
        ("REUSEPORT_LAUNCH_STEER", "hash"),
    ];
    let ours = ours
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()));
    let given = plan.environment(worker, 1, ours).unwrap();
    let of = |name: &str| {
        given
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.to_str().unwrap())
    };
    assert_eq!(
        (of("A"), of("B"), of("C")),
        (Some("file"), Some("table"), Some("ours"))
    );
    assert_eq!(of("REUSEPORT_LAUNCH_STEER"), None, "it was meant for us");
}
