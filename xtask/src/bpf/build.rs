//! Compiles the objects, so that the same sources and tools give the same bytes in any directory.

use std::{collections::BTreeMap, env, ffi::OsString, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    PACKAGES, Package, digest,
    manifest::Manifest,
    objects, strip,
    toolchain::{Toolchain, find_for},
    wrapper,
};
use crate::process::run;

const TARGET: &str = "bpfel-unknown-none";

/// How the programs are compiled. `v3` has atomics that return a value. Map definitions are read
/// from BTF, which is made from debug information. The verifier's messages quote source lines from
/// BTF; LLVM takes those that are not embedded from the disk, if it finds them there.
pub(super) const FLAGS: [&str; 6] = [
    "-Dwarnings",
    "-Ctarget-cpu=v3",
    "-Cdebuginfo=2",
    "-Zdwarf-version=5",
    "-Zembed-source=yes",
    "-Clink-arg=--btf",
];

/// What this machine's paths become: a place where no file can be, so that LLVM finds none on any.
const NOWHERE: &str = "/dev/null";

/// The objects, by name.
pub(super) type Objects = BTreeMap<String, Vec<u8>>;

/// Builds the objects and replaces the committed ones and their manifest.
pub(crate) fn commit(root: &Path) -> Result<()> {
    let recorded = Manifest::read(root).map_or_else(|_| BTreeMap::new(), |old| old.toolchain);
    let toolchain = find_for(&recorded)?;
    // Before the build: a source that is saved meanwhile must make the objects stale.
    let sources = digest::sources(root, &FLAGS)?;
    let built = build(root, &toolchain)?;
    for (name, file) in objects() {
        let path = root.join(&file);
        fs::write(&path, &built[name])
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}: {} bytes", file.display(), built[name].len());
    }
    let manifest = Manifest {
        sources,
        toolchain: toolchain.versions,
        objects: digests(&built),
    };
    manifest.write(root)
}

/// Compiles the objects.
pub(super) fn build(root: &Path, toolchain: &Toolchain) -> Result<Objects> {
    let root = root
        .canonicalize()
        .with_context(|| format!("cannot find {}", root.display()))?;
    let mut objects = Objects::new();
    for package in PACKAGES {
        objects.extend(build_package(&root, package, toolchain)?);
    }
    Ok(objects)
}

fn build_package(root: &Path, package: Package, toolchain: &Toolchain) -> Result<Objects> {
    let target = root.join("target/ebpf");
    let crate_directory = root.join(package.place);
    // The registry's directory has to exist before its path can be remapped.
    run(cargo(toolchain)
        .args(["fetch", "--locked", "--quiet"])
        .current_dir(&crate_directory))?;
    let mut command = cargo(toolchain);
    command
        .args(["build", "--locked", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core"])
        .current_dir(&crate_directory)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, toolchain)?);
    wrapper::install(&mut command)?;
    run(&mut command)?;
    package
        .objects
        .iter()
        .map(|&name| {
            let path = target.join(TARGET).join("release").join(name);
            let object =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let stripped = strip::strip(&object).with_context(|| path.display().to_string())?;
            Ok((name.to_owned(), stripped))
        })
        .collect()
}

/// Writes the objects into a directory.
pub(super) fn write(objects: &Objects, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for (name, object) in objects {
        let path = directory.join(format!("{name}.o"));
        fs::write(&path, object).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The digest of each object.
pub(super) fn digests(objects: &Objects) -> BTreeMap<String, String> {
    objects
        .iter()
        .map(|(name, object)| (name.clone(), digest::of(object)))
        .collect()
}

/// The toolchain's cargo, out of reach of what the user, rustup or an outer cargo have set.
fn cargo(toolchain: &Toolchain) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let steers_the_build = text.starts_with("RUSTC")
            || ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"]
                .iter()
                .any(|prefix| text.starts_with(prefix))
            || ["CARGO", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"].contains(&&*text);
        if steers_the_build {
            command.env_remove(name);
        }
    }
    command
        .env("RUSTC", &toolchain.rustc)
        // The unstable options that the target needs, on a compiler of the stable channel.
        .env("RUSTC_BOOTSTRAP", "1")
        // The bindings differ by architecture where programs read registers, which these do not;
        // but the name of the file would be in the object.
        .env("AYA_BPF_TARGET_ARCH", "x86_64");
    command
}

/// [`FLAGS`] and those that take this machine's paths out of the objects, as
/// `CARGO_ENCODED_RUSTFLAGS` wants them.
fn flags(root: &Path, toolchain: &Toolchain) -> Result<OsString> {
    let mut flags: Vec<OsString> = FLAGS.into_iter().map(OsString::from).collect();
    let mut remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push(format!("={NOWHERE}/{to}"));
        flags.push(flag);
    };
    remap(root, "workspace");
    remap(&toolchain.library, "rust");
    if let Ok(library) = toolchain.library.canonicalize() {
        remap(&library, "rust");
    }
    let home = env::var_os("CARGO_HOME")
        .map(Into::into)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("cannot find cargo's directory: neither CARGO_HOME nor HOME is set")?;
    let registries = home.join("registry/src");
    let entries = fs::read_dir(&registries)
        .with_context(|| format!("cannot read {}", registries.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", registries.display()))?;
        remap(&entry.path(), "cargo");
    }
    Ok(flags.join("\x1f".as_ref()))
}
