//! Takes DWARF out of an object.
//!
//! Map definitions are read from BTF, which is made from debug information, so the objects have to
//! be compiled with it; nothing that loads them reads the DWARF, which is nine tenths of the file.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, Section, SectionData},
    elf,
};

/// The object without its `.debug_*` sections, the relocations and the symbols that go with them.
pub(super) fn strip(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("not an ELF object")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections in the symbols' string table, which `object` does not.
    let has_names = |section: &Section<'_>| matches!(section.data, SectionData::SectionString);
    if !builder.sections.iter().any(has_names) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("cannot write the object")?;
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{bpf, process::root};

    /// Section names of a file.
    fn sections(object: &[u8]) -> Vec<String> {
        Builder::read(object)
            .unwrap()
            .sections
            .iter()
            .map(|section| section.name.to_string())
            .collect()
    }

    #[test]
    fn debug_sections_go_and_all_others_stay() {
        let path = root().join(bpf::DIRECTORY).join("steer.o");
        let committed = fs::read(path).unwrap();
        let mut builder = Builder::read(&*committed).unwrap();
        let section = builder.sections.add();
        section.name = b".debug_info"[..].into();
        section.sh_type = elf::SHT_PROGBITS;
        section.data = SectionData::Data(vec![0; 64].into());
        let mut with_debug = Vec::new();
        builder.write(&mut with_debug).unwrap();
        assert!(sections(&with_debug).contains(&".debug_info".to_owned()));

        let stripped = strip(&with_debug).unwrap();
        assert_eq!(sections(&stripped), sections(&committed));
        assert!(sections(&stripped).contains(&".BTF".to_owned()));
    }
}
