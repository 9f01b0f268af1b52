//! A Debian package: the binary, the units of `deploy/`, the manual, completions for three shells, the
//! example of a configuration, the documents. The binary itself writes what comes from its options.

mod control;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process::{cargo, output, root, run};

/// The package's name, and the binary's.
const NAME: &str = "reuseport-launch";

/// Builds the launcher for release, and packs it; says where the package is.
pub(crate) fn build() -> Result<()> {
    let release = ["build", "--release", "--locked", "--package", NAME];
    run(cargo().args(release).current_dir(root()))?;
    let target = root().join("target");
    let package = package(&target.join("release").join(NAME), &target.join("dist"))?;
    println!("{}", package.display());
    Ok(())
}

/// Packs this binary, and returns the package's file, which is in `out`. What was in its way there is
/// replaced.
///
/// # Errors
/// When a program that it takes is missing (`dpkg-deb`, `strip`, `gzip`, `md5sum`), or a file can't be
/// written.
pub fn package(binary: &Path, out: &Path) -> Result<PathBuf> {
    let stage = Stage::new(&out.join("stage"))?;
    let installed = stage.binary(binary)?;
    let said = |arguments: &[&str]| output(Command::new(binary).args(arguments));
    let version = said(&["--version"])?;
    let version = version.rsplit(' ').next().unwrap_or_default();

    let man = stage.directory("usr/share/man/man1")?;
    run(Command::new(binary).args(["man", "--to"]).arg(&man))?;
    for page in files(&man, ".1")? {
        zip(&page)?;
    }
    for (shell, file) in [
        (
            "bash",
            "usr/share/bash-completion/completions/reuseport-launch",
        ),
        (
            "fish",
            "usr/share/fish/vendor_completions.d/reuseport-launch.fish",
        ),
        ("zsh", "usr/share/zsh/vendor-completions/_reuseport-launch"),
    ] {
        stage.write(file, &completions(shell, &said(&["completions", shell])?))?;
    }
    let deploy = root().join("deploy");
    for unit in files(&deploy, ".service")? {
        stage.copy(&unit, "usr/lib/systemd/system")?;
    }

    let doc = format!("usr/share/doc/{NAME}");
    for page in files(&root().join("docs"), ".md")? {
        stage.copy(&page, &format!("{doc}/docs"))?;
    }
    let example = said(&["print-config", "--example"])?;
    stage.write(&format!("{doc}/examples/{NAME}.toml"), &example)?;
    stage.write(&format!("{doc}/copyright"), &control::copyright()?)?;
    let changes = fs::read_to_string(root().join("CHANGELOG.md")).context("CHANGELOG.md")?;
    zip(&stage.write(&format!("{doc}/changelog"), &changes)?)?;
    let changes = control::changelog(version)?;
    zip(&stage.write(&format!("{doc}/changelog.Debian"), &changes)?)?;

    let architecture = output(Command::new("dpkg").arg("--print-architecture"))?;
    let control = control::control(version, &architecture, &installed)?;
    stage.control(&control)?;
    let file = out.join(format!("{NAME}_{version}-1_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--build"]);
    output(build.arg(&stage.0).arg(&file))?;
    fs::remove_dir_all(&stage.0).context("the directory that was packed")?;
    Ok(file)
}

/// The script for a shell. zsh reads from the first line of a file in `$fpath` what it is for.
fn completions(shell: &str, script: &str) -> String {
    match shell {
        "zsh" if !script.starts_with("#compdef") => format!("#compdef {NAME}\n{script}\n"),
        _ => format!("{script}\n"),
    }
}

/// A directory that becomes the package.
struct Stage(PathBuf);

impl Stage {
    fn new(path: &Path) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("{}", path.display()))?;
        }
        let stage = Self(path.to_owned());
        stage.directory("")?;
        Ok(stage)
    }

    /// Makes a directory below it, with all on the way, readable by everybody whatever the umask is.
    fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).with_context(|| format!("{}", path.display()))?;
        let below = path
            .ancestors()
            .take_while(|path| path.starts_with(&self.0));
        for directory in below {
            set_mode(directory, 0o755)?;
        }
        Ok(path)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if let Some((directory, _)) = name.rsplit_once('/') {
            self.directory(directory)?;
        }
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        set_mode(&path, 0o644)?;
        Ok(path)
    }

    fn copy(&self, file: &Path, directory: &str) -> Result<()> {
        let to = self
            .directory(directory)?
            .join(file.file_name().unwrap_or_default());
        fs::copy(file, &to).with_context(|| format!("{}", file.display()))?;
        set_mode(&to, 0o644)
    }

    /// The binary without what debuggers read.
    fn binary(&self, binary: &Path) -> Result<PathBuf> {
        let to = self.directory("usr/bin")?.join(NAME);
        output(Command::new("strip").arg("-o").arg(&to).arg(binary))?;
        set_mode(&to, 0o755)?;
        Ok(to)
    }

    /// What dpkg reads: the description, the digests of all files, and what is done after both ways.
    fn control(&self, control: &str) -> Result<()> {
        let sums = "find usr -type f -print0 | sort -z | xargs -0 md5sum";
        let sums = output(Command::new("sh").args(["-c", sums]).current_dir(&self.0))?;
        self.write("DEBIAN/md5sums", &format!("{sums}\n"))?;
        self.write("DEBIAN/control", control)?;
        for script in ["postinst", "postrm"] {
            let path = self.write(&format!("DEBIAN/{script}"), control::RELOAD_UNITS)?;
            set_mode(&path, 0o755)?;
        }
        Ok(())
    }
}

/// The files in a directory whose names end like this, by name; none where there is no directory.
fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory).with_context(|| format!("{}", directory.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.to_string_lossy().ends_with(ending));
    paths.sort();
    Ok(paths)
}

/// Compresses a file in its place, the same way each time.
fn zip(file: &Path) -> Result<()> {
    output(Command::new("gzip").args(["-9", "-n", "-f"]).arg(file))?;
    let mut zipped = file.as_os_str().to_owned();
    zipped.push(".gz");
    set_mode(Path::new(&zipped), 0o644)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("{}", path.display()))
}
