//! The account: connections counted in the kernel, from their establishment to their end, for groups
//! whose policy compares members by them.
//!
//! A listener gets a tag, which the kernel copies to each of its connections; the `account` program is
//! called on their events. It is attached to the fleet's cgroup only while some group needs it, because
//! it costs several calls on every connection. Like the bind hooks it is pinned, so that it counts on
//! when the launcher is killed, and the next one goes on with its counts.

use std::{
    cell::RefCell,
    error::Error,
    fmt, fs,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, HashOfMaps, MapData, MapError, SkStorage},
    programs::{
        CgroupAttachMode, SockOps,
        links::{FdLink, PinnedLink},
    },
};
use launcher_common::{HOLD, Load, Loads, MEMBERS_MAX, Tag};

use crate::{failure::Failure, sys::privilege::ebpf_failure};

/// The compiled program; see `launcher-ebpf/src/bin/account.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("BPF_DIR"), "/account.o"));

/// The program, and the name of its link's pin.
const PROGRAM: &str = "account";

/// The maps that outlive the launcher.
const MAPS: [&str; 3] = ["TAGS", "LOADS_OF", "MOVED_OF"];

type Tags = Rc<RefCell<SkStorage<MapData, Tag>>>;

/// The loaded and attached object. Dropping it detaches the program unless it is pinned.
pub(super) struct Account {
    tags: Tags,
    loads_of: HashOfMaps<MapData, u32, Array<MapData, Loads>>,
    moved_of: HashOfMaps<MapData, u32, HashMap<MapData, u64, u32>>,
    /// Where it is pinned.
    pins: Option<PathBuf>,
    goes_on: bool,
    _ebpf: Ebpf,
    /// Kept open besides being pinned: somebody may remove the pins.
    _link: Option<PinnedLink>,
}

