//! `check`, `print-config`, and starts that are refused.

use kernel_tests::launcher::{Launch, Site};
use serde_json::Value;

use crate::File;

#[test]
fn check_names_the_place_of_a_mistake() {
    let site = Site::new();
    for (text, said) in [
        (
            "drain-timout = '1s'",
            "line 1, column 1: unknown key `drain-timout`; did you mean `drain-timeout`?",
        ),
        (
            "command = ['true']\nworkers = 0",
            "line 2, column 11: invalid value '0' for '--workers <auto|N>'",
        ),
        (
            "workers = [1]",
            "line 1, column 11: `workers`: a string or a whole number is expected",
        ),
        (
            "workers = 1\nworkers = 2",
            "line 2, column 1: duplicate key",
        ),
        (
            "[app.a]\nport = 80\n[app.b]\nport = 80",
            "line 4, column 1: the port 80/tcp is that of the app a (line 2)",
        ),
        ("workers = 1", "has a command"),
        ("command = ['./no-such-program']", "no-such-program"),
        (
            "command = ['true']\nchdir = 'none'",
            "cannot start workers in ",
        ),
        ("command = ['true']\nuser = 'no-such-user'", "no-such-user"),
        (
            "command = ['true']\nenv-file = 'none'",
            "cannot use the environment file ",
        ),
        ("command = ['true']\nsteer-object = 'none.o'", "none.o"),
    ] {
        let file = File::new(text);
        let finished = site.control(&["check", "--config", &file.word()]);
        finished.assert_error(78, said);
        assert_eq!(finished.stdout, "", "{text}");
        // Nor would it be started.
        let started = site.control(&["run", "--config", &file.word()]);
        assert_ne!(started.code(), 0, "{text}");
        assert!(started.stderr.contains(said), "{}", started.stderr);
    }
    let unreadable = site.control(&["check", "--config", "/no/such/file"]);
    unreadable.assert_error(
        78,
        "cannot use the configuration /no/such/file: No such file",
    );
    site.control(&["check", "--config", "/"])
        .assert_error(78, "it is not a regular file");
    assert_eq!(site.control(&["check", "--confg", "x"]).code(), 2);
}

#[test]
fn check_is_content_with_what_can_be_started() {
    let site = Site::new();
    let file = File::new("[app.web]\ncommand = ['true']\n[app.api]\ncommand = ['sleep', '1']\n");
    let said = site.control(&["check", "--config", &file.word()]).success();
    assert_eq!(said, format!("{} is right: web, api\n", file.word()));
    let said = site.control(&["check", "-w", "2", "--", "true"]).success();
    assert_eq!(said, "the command line is right\n");
    site.control(&["check", "--config", &file.word(), "--env", "none"])
        .assert_error(78, "has no table [env.none]");
}

#[test]
fn print_config_tells_where_each_value_comes_from() {
    let site = Site::new();
    let file = File::new("command = ['true']\nmax-surge = 2\n[env]\nA = 1\n[env.live]\nB = 2\n");
    let arguments = [
        "print-config",
        "--config",
        &file.word(),
        "-w",
        "3",
        "--env",
        "live",
    ];
    let text = site.control(&arguments).success();
    for line in [
        "workers = \"3\"              # command line".to_owned(),
        format!("max-surge = \"2\"            # {}:2", file.word()),
        "#drain-timeout = \"30s\"     # default".to_owned(),
        format!("A = \"1\"  # {}:4", file.word()),
        format!("B = \"2\"  # {}:6", file.word()),
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    let json = site
        .control(&[&arguments[..], &["--json"]].concat())
        .success();
    let shown: Value = serde_json::from_str(&json).expect("nothing but JSON");
    assert_eq!(shown["file"], file.word());
    let settings = shown["apps"][0]["settings"].as_array().expect("an array");
    let surge = settings.iter().find(|it| it["key"] == "max-surge");
    assert_eq!(surge.expect("it is there")["source"]["line"], 2);
}

#[test]
fn the_example_is_a_file_that_can_be_used() {
    let site = Site::new();
    let example = site.control(&["print-config", "--example"]).success();
    let command = "#command = [\"node\", \"server.js\"]";
    let file = File::new(&example.replacen(command, "command = ['true']", 1));
    let said = site.control(&["check", "--config", &file.word()]).success();
    assert_eq!(said, format!("{} is right\n", file.word()));
    // Each option of the help is in it, under its own name.
    let help = site.control(&["run", "--help"]).success();
    let options = help
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("--"));
    let name = |word: &str| {
        word.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-')
            .next()
            .map(str::to_owned)
    };
    let mut count = 0;
    for option in options.filter_map(name).filter(|name| !name.is_empty()) {
        if !["config", "env", "app", "example", "runtime-dir", "help"].contains(&&*option) {
            assert!(example.contains(&format!("\n#{option} = ")), "{option}");
            count += 1;
        }
    }
    assert!(count > 30, "{help}");
}

#[test]
fn a_wrong_variable_starts_nothing() {
    for (name, value, said) in [
        (
            "REUSEPORT_LAUNCH_STEER",
            "x",
            "cannot use the environment variable REUSEPORT_LAUNCH_STEER",
        ),
        (
            "REUSEPORT_LAUNCH_CONFIG",
            "/none",
            "cannot use the configuration /none",
        ),
        (
            "REUSEPORT_LAUNCH_ENV",
            "live",
            "no configuration file is named",
        ),
    ] {
        let finished = Launch::of(["true"]).env(name, value).run();
        assert_ne!(finished.code(), 0);
        assert!(finished.stderr.contains(said), "{}", finished.stderr);
    }
}
