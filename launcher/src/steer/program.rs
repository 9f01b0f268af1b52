//! One group's instance of the steering object: its program and its maps.

use std::{borrow::Cow, error::Error, fmt, fs, io, os::fd::AsFd, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, HashMap, MapData, MapError, MapInfo, PerCpuArray, ReusePortSockArray,
    },
    programs::{ProgramError, SkReuseport},
};
use launcher_common::{Counters, FlowState, HOLD, MEMBERS_MAX, ProbeSource, STRAYS_MAX, Table};

use super::{Counted, account::Ledger, books::Books, flows::FlowTable, measure::RunTime};
use crate::{
    failure::Failure,
    sys::{listeners::Protocol, privilege::ebpf_failure},
};

/// The compiled program; see `launcher-ebpf/src/bin/steer.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("BPF_DIR"), "/steer.o"));

/// The group's own counters stand behind those of its members.
const GROUP: u32 = MEMBERS_MAX as u32;

/// The program for [`Kind::Connections`], where connections can be followed when they move.
const CONNECTIONS: &str = "steer";
/// That for [`Kind::LeastConn`].
const LEAST: &str = "steer_least";

/// What a program decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections.
    Connections,
    /// Connections, by how many each member has.
    LeastConn,
    /// Datagrams.
    Datagrams {
        /// How many flows have room; at least 1.
        flows: u32,
    },
}

impl Kind {
    /// What it is a program for.
    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Connections | Self::LeastConn => Protocol::Tcp,
            Self::Datagrams { .. } => Protocol::Udp,
        }
    }

    fn flows(self) -> u32 {
        match self {
            Self::Connections | Self::LeastConn => 1,
            Self::Datagrams { flows } => flows,
        }
    }

    /// The maps that outlive the launcher: what a later one reuses if it finds them to be like its own.
    /// The sockets are in no other array then, and the counts go on. (The others are made anew with each
    /// load.)
    fn pinned(self) -> [Pinned; 7] {
        [
            ("MEMBERS", 4, MEMBERS_MAX + 1),
            ("COUNTERS", size_of::<Counters>(), MEMBERS_MAX + 1),
            ("CURSOR", 8, 2),
            ("LISTENERS", 4, MEMBERS_MAX + 1),
            ("STRAYS", 4, STRAYS_MAX),
            ("FLOWS", size_of::<FlowState>(), self.flows() as usize),
            ("FLOWED", 8, MEMBERS_MAX),
        ]
    }
}

/// A loaded steering program. The kernel keeps it, with its maps, as long as it is attached to a
/// group, even after this value is dropped.
pub(crate) struct Program {
    ebpf: Ebpf,
    name: Cow<'static, str>,
    migrates: bool,
    members: ReusePortSockArray<MapData>,
    table: ArrayOfMaps<MapData, Array<MapData, Table>>,
    /// An object of the user's own may have none, and has neither `probes` nor `books`.
    counters: Option<PerCpuArray<MapData, Counters>>,
    probes: Option<Probes>,
    /// What is counted of connections while `least-conn` needs it.
    pub(super) books: Option<Books>,
    /// Only such an object may have them.
    hints: Option<Array<MapData, u64>>,
    /// Where it decides about datagrams, and is ours.
    pub(super) flows: Option<FlowTable>,
}

/// The launcher's own connections, and how many there are.
struct Probes {
    sources: HashMap<MapData, ProbeSource, u32>,
    count: Array<MapData, u64>,
}

/// Why a program can't be loaded.
pub(super) type LoadError = Box<dyn Error>;

