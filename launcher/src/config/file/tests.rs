use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<File, Vec<Mistake>> {
    File::parse(Path::new("/etc/shop/shop.toml"), text)
}

/// The mistakes in a text, as they are told.
fn mistakes(text: &str) -> Vec<String> {
    let mistakes = parse(text).unwrap_err().into_iter();
    mistakes
        .map(|Mistake { place, why }| format!("{place}: {why}"))
        .collect()
}

/// The values of a key at the top.
fn values(text: &str, key: &str) -> Vec<String> {
    let file = parse(text).unwrap_or_else(|mistakes| panic!("{text}: {mistakes:?}"));
    let placed = file
        .top
        .settings
        .iter()
        .find(|placed| placed.setting.key == key);
    let values = placed.map(|placed| placed.setting.values.iter());
    values
        .into_iter()
        .flatten()
        .map(|value| value.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn values_become_those_of_the_options() {
    for (line, key, expected) in [
        ("workers = 4", "workers", &["4"][..]),
        ("workers = \"auto\"", "workers", &["auto"]),
        ("drain-timeout = 30", "drain-timeout", &["30"]),
        ("udp-flows = 65_536", "udp-flows", &["65536"]),
        ("stop-signal = 0xf", "stop-signal", &["15"]),
        ("port = 8080", "port", &["8080"]),
        ("port = [8080, \"53/udp\"]", "port", &["8080", "53/udp"]),
        ("port = []", "port", &[]),
        ("no-hold = true", "no-hold", &["true"]),
        ("verbose = 2", "verbose", &["2"]),
        ("steer = \"source:24/56\"", "steer", &["source:24/56"]),
        (
            "env-file = \"shop.env\"",
            "env-file",
            &["/etc/shop/shop.env"],
        ),
        ("chdir = \"/srv\"", "chdir", &["/srv"]),
    ] {
        assert_eq!(values(line, key), expected, "{line}");
    }
}

#[test]
fn a_file_with_several_apps() {
    let file = parse(
        "stop-timeout = '2s'\n[env]\nA = 1\n[env.test]\nB = true\n\
         [app.web]\ncommand = ['node', 'x']\nport = 80\n[app.web.env.test]\nC = 1.5\n\
         [app.api]\ncommand = ['api']\nport = '80/udp'\n",
    )
    .unwrap();
    let names: Vec<&str> = file.apps.iter().map(|app| &*app.name).collect();
    assert_eq!(names, ["web", "api"], "in the order of the file");
    assert_eq!(file.apps[0].place, Place { line: 6, column: 6 });
    assert_eq!(file.apps[0].command.as_ref().unwrap().words, ["node", "x"]);
    assert_eq!(file.sets(), BTreeSet::from(["test"]));
    assert_eq!(file.top.env[0].value, "1");
    assert_eq!(file.top.sets[0].1[0].value, "true");
    assert_eq!(file.apps[0].sets[0].1[0].value, "1.5");
}

#[test]
fn a_mistake_is_told_with_its_place_and_in_the_words_of_the_options() {
    for (text, place, why) in [
        (
            "workers = 2\ndrain-timout = '1s'",
            "line 2, column 1",
            "did you mean `drain-timeout`?",
        ),
        (
            "drain_timeout = '1s'",
            "line 1, column 1",
            "did you mean `drain-timeout`?",
        ),
        (
            "comand = ['x']",
            "line 1, column 1",
            "did you mean `command`?",
        ),
        ("zzz = 1", "line 1, column 1", "unknown key `zzz`"),
        (
            "config = 'x'",
            "line 1, column 1",
            "can't stand in the file: use --config",
        ),
        (
            "runtime-dir = 'x'",
            "line 1, column 1",
            "REUSEPORT_LAUNCH_RUNTIME_DIR",
        ),
        (
            "[application.x]",
            "line 1, column 2",
            "unknown key `application`",
        ),
        (
            "workers = 0",
            "line 1, column 11",
            "allowed: auto, or 1 to 256",
        ),
        (
            "workers = 1.5",
            "line 1, column 11",
            "a string or a whole number is expected, not a fraction",
        ),
        (
            "workers = -1",
            "line 1, column 11",
            "allowed: auto, or 1 to 256",
        ),
        ("steer = 'least-con'", "line 1, column 9", "'least-conn'"),
        (
            "ready = 'http:x'",
            "line 1, column 9",
            "does not start with /",
        ),
        (
            "port = [80, 0]",
            "line 1, column 13",
            "port 0 lets the kernel pick",
        ),
        ("port = [80, [1]]", "line 1, column 13", "not an array"),
        (
            "chdir = 5",
            "line 1, column 9",
            "a string is expected, not a whole number",
        ),
        ("chdir = ''", "line 1, column 9", "--chdir"),
        ("chdir = 'a\\b\u{7f}'", "line 1, column 13", ""),
        ("name = \"a\\u0000\"", "line 1, column 8", "a NUL character"),
        (
            "no-hold = 'yes'",
            "line 1, column 11",
            "true or false is expected, not a string",
        ),
        (
            "verbose = 3",
            "line 1, column 11",
            "a whole number from 0 to 2 is expected, not 3",
        ),
        (
            "log-format = 'xml'",
            "line 1, column 14",
            "auto, text, json",
        ),
        (
            "workers = 99999999999999999999",
            "line 1, column 11",
            "too large",
        ),
        (
            "command = 'node x'",
            "line 1, column 11",
            "an array of strings is expected",
        ),
        (
            "command = []",
            "line 1, column 11",
            "there is no program in it",
        ),
        (
            "command = ['x', 1]",
            "line 1, column 17",
            "a string is expected",
        ),
        ("env = 1", "line 1, column 7", "a table is expected"),
        ("[env]\nworkers = [1]", "line 2, column 11", "not an array"),
        (
            "[env]\ndrain-timeout = '1s'",
            "line 2, column 1",
            "options stand before the first [table]",
        ),
        (
            "[env]\n'A=B' = 1",
            "line 2, column 1",
            "is no variable's name",
        ),
        (
            "[env.x.y]\nA = 1",
            "line 1, column 8",
            "a string is expected, not a table",
        ),
        ("app = 1", "line 1, column 7", "a table is expected"),
        ("[app]\nweb = 1", "line 2, column 1", "[app.web]"),
        (
            "[app.'a/b']",
            "line 1, column 6",
            "an app can't be called `a/b`",
        ),
        (
            "[app.a.app.b]",
            "line 1, column 8",
            "an app can't have apps of its own",
        ),
        (
            "[app.a]\nportt = 1",
            "line 2, column 1",
            "did you mean `port`?",
        ),
        (
            "name = 'x'\n[app.a]",
            "line 1, column 1",
            "each app has a `name` of its own",
        ),
        (
            "[app.a]\nport = 80\n[app.b]\nport = '80/tcp'",
            "line 4, column 1",
            "the port 80/tcp is that of the app a (line 2)",
        ),
        (
            "[app.a]\nmetrics = 9100\n[app.b]\nmetrics = '127.0.0.1:9100'",
            "line 4, column 1",
            "metrics of the app a are on 127.0.0.1:9100, too (line 2)",
        ),
        (
            "metrics = 9100\n[app.a]",
            "line 1, column 1",
            "each app has a `metrics` of its own",
        ),
        (
            "[app.a]\n[app.b]\nname = 'a'",
            "line 3, column 1",
            "the app a is called \"a\", too",
        ),
        (
            "steer = 'hash'\nsteer-object = 'x.o'",
            "line 2, column 1",
            "together with `steer` (line 1)",
        ),
        ("workers = 1\nworkers = 2", "line 2, column 1", "duplicate"),
        ("a = = b", "line 1, column 5", ""),
        ("name = 'ä' x", "line 1, column 12", ""),
    ] {
        let told = mistakes(text);
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        let (at, what) = told[0].split_once(": ").unwrap();
        assert_eq!(at, place, "{text}: {told:?}");
        assert!(what.contains(why) && !what.is_empty(), "{text}: {told:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    let told = mistakes("workrs = 1\nsteer = 'x'\n[app.a]\nnme = 'b'\n");
    let lines: Vec<&str> = told
        .iter()
        .filter_map(|told| told.split(',').next())
        .collect();
    assert_eq!(lines, ["line 1", "line 2", "line 4"], "{told:?}");
}

#[test]
fn what_cannot_be_read_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.toml");
    let failure = File::read(&path).unwrap_err();
    assert!(failure.why.contains("No such file"), "{failure}");
    let failure = File::read(dir.path()).unwrap_err();
    assert!(failure.why.contains("not a regular file"), "{failure}");
    std::fs::write(&path, b"workers = 1\nname = \"\xff\"").unwrap();
    let failure = File::read(&path).unwrap_err();
    assert_eq!(failure.why, "line 2, column 9: it is not UTF-8");
    assert_eq!(failure.exit, Exit::Config);
    std::fs::write(&path, "x = 1\ny = 2").unwrap();
    let failure = File::read(&path).unwrap_err();
    assert_eq!(
        failure.why,
        "line 1, column 1: unknown key `x`\n    line 2, column 1: unknown key `y`"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Words of a configuration in any order: a file, or mistakes with places in it.
    #[test]
    fn whatever_is_written_is_read_or_refused(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "workers", "port", "env", "app", "command", "verbose", "no-hold", "name", "chdir", "x", "ä",
                " = ", ".", "[", "]", "[[", "]]", "{", "}", ",", "\n", "#", "\"", "'", "\"\"\"", "1", "-1", "0x1",
                "1e9", "true", "nan", "1979-05-27", "\\u0000", "\u{feff}", "\r\n",
            ]),
            0..24,
        ),
    ) {
        let text = words.concat();
        if let Err(mistakes) = parse(&text) {
            prop_assert!(!mistakes.is_empty());
            let lines = text.matches('\n').count() + 1;
            for Mistake { place, why } in mistakes {
                prop_assert!((1..=lines).contains(&place.line) && place.column >= 1, "{}: {:?}", text, place);
                prop_assert!(!why.is_empty());
            }
        }
    }
}
