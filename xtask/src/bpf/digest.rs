//! What the objects are made of, as one SHA-256.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The files and directories the objects are made of, below the workspace's directory.
const INPUTS: [&str; 8] = [
    "examples/least-hint/Cargo.lock",
    "examples/least-hint/Cargo.toml",
    "examples/least-hint/src",
    "launcher-common/Cargo.toml",
    "launcher-common/src",
    "launcher-ebpf/Cargo.lock",
    "launcher-ebpf/Cargo.toml",
    "launcher-ebpf/src",
];

/// The digest of bytes, in hexadecimal.
pub(super) fn of(bytes: &[u8]) -> String {
    hexadecimal(Sha256::digest(bytes))
}

/// The digest of the objects' sources and of the flags they are compiled with.
pub(super) fn sources(root: &Path, flags: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for input in INPUTS {
        collect(root, Path::new(input), &mut files)?;
    }
    files.sort();
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        // The length keeps two neighbours from exchanging bytes unnoticed.
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for file in &files {
        let contents =
            fs::read(root.join(file)).with_context(|| format!("cannot read {}", file.display()))?;
        add(file.as_os_str().as_encoded_bytes());
        add(&contents);
    }
    for flag in flags {
        add(flag.as_bytes());
    }
    Ok(hexadecimal(digest.finalize()))
}

/// Adds `input`, or the Rust sources below it if it is a directory, but for unit tests.
fn collect(root: &Path, input: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let path = root.join(input);
    if path.is_file() {
        files.push(input.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", path.display()))?;
        let name = entry.file_name();
        let below = input.join(&name);
        let is_directory = entry.path().is_dir();
        let is_source = below.extension().is_some_and(|extension| extension == "rs");
        if is_directory || (is_source && name != "tests.rs") {
            collect(root, &below, files)?;
        }
    }
    Ok(())
}

fn hexadecimal(digest: impl AsRef<[u8]>) -> String {
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files that make up the objects.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "examples/least-hint/src",
            "launcher-common/src/deep",
            "launcher-ebpf/src/bin",
        ] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in [
            "examples/least-hint/Cargo.lock",
            "examples/least-hint/Cargo.toml",
            "examples/least-hint/src/main.rs",
            "launcher-common/Cargo.toml",
            "launcher-common/src/deep/choose.rs",
            "launcher-ebpf/Cargo.lock",
            "launcher-ebpf/Cargo.toml",
            "launcher-ebpf/src/bin/steer.rs",
        ] {
            fs::write(root.path().join(file), file).unwrap();
        }
        root
    }

    #[test]
    fn known_digest() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of(b"abc"), abc);
    }

    #[test]
    fn every_source_counts() {
        let root = tree();
        let before = sources(root.path(), &["-O"]).unwrap();
        assert_eq!(sources(root.path(), &["-O"]).unwrap(), before);
        assert_ne!(sources(root.path(), &["-O", "-g"]).unwrap(), before);
        for file in [
            "examples/least-hint/src/main.rs",
            "launcher-common/src/deep/choose.rs",
            "launcher-ebpf/Cargo.lock",
            "launcher-ebpf/src/bin/steer.rs",
            "launcher-ebpf/src/new.rs",
        ] {
            let path = root.path().join(file);
            let original = fs::read(&path).ok();
            fs::write(&path, "changed").unwrap();
            assert_ne!(sources(root.path(), &["-O"]).unwrap(), before, "{file}");
            match original {
                Some(original) => fs::write(&path, original).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
        }
        assert_eq!(sources(root.path(), &["-O"]).unwrap(), before);
    }

    #[test]
    fn unit_tests_and_other_files_do_not_count() {
        let root = tree();
        let before = sources(root.path(), &[]).unwrap();
        for file in [
            "launcher-common/src/tests.rs",
            "launcher-ebpf/src/.lib.rs.swp",
        ] {
            fs::write(root.path().join(file), "anything").unwrap();
        }
        assert_eq!(sources(root.path(), &[]).unwrap(), before);
    }
}