/// A map that outlives the launcher: its name, the size of its values and the number of its entries.
pub(super) type Pinned = (&'static str, usize, usize);

impl Program {
    /// Loads the object: for connections with migration where the kernel allows, else without. With a
    /// directory of a bpffs, the maps of [`Kind::pinned`] are taken from there, or left there.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub(crate) fn load(kind: Kind, pins: Option<&Path>) -> Result<Self, Failure> {
        load(kind, pins)
            .map_err(|error| ebpf_failure("cannot load eBPF (steering)", error.as_ref()))
    }

    /// Loads an object of the user's own, which has this one program.
    ///
    /// # Errors
    /// As for [`Program::load`]; and when the verifier refuses the program.
    pub(super) fn load_object(
        object: &[u8],
        name: &str,
        migrates: bool,
        pinned: Vec<Pinned>,
        pins: Option<&Path>,
    ) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        pin(&mut loader, pinned, pins)?;
        let mut ebpf = loader.load(object)?;
        load_program(&mut ebpf, name)?;
        Self::assemble(ebpf, name.to_owned().into(), migrates)
    }

    fn assemble(
        mut ebpf: Ebpf,
        name: Cow<'static, str>,
        migrates: bool,
    ) -> Result<Self, LoadError> {
        let mut needed = |name| {
            let none = || io::Error::other(format!("the object has no map {name}"));
            ebpf.take_map(name).ok_or_else(none)
        };
        let (members, table) = (needed("MEMBERS")?, needed("TABLE")?);
        let probes = match (ebpf.take_map("PROBES"), ebpf.take_map("PROBING")) {
            (Some(sources), Some(count)) => Some(Probes {
                sources: sources.try_into()?,
                count: count.try_into()?,
            }),
            _ => None,
        };
        let [loads, moved, listeners] =
            ["LOADS", "MOVED", "LISTENERS"].map(|name| ebpf.take_map(name));
        let books = match (loads, moved, listeners) {
            (Some(loads), Some(moved), Some(listeners)) => {
                Some(Books::of(loads, moved, listeners)?)
            }
            _ => None,
        };
        let counters = ebpf.take_map("COUNTERS");
        let hints = ebpf.take_map("HINTS");
        Ok(Self {
            members: members.try_into()?,
            table: table.try_into()?,
            counters: counters.map(TryInto::try_into).transpose()?,
            probes,
            books,
            hints: hints.map(TryInto::try_into).transpose()?,
            flows: None,
            ebpf,
            name,
            migrates,
        })
    }

    /// Has the program of this kind decide, once it is attached: on the same maps, so that nothing else
    /// changes. Between [`Kind::Connections`] and [`Kind::LeastConn`] only.
    ///
    /// # Errors
    /// When it can't be loaded; then nothing has changed.
    pub(super) fn switch(&mut self, kind: Kind) -> Result<(), Failure> {
        // It may be one without migration, or of the user's own: they stay.
        if (kind == Kind::LeastConn) == (self.name == LEAST) {
            return Ok(());
        }
        let loaded = match kind {
            Kind::LeastConn => load_program(&mut self.ebpf, LEAST),
            Kind::Connections => load_program(&mut self.ebpf, CONNECTIONS),
            Kind::Datagrams { .. } => return Ok(()),
        };
        loaded.map_err(|error| ebpf_failure("cannot load eBPF (steering)", &error))?;
        self.name = match kind {
            Kind::LeastConn => LEAST,
            _ => CONNECTIONS,
        }
        .into();
        Ok(())
    }

    /// Takes any program off the reuseport group that `socket` belongs to.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    pub(super) fn detach(socket: &impl AsFd) -> Result<(), ProgramError> {
        SkReuseport::detach(socket)
    }

    /// Empties every place of the socket array but these.
    pub(super) fn clear_all_but(&mut self, known: impl Fn(u16) -> bool) {
        for index in (0..=HOLD).filter(|&index| !known(index)) {
            self.clear_member(index);
        }
    }

    /// Has connections from these sources go to these members, and to nobody else.
    ///
    /// # Errors
    /// When the kernel has no memory, or there are too many.
    pub(super) fn add_probe(&mut self, source: &ProbeSource, member: u16) -> Result<(), MapError> {
        let Some(probes) = &mut self.probes else {
            return Err(MapError::KeyNotFound);
        };
        probes.sources.insert(source, u32::from(member), 0)?;
        probes.recount()
    }

    /// Ends that.
    pub(super) fn remove_probe(&mut self, source: &ProbeSource) {
        if let Some(probes) = &mut self.probes {
            // It may be gone with the group that it was for.
            let _ = probes.sources.remove(source);
            let _ = probes.recount();
        }
    }

    /// Whether a probe can be steered to one member.
    pub(super) fn steers_probes(&self) -> bool {
        self.probes.is_some()
    }

    /// Whether it counts what it selects.
    pub(super) fn counts(&self) -> bool {
        self.counters.is_some()
    }

    /// Tells the program something about a member, if it wants to know.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn set_hint(&mut self, member: u16, hint: u64) -> Result<(), MapError> {
        match &mut self.hints {
            Some(hints) => hints.set(u32::from(member), hint, 0),
            None => Ok(()),
        }
    }

    /// What the program was told about a member.
    pub(super) fn hint(&self, member: u16) -> u64 {
        let hints = self.hints.as_ref();
        hints
            .and_then(|hints| hints.get(&u32::from(member), 0).ok())
            .unwrap_or(0)
    }

    /// Whether connections move when their listener goes.
    pub(super) fn migrates(&self) -> bool {
        self.migrates
    }

    /// Attaches the program to the reuseport group that `socket` belongs to; attaching it again
    /// changes nothing.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for an MPTCP socket, `EINVAL` for one that is in no group.
    pub(crate) fn attach(&self, socket: &impl AsFd) -> Result<(), ProgramError> {
        self.program()?.attach(socket)
    }

    /// Has the program compare by these loads, under `least-conn`.
    ///
    /// # Errors
    /// When the kernel has no memory.
    pub(crate) fn compare_by(&mut self, ledger: &Ledger) -> Result<(), MapError> {
        match &mut self.books {
            Some(books) => books.set_ledger(ledger),
            None => Ok(()),
        }
    }

    /// What the program has cost so far; see [`Statistics`](super::measure::Statistics).
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn run_time(&self) -> Result<RunTime, ProgramError> {
        self.program()?.info().map(|info| RunTime::of(&info))
    }

    fn program(&self) -> Result<&SkReuseport, ProgramError> {
        self.ebpf
            .program(&self.name)
            .ok_or(ProgramError::NotLoaded)?
            .try_into()
    }

    /// Puts a socket into the socket array. The kernel takes it out when the socket closes.
    ///
    /// # Errors
    /// `EBUSY` when it is in another array, `EINVAL` when it is in no reuseport group.
    pub(crate) fn set_member(&mut self, index: u16, socket: &impl AsFd) -> Result<(), MapError> {
        use std::os::fd::AsRawFd as _;
        self.members
            .set(u32::from(index), &socket.as_fd().as_raw_fd(), 0)
    }

    /// Empties a place in the socket array, if the kernel has not done so.
    pub(super) fn clear_member(&mut self, index: u16) {
        // ENOENT is the usual case: the socket has closed.
        let _ = self.members.clear_index(&u32::from(index));
    }

    /// Replaces the table: the program sees the old one or the new one, whole. When this returns,
    /// no CPU uses the old one any more.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub(crate) fn install(&mut self, table: &Table) -> Result<(), MapError> {
        let mut next = Array::<MapData, Table>::create(1, 0)?;
        next.set(0, table, 0)?;
        self.table.set(0, &next, 0)
    }

    /// How many connections (datagrams) the socket at this index was sent, all told.
    pub(super) fn sent_to(&self, index: u16) -> u64 {
        let counters = self.sum(u32::from(index));
        counters.selected + counters.migrated
    }

    /// What was counted for the group, whose members used the places below `places`.
    pub(super) fn counted(&self, places: u16) -> Counted {
        let group = self.sum(GROUP);
        let mut counted = Counted {
            fell_through: group.fell_through,
            refused: group.refused,
            missed: group.missed,
            held: group.held,
            ..Counted::default()
        };
        for index in 0..places {
            let member = self.sum(u32::from(index));
            counted.selected += member.selected;
            counted.migrated += member.migrated;
        }
        counted
    }

    /// How many flows of datagrams were ever new to the flow table.
    pub(super) fn flows_seen(&self) -> u64 {
        self.sum(GROUP).flows
    }

    /// How many connections went to the holding socket, all told.
    pub(super) fn held(&self) -> u64 {
        self.sum(GROUP).held
    }

    /// Sums a counter over the CPUs.
    fn sum(&self, index: u32) -> Counters {
        let mut sum = Counters::default();
        if let Some(counters) = &self.counters
            && let Ok(values) = counters.get(&index, 0)
        {
            for value in values.iter() {
                sum.selected += value.selected;
                sum.migrated += value.migrated;
                sum.missed += value.missed;
                sum.fell_through += value.fell_through;
                sum.refused += value.refused;
                sum.held += value.held;
                sum.flows += value.flows;
            }
        }
        sum
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Probes {
    fn recount(&mut self) -> Result<(), MapError> {
        let count = self.sources.keys().count() as u64;
        self.count.set(0, count, 0)
    }
}

/// Has maps taken from a directory of a bpffs, or left there.
fn pin(
    loader: &mut EbpfLoader<'_>,
    maps: impl IntoIterator<Item = Pinned>,
    pins: Option<&Path>,
) -> io::Result<()> {
    let Some(pins) = pins else {
        return Ok(());
    };
    for (name, value_size, entries) in maps {
        let pin = pins.join(name);
        // What another version has left would not fit this one's program.
        if MapInfo::from_pin(&pin).is_ok_and(|map| {
            map.value_size() as usize != value_size || map.max_entries() as usize != entries
        }) {
            fs::remove_file(&pin)?;
        }
        loader.map_pin_path(name, pin);
    }
    Ok(())
}

fn load(kind: Kind, pins: Option<&Path>) -> Result<Program, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("FLOWS", kind.flows());
    pin(&mut loader, kind.pinned(), pins)?;
    let mut ebpf = loader.load(OBJECT)?;
    let name = match kind {
        Kind::Datagrams { .. } => {
            load_program(&mut ebpf, "steer_datagrams")?;
            "steer_datagrams"
        }
        // Before Linux 5.14 connections can't be followed when they move.
        Kind::LeastConn => {
            load_program(&mut ebpf, LEAST)?;
            LEAST
        }
        Kind::Connections => match load_program(&mut ebpf, CONNECTIONS) {
            Ok(()) => CONNECTIONS,
            // Before Linux 5.14 the attach type that allows migration is unknown.
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EINVAL) =>
            {
                load_program(&mut ebpf, "steer_plain")?;
                "steer_plain"
            }
            Err(error) => return Err(error.into()),
        },
    };
    let flows = match kind {
        Kind::Datagrams { flows } => {
            let mut take = |name| {
                let none = || io::Error::other(format!("the object has no map {name}"));
                ebpf.take_map(name).ok_or_else(none)
            };
            let (table, flowed, sockets) = (take("FLOWS")?, take("FLOWED")?, take("SOCKETS")?);
            Some(FlowTable::new(table, flowed, sockets, flows)?)
        }
        Kind::Connections | Kind::LeastConn => None,
    };
    let migrates = matches!(name, "steer" | "steer_least");
    let mut program = Program::assemble(ebpf, name.into(), migrates)?;
    program.flows = flows;
    Ok(program)
}

fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), ProgramError> {
    let program = ebpf
        .program_mut(name)
        .ok_or(ProgramError::UnexpectedProgramType)?;
    let program: &mut SkReuseport = program.try_into()?;
    match program.load() {
        // By an earlier change of the policy.
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        loaded => loaded,
    }
}
