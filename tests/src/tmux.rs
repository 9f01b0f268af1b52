//! A terminal that a test can look at: tmux (Debian: tmux), with a server of its own.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{PATIENCE, gate::path_of, launcher::Site};

/// A terminal. Dropping it ends what runs on it.
#[derive(Debug)]
pub struct Tmux {
    dir: TempDir,
}

impl Tmux {
    /// Runs a shell script on a terminal of this size, with the launchers of this site as its own, and
    /// these variables. When the script has ended, the terminal stays.
    ///
    /// # Panics
    /// When that can't be done, or tmux was not asked for.
    #[must_use]
    #[track_caller]
    pub fn start(
        site: &Site,
        (width, height): (u16, u16),
        script: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let tmux = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        let file = tmux.dir.path().join("script");
        fs::write(&file, script).expect("a new directory");
        let shell = format!("sh {}; exec sleep 1000", file.display());
        let mut command = tmux.command();
        command
            .env("REUSEPORT_LAUNCH_RUNTIME_DIR", site.runtime_dir())
            .env_remove("NO_COLOR")
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .envs(env.iter().copied())
            .args(["-f", "/dev/null", "-u", "new-session", "-d"])
            .args(["-x", &width.to_string(), "-y", &height.to_string()])
            .arg(shell);
        run(&mut command);
        tmux
    }

    /// Types these: `q`, `Enter`, `C-c`.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        run(self.command().arg("send-keys").args(keys));
    }

    /// Gives the terminal another size.
    #[track_caller]
    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        run(self
            .command()
            .args(["resize-window", "-x", &width, "-y", &height]));
    }

    /// What stands on it, without colours, or with them as escape sequences.
    #[must_use]
    #[track_caller]
    pub fn screen(&self, colours: bool) -> String {
        let mut command = self.command();
        command.args(["capture-pane", "-p"]);
        if colours {
            command.arg("-e");
        }
        run(&mut command)
    }

    /// Waits until what stands on it is as `wanted`, and returns that.
    ///
    /// # Panics
    /// When it does not get so.
    #[track_caller]
    pub fn screen_when(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen(false);
            if wanted(&screen) {
                return screen;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what} on\n{screen}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the alternate screen is on, and whether the cursor is.
    #[must_use]
    #[track_caller]
    pub fn modes(&self) -> (bool, bool) {
        let format = "#{alternate_on} #{cursor_flag}";
        let modes = run(self.command().args(["display-message", "-p", format]));
        let (alternate, cursor) = modes.trim().split_once(' ').expect("two numbers");
        (alternate == "1", cursor == "1")
    }

    /// A directory for what the script writes.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(path_of("tmux"));
        command.arg("-S").arg(self.dir.path().join("tmux"));
        command
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It fails only where the server has ended.
        let _ = self.command().arg("kill-server").output();
    }
}

/// Runs it, and returns what it prints.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("tmux was found");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
