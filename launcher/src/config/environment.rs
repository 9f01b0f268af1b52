//! What a worker finds in its environment.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use super::{Plan, env_file};
use crate::{failure::Failure, worker::WorkerId};

impl Plan {
    /// The environment of a worker that starts at this moment, one of `workers`. What says who it
    /// is comes first, then the tables `[env]` of the configuration file, then the environment file,
    /// then what `--user` and the working directory bring, then `ours`.
    ///
    /// # Errors
    /// When there is an environment file and it can't be read or makes no sense (any more).
    pub fn environment(
        &self,
        worker: WorkerId,
        workers: u32,
        ours: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Vec<(OsString, OsString)>, Failure> {
        let mut environment = BTreeMap::new();
        for (name, value) in ours.filter(|(name, _)| !is_ours(name)) {
            // Of a name that is there twice, `getenv` finds the first one.
            environment.entry(name).or_insert(value);
        }
        environment.insert("PWD".into(), self.directory.clone().into());
        if let Some(identity) = &self.identity {
            environment.extend(identity.environment.iter().cloned());
        }
        if let Some(file) = &self.env_file {
            environment.extend(env_file::read(file)?);
        }
        environment.extend(self.variables.iter().cloned());
        for (name, value) in [
            ("REUSEPORT_LAUNCH_SLOT", worker.slot.to_string()),
            ("REUSEPORT_LAUNCH_GENERATION", worker.generation.to_string()),
            ("REUSEPORT_LAUNCH_WORKERS", workers.to_string()),
            ("NODE_APP_INSTANCE", worker.slot.to_string()),
        ] {
            environment.insert(name.into(), value.into());
        }
        let godebug = environment.remove(OsStr::new("GODEBUG"));
        environment.insert("GODEBUG".into(), without_mptcp(godebug));
        Ok(environment.into_iter().collect())
    }
}

/// What is addressed to the launcher and would mislead a worker: the service manager's sockets and
/// watchdog, the channel to a Node process that has started us, our own options, and the number of
/// workers that we have already acted on (gunicorn would multiply it). Where launchers are controlled
/// is of use to a worker too.
fn is_ours(name: &OsStr) -> bool {
    const OURS: [&str; 10] = [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
        "NODE_CHANNEL_FD",
        "NODE_CHANNEL_SERIALIZATION_MODE",
        "NODE_UNIQUE_ID",
        "WEB_CONCURRENCY",
    ];
    const OF_ALL: [&str; 2] = ["REUSEPORT_LAUNCH_RUNTIME_DIR", "REUSEPORT_LAUNCH_LOG"];
    let is_option = name.as_bytes().starts_with(b"REUSEPORT_LAUNCH_");
    (is_option && OF_ALL.iter().all(|of_all| name != *of_all))
        || OURS.iter().any(|ours| name == *ours)
}

/// Go 1.24 and later open MPTCP listeners by default, which the kernel can't steer.
fn without_mptcp(godebug: Option<OsString>) -> OsString {
    const SETTING: &str = "multipathtcp=0";
    match godebug {
        Some(value) if value.is_empty() => SETTING.into(),
        Some(value)
            if value
                .to_string_lossy()
                .split(',')
                .any(|set| set.starts_with("multipathtcp=")) =>
        {
            value
        }
        Some(mut value) => {
            value.push(",");
            value.push(SETTING);
            value
        }
        None => SETTING.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::tests::plan;

    const WORKER: WorkerId = WorkerId {
        slot: 2,
        generation: 7,
    };

    /// What a worker of `plan` is given where we have `ours`.
    fn given(plan: &Plan, ours: &[(&str, &str)]) -> BTreeMap<String, String> {
        let ours = ours.iter().map(|(name, value)| (name.into(), value.into()));
        let environment = plan.environment(WORKER, 5, ours).unwrap();
        let count = environment.len();
        let text = |text: OsString| text.into_string().unwrap();
        let environment: BTreeMap<_, _> = environment
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        assert_eq!(environment.len(), count, "each name once");
        environment
    }

    #[test]
    fn a_worker_is_told_who_it_is_and_not_what_is_meant_for_us() {
        let plan = plan("--chdir / -- true").unwrap();
        let given = given(
            &plan,
            &[
                ("LANG", "C"),
                ("REUSEPORT_LAUNCH_SLOT", "of a launcher around us"),
                ("WEB_CONCURRENCY", "4"),
                ("NOTIFY_SOCKET", "/run/systemd/notify"),
                ("NODE_CHANNEL_FD", "3"),
                ("PWD", "/somewhere"),
            ],
        );
        let expected = [
            ("GODEBUG", "multipathtcp=0"),
            ("LANG", "C"),
            ("NODE_APP_INSTANCE", "2"),
            ("PWD", "/"),
            ("REUSEPORT_LAUNCH_GENERATION", "7"),
            ("REUSEPORT_LAUNCH_SLOT", "2"),
            ("REUSEPORT_LAUNCH_WORKERS", "5"),
        ];
        assert!(
            given.iter().map(|(n, v)| (&**n, &**v)).eq(expected),
            "{given:?}"
        );
    }

    #[test]
    fn the_environment_file_stands_between_the_two_and_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        fs::write(
            &path,
            "LANG=de\nGODEBUG=gctrace=1\nREUSEPORT_LAUNCH_SLOT=9\n",
        )
        .unwrap();
        let plan = plan(&format!("--env-file {} -- true", path.display())).unwrap();
        let ours = [("LANG", "C"), ("GODEBUG", ""), ("HOME", "/root")];
        let first = given(&plan, &ours);
        assert_eq!(first["LANG"], "de");
        assert_eq!(first["HOME"], "/root");
        assert_eq!(first["GODEBUG"], "gctrace=1,multipathtcp=0");
        assert_eq!(first["REUSEPORT_LAUNCH_SLOT"], "2");

        fs::write(&path, "LANG=fr").unwrap();
        assert_eq!(given(&plan, &ours)["LANG"], "fr");
        fs::write(&path, "LANG").unwrap();
        let failure = plan.environment(WORKER, 5, std::iter::empty()).unwrap_err();
        assert_eq!(failure.why, "line 1: there is no = in it");
    }

    #[test]
    fn go_is_told_not_to_use_mptcp_unless_it_was_told_otherwise() {
        assert_eq!(without_mptcp(None), "multipathtcp=0");
        assert_eq!(without_mptcp(Some("".into())), "multipathtcp=0");
        assert_eq!(
            without_mptcp(Some("gctrace=1".into())),
            "gctrace=1,multipathtcp=0"
        );
        assert_eq!(
            without_mptcp(Some("multipathtcp=1".into())),
            "multipathtcp=1"
        );
    }
}