impl Account {
    /// Loads the object and attaches it to the fleet's cgroup. With a directory of a bpffs it stays
    /// attached when the launcher ends, and one that an earlier launcher has left there is replaced
    /// without a gap.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub(super) fn start(cgroup: &File, pins: Option<&Path>) -> Result<Self, Failure> {
        start(cgroup, pins).map_err(|error| {
            let what = "cannot count connections, as least-conn needs";
            ebpf_failure(what, error.as_ref())
        })
    }

    /// Ends it, also for later launchers.
    pub(super) fn end(self) {
        if let Some(pins) = &self.pins {
            // A leftover is removed with all others at the end.
            let _ = fs::remove_dir_all(pins);
        }
    }

    /// Counts the connections of a group from now on.
    ///
    /// # Errors
    /// When there are too many groups, or the kernel has no memory.
    pub(super) fn open(&mut self, books: &mut Books) -> Result<(), MapError> {
        if !self.goes_on && books.tags.is_none() {
            books.clear()?;
        }
        self.loads_of.insert(books.id, &books.loads, 0)?;
        self.moved_of.insert(books.id, &books.moved, 0)?;
        books.tags = Some(Rc::clone(&self.tags));
        Ok(())
    }

    /// Counts nothing for a group any more.
    pub(super) fn close(&mut self, books: &mut Books) {
        // Not there, or gone with the account.
        let _ = self.loads_of.remove(&books.id);
        let _ = self.moved_of.remove(&books.id);
        books.close();
    }

    /// Counts for these groups only: an earlier launcher may have had others.
    pub(super) fn keep_only(&mut self, ids: &[u32]) {
        let others: Vec<u32> = self.loads_of.keys().flatten().collect();
        for id in others.iter().filter(|id| !ids.contains(id)) {
            let _ = self.loads_of.remove(id);
            let _ = self.moved_of.remove(id);
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

/// What is counted for one group: its own maps.
pub(super) struct Books {
    /// The kernel's id of the map `LOADS`, by which tags name the group.
    id: u32,
    loads: Array<MapData, Loads>,
    listeners: HashMap<MapData, u64, u32>,
    moved: HashMap<MapData, u64, u32>,
    /// While the group is counted.
    tags: Option<Tags>,
}

impl Books {
    /// With the maps of this name that `take` gives.
    ///
    /// # Errors
    /// When the kernel does not tell a map's id.
    pub(super) fn of(
        loads: aya::maps::Map,
        listeners: aya::maps::Map,
        moved: aya::maps::Map,
    ) -> Result<Self, MapError> {
        let id = match &loads {
            aya::maps::Map::Array(data) => data.info()?.id(),
            _ => {
                return Err(MapError::InvalidName {
                    name: "LOADS".to_owned(),
                });
            }
        };
        Ok(Self {
            id,
            loads: loads.try_into()?,
            listeners: listeners.try_into()?,
            moved: moved.try_into()?,
            tags: None,
        })
    }

    /// The id by which tags name the group.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether the group's connections are counted.
    pub(super) fn are_open(&self) -> bool {
        self.tags.is_some()
    }

    /// Has the connections counted that begin at this listener from now on. Says whether that was so
    /// before.
    ///
    /// # Errors
    /// When the kernel has no memory, or the socket is none that listens.
    pub(super) fn tag(&self, socket: &OwnedFd, member: u16) -> Result<bool, MapError> {
        let Some(tags) = &self.tags else {
            return Ok(false);
        };
        let tag = Tag {
            loads: self.id,
            member: member.into(),
            counted: 0,
            reserved: 0,
        };
        let mut tags = tags.borrow_mut();
        // Not replaced by its like: for a moment a connection would inherit both.
        if tags.get(socket, 0).is_ok_and(|there| there == tag) {
            return Ok(true);
        }
        tags.insert(socket, tag, 0)?;
        Ok(false)
    }

    /// Has the connections that wait at this listener counted for those to whom they move. They have to
    /// be counted, all of them, or have moved here.
    ///
    /// # Errors
    /// When the kernel has no memory, or there are too many.
    pub(super) fn list(&mut self, listener: u64, member: u16) -> Result<(), MapError> {
        self.listeners.insert(listener, u32::from(member), 0)
    }

    /// Whether [`Books::list`] was called.
    pub(super) fn is_listed(&self, listener: u64) -> bool {
        self.listeners.get(&listener, 0).is_ok()
    }

    /// Forgets a listener that has closed.
    pub(super) fn forget(&mut self, listener: u64) {
        // It may never have been listed.
        let _ = self.listeners.remove(&listener);
    }

    /// How many connections each member has open; `None` when nobody counts.
    pub(super) fn active(&self) -> Option<Active> {
        self.tags.as_ref()?;
        self.loads.get(&0, 0).ok().map(Box::new).map(Active)
    }

    fn close(&mut self) {
        self.tags = None;
        for listener in self.listeners.keys().flatten().collect::<Vec<_>>() {
            self.forget(listener);
        }
    }

    /// Begins with nothing: who has counted here before has stopped at some time.
    fn clear(&mut self) -> Result<(), MapError> {
        self.close();
        for connection in self.moved.keys().flatten().collect::<Vec<_>>() {
            self.moved.remove(&connection)?;
        }
        let nothing = Loads {
            members: [Load::NONE; MEMBERS_MAX],
            moved: 0,
        };
        self.loads.set(0, nothing, 0)
    }
}

/// The connections of a group's members.
pub(super) struct Active(Box<Loads>);

impl Active {
    /// How many this one has open; always 0 for the holding socket.
    pub(super) fn of(&self, member: u16) -> u64 {
        if member == HOLD {
            return 0;
        }
        let load = self.0.members.get(usize::from(member));
        load.map_or(0, |load| load.active)
    }
}

fn start(cgroup: &File, pins: Option<&Path>) -> Result<Account, Box<dyn Error>> {
    let pins = pins.map(prepare).transpose()?;
    let link = pins.as_deref().map(|pins| pins.join(PROGRAM));
    let goes_on = link.as_deref().is_some_and(Path::exists);
    let mut loader = EbpfLoader::new();
    if let Some(pins) = &pins {
        for name in MAPS {
            let pin = pins.join(name);
            // Without the program that used it, it would not tell the truth.
            if !goes_on && pin.exists() {
                fs::remove_file(&pin)?;
            }
            loader.map_pin_path(name, pin);
        }
    }
    let mut ebpf = loader.load(OBJECT)?;
    let mut take = |name: &'static str| {
        ebpf.take_map(name)
            .ok_or_else(|| io::Error::other(format!("the object has no map {name}")))
    };
    let tags = SkStorage::try_from(take("TAGS")?)?;
    let loads_of = take("LOADS_OF")?.try_into()?;
    let moved_of = take("MOVED_OF")?.try_into()?;
    let program: &mut SockOps = ebpf
        .program_mut(PROGRAM)
        .ok_or(aya::programs::ProgramError::UnexpectedProgramType)?
        .try_into()?;
    program.load()?;
    let attached = program.attach(cgroup, CgroupAttachMode::Single)?;
    let link = match link {
        Some(pin) => {
            let attached: FdLink = program.take_link(attached)?.try_into()?;
            Some(replace_pin(attached, &pin)?)
        }
        None => None,
    };
    Ok(Account {
        tags: Rc::new(RefCell::new(tags)),
        loads_of,
        moved_of,
        pins,
        goes_on,
        _ebpf: ebpf,
        _link: link,
    })
}

/// The directory for the pins. Its name tells the layouts, so that what another version has left, and
/// would be of no use, is not taken for ours; it is removed.
fn prepare(pins: &Path) -> io::Result<PathBuf> {
    let name = format!("account-{}-{}", size_of::<Loads>(), size_of::<Tag>());
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

/// Keeps a link alive by a file, in place of the one that has the name, whose program is detached by
/// that. For a moment both run on each event; they share the tags, by which the second one sees that the
/// first has counted.
fn replace_pin(link: FdLink, pin: &Path) -> Result<PinnedLink, Box<dyn Error>> {
    let new = pin.with_file_name(format!("{PROGRAM}_new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let link = link.pin(&new)?;
    fs::rename(new, pin)?;
    Ok(link)
}
