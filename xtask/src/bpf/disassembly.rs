//! Shows how two objects differ, for a person.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process::{find, output};

/// The difference of two objects' instructions, or why it can't be shown. The disassemblies are
/// left beside the new object, as `.old.s` and `.new.s`.
pub(super) fn diff(old: &Path, new: &Path) -> String {
    unified(old, new).unwrap_or_else(|error| {
        let (old, new) = (old.display(), new.display());
        format!("{old} and {new} differ; their instructions can't be shown: {error:#}")
    })
}

fn unified(old: &Path, new: &Path) -> Result<String> {
    let old_text = new.with_extension("old.s");
    let new_text = new.with_extension("new.s");
    disassemble(old, &old_text)?;
    disassemble(new, &new_text)?;
    let diff = Command::new("diff")
        .arg("--unified")
        .args([&old_text, &new_text])
        .output()
        .context("cannot run diff")?;
    if diff.stdout.is_empty() {
        let (old, new) = (old.display(), new.display());
        return Ok(format!(
            "{old} and {new} have the same instructions, and differ in BTF or symbols"
        ));
    }
    Ok(String::from_utf8_lossy(&diff.stdout).into_owned())
}

/// Writes an object's instructions and relocations as text.
fn disassemble(object: &Path, text: &Path) -> Result<()> {
    let objdump = objdump().context("there is no llvm-objdump")?;
    let all = output(
        Command::new(objdump)
            .args(["--disassemble", "--reloc", "--no-show-raw-insn"])
            .arg(object),
    )?;
    // What comes first is the file's name, which differs anyway.
    let start = all.find("Disassembly").unwrap_or_default();
    fs::write(text, &all[start..]).with_context(|| format!("cannot write {}", text.display()))
}

/// The newest llvm-objdump.
fn objdump() -> Option<PathBuf> {
    (14..40)
        .rev()
        .find_map(|version| find(&format!("llvm-objdump-{version}")))
        .or_else(|| find("llvm-objdump"))
}
