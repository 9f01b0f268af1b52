//! Loading the account's program, or going on with the one that an earlier launcher has left.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

use aya::{
    EbpfLoader,
    maps::{Map, MapData},
    programs::{ProgramError, SockOps},
};
use launcher_common::Load;

use super::{Account, Counter, Ledger};

/// The compiled program; see `launcher-ebpf/src/bin/account.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("BPF_DIR"), "/account.o"));

/// The program, and the name of its pin.
const PROGRAM: &str = "account";

/// Its maps, and the names of their pins.
const MAPS: [&str; 4] = ["SEATS", "LOADS", "MOVED", "COUNTING"];

/// Grows with each change of what the program does or its maps mean: a later launcher goes on with the
/// program of an earlier one.
const VERSION: u32 = 2;

/// Loads the program, or goes on with what is left in that directory of a bpffs.
pub(super) fn start(pins: Option<&Path>) -> Result<Account, Box<dyn Error>> {
    match pins.map(prepare).transpose()? {
        Some(pins) if pins.join(PROGRAM).exists() => resume(pins),
        pins => load(pins),
    }
}

/// Whether an earlier launcher has left one there.
pub(super) fn was_left(pins: &Path) -> bool {
    pins.join(directory()).join(PROGRAM).exists()
}

/// Loads the program, and begins with nothing.
fn load(pins: Option<PathBuf>) -> Result<Account, Box<dyn Error>> {
    let mut ebpf = EbpfLoader::new().load(OBJECT)?;
    let program: &mut SockOps = ebpf
        .program_mut(PROGRAM)
        .ok_or(ProgramError::UnexpectedProgramType)?
        .try_into()?;
    program.load()?;
    let loaded = program.fd()?.as_fd().try_clone_to_owned()?;
    let mut maps = Vec::new();
    for name in MAPS {
        let map = ebpf.take_map(name);
        maps.push(map.ok_or_else(|| io::Error::other(format!("the object has no map {name}")))?);
    }
    if let Some(pins) = &pins {
        // Without the program, which is pinned last, they would not be all.
        fs::remove_dir_all(pins)?;
        fs::create_dir(pins)?;
        for (name, map) in MAPS.iter().zip(&maps) {
            map.pin(pins.join(name))?;
        }
        let program: &mut SockOps = ebpf
            .program_mut(PROGRAM)
            .ok_or(ProgramError::UnexpectedProgramType)?
            .try_into()?;
        program.pin(pins.join(PROGRAM))?;
    }
    assemble(loaded, maps, pins)
}

/// Goes on with the program that is pinned there, and its counts.
fn resume(pins: PathBuf) -> Result<Account, Box<dyn Error>> {
    let program = SockOps::from_pin(pins.join(PROGRAM))?;
    let loaded = program.fd()?.as_fd().try_clone_to_owned()?;
    let mut maps = Vec::new();
    for name in MAPS {
        maps.push(Map::from_map_data(MapData::from_pin(pins.join(name))?)?);
    }
    let mut account = assemble(loaded, maps, Some(pins))?;
    account.continues = account.counting.get(&0, 0)? != 0;
    Ok(account)
}

fn assemble(
    program: OwnedFd,
    maps: Vec<Map>,
    pins: Option<PathBuf>,
) -> Result<Account, Box<dyn Error>> {
    let [seats, loads, moved, counting] =
        <[Map; MAPS.len()]>::try_from(maps).map_err(|_| io::Error::other("a map is missing"))?;
    Ok(Account {
        counter: Rc::new(Counter {
            program,
            seats: RefCell::new(seats.try_into()?),
        }),
        ledger: Ledger {
            loads: loads.try_into()?,
            moved: moved.try_into()?,
        },
        counting: counting.try_into()?,
        paused: None,
        continues: false,
        seated: BTreeMap::new(),
        last: 0,
        pins,
    })
}

/// The name of the directory for the pins. It tells version and layouts, so that what another version
/// has left, and would be of no use, is not taken for ours.
fn directory() -> String {
    format!("account-v{VERSION}-{}", size_of::<Load>())
}

/// The directory for the pins; what another version has left is removed.
fn prepare(pins: &Path) -> io::Result<PathBuf> {
    let name = directory();
    for entry in fs::read_dir(pins)? {
        let entry = entry?;
        let other = entry.file_name();
        if other
            .to_str()
            .is_some_and(|other| other != name && other.starts_with("account-"))
        {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let path = pins.join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}
