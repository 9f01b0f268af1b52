//! Tests of what options mean together.

use super::*;
use crate::cli::{Verb, parse};

/// What this command line and these environment variables make.
pub(super) fn config(line: &str, environment: &[(&str, &str)]) -> Result<Config, Failure> {
    let words = line.split_whitespace().map(OsString::from);
    let words = std::iter::once("reuseport-launch".into()).chain(words);
    let invocation = parse(words).unwrap();
    let Verb::Run(options) = invocation.verb else {
        panic!("{line} is another verb");
    };
    let variables = environment.iter();
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    Config::read(Given::new(&options, invocation.given, variables))
}

/// The plan that this command line makes.
pub(super) fn plan(line: &str) -> Result<Plan, Failure> {
    let config = config(line, &[])?;
    let [app] = &config.apps[..] else {
        panic!("{line}: {} apps", config.apps.len());
    };
    app.plan()
}

#[test]
fn options_become_a_plan() {
    let made = plan("-- true").unwrap();
    assert!(made.hold && !made.ipc_node);
    assert_eq!((&made.ready, &made.health), (&Ready::Listen, &None));
    assert_eq!(made.recycle, Recycle::default());
    assert!(made.directory.is_absolute());
    assert_eq!(made, plan("run -- true").unwrap());

    let made = plan(
        "--no-hold --ready node --health http:/up --health-threshold 5 --stall-timeout off \
         --drain-timeout infinite --max-age 1d --chdir /etc -- true",
    )
    .unwrap();
    assert!(!made.hold && made.ipc_node);
    let health = Health {
        check: Check::Http("/up".into()),
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        threshold: 5,
    };
    assert_eq!(made.health, Some(health));
    assert_eq!((made.stall_timeout, made.drain_timeout), (None, None));
    assert_eq!(made.recycle.max_age, Some(Duration::from_hours(24)));
    assert_eq!(made.directory, Path::new("/etc"));
    assert!(plan("--ipc node -- true").unwrap().ipc_node);
}

#[test]
fn what_cannot_be_started_is_known_at_once() {
    for (line, exit) in [
        ("--chdir /none -- true", Exit::Usage),
        ("--env-file /none -- true", Exit::Config),
        ("--steer kernel --health tcp -- true", Exit::Usage),
        ("--steer least-conn --port 53/udp -- true", Exit::Usage),
        ("--chdir / -- ./none", Exit::NotFound),
        ("--chdir / -- ./etc", Exit::NotExecutable),
    ] {
        assert_eq!(plan(line).unwrap_err().exit, exit, "{line}");
    }
    plan("--steer least-conn --port 53/udp --port 53 -- true").unwrap();
    plan("--steer least-conn --steer-udp hash --port 53/udp -- true").unwrap();
}

#[test]
fn relative_programs_are_looked_for_in_the_workers_directory() {
    let root = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/true", root.path().join("server-0")).unwrap();
    let line = format!("--chdir {} -- ./server-{{slot}}", root.path().display());
    let plan = plan(&line).unwrap();
    let program = |slot| {
        plan.program(
            WorkerId {
                slot,
                generation: 1,
            },
            &[],
        )
    };
    assert_eq!(program(0).unwrap(), Path::new("./server-0"));
    assert_eq!(program(1).unwrap_err().exit, Exit::NotFound);
}

#[test]
fn the_slot_is_put_into_arguments() {
    assert_eq!(
        replace("--log=/var/{slot}/{slot}.log".as_ref(), "{slot}", "12"),
        "--log=/var/12/12.log"
    );
    assert_eq!(replace("{slo}".as_ref(), "{slot}", "1"), "{slo}");
}
