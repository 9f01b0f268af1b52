//! `launcher/bpf/MANIFEST.toml`: what the committed objects were made of, and with what.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::DIRECTORY;

const FILE: &str = "MANIFEST.toml";

const HEADER: &str = "# Written by `cargo xtask ebpf`; `cargo xtask ebpf --check` proves it.\n\n";

/// The contents of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The SHA-256 of the sources and flags.
    pub(super) sources: String,
    /// The versions of the tools, by name.
    pub(super) toolchain: BTreeMap<String, String>,
    /// The SHA-256 of each object, by name.
    pub(super) objects: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads the committed manifest.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let path = root.join(DIRECTORY).join(FILE);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    /// Replaces the committed manifest.
    pub(super) fn write(&self, root: &Path) -> Result<()> {
        let path = root.join(DIRECTORY).join(FILE);
        let text = toml::to_string(self).context("cannot write the manifest as TOML")?;
        fs::write(&path, format!("{HEADER}{text}"))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
