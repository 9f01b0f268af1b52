//! The account: connections counted in the kernel for each worker, from their establishment to their
//! end, while some group's policy compares workers by them.
//!
//! A worker that is counted has a **seat**: a number of its own among those that run. The `account`
//! program is attached to its cgroup, and told the seat by the cgroup's storage. What is attached so
//! lasts as long as the cgroup, and counts on when the launcher is killed; the program and its maps are
//! pinned, so that the next launcher goes on with them.
//!
//! When no policy needs the counts any more, connections that begin are not counted, but the program
//! stays until all that were have ended: what it has counted must not end unseen, or be taken for what
//! is counted later.

mod loading;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

#[expect(
    deprecated,
    reason = "programs of this type can't ask for the newer kind of cgroup storage"
)]
use aya::maps::CgroupStorage;
use aya::maps::{Array, CgroupStorageKey, HashMap, MapData, MapError};
use launcher_common::{HOLD, Loads, MEMBERS_MAX};

use super::cgroups::{SOCK_OPS, attach, detach};
use crate::{failure::Failure, sys::privilege::ebpf_failure, worker::WorkerId};

/// For how long nothing may have been counted before the program goes: until then a call of it that
/// has seen that connections are counted is over.
const REST: Duration = Duration::from_secs(1);

/// The maps by which groups' programs compare workers, and count what moves.
pub(crate) struct Ledger {
    pub(super) loads: Array<MapData, Loads>,
    pub(super) moved: HashMap<MapData, u64, u32>,
}

/// What counts at a cgroup: the program, and the map by which it knows whose the cgroup is.
pub(super) struct Counter {
    program: OwnedFd,
    #[expect(deprecated, reason = "see above")]
    seats: RefCell<CgroupStorage<MapData, u64>>,
}

/// The loaded program, and who is counted.
pub(super) struct Account {
    counter: Rc<Counter>,
    ledger: Ledger,
    counting: Array<MapData, u64>,
    /// Since when no connection that begins is counted.
    paused: Option<Instant>,
    /// Whether all that began since an earlier launcher's time has been counted.
    continues: bool,
    seated: BTreeMap<WorkerId, u16>,
    /// The seat that was given last. 0 is nobody's.
    last: u16,
    /// Where it is pinned.
    pins: Option<PathBuf>,
}

/// Where a worker's connections are counted.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its cgroup's directory.
    pub(super) directory: PathBuf,
    /// Its cgroup's id.
    pub(super) id: u64,
}

impl Counter {
    /// Has the connections counted that begin in a cgroup (its directory) from now on, for nobody: what
    /// waits there is to move.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn hold(&self, cgroup: &File) -> io::Result<()> {
        let id = cgroup.metadata()?.ino();
        self.count(cgroup, id, HOLD)
    }

    fn count(&self, cgroup: &File, id: u64, seat: u16) -> io::Result<()> {
        // The kernel makes a value when the program is attached.
        if self.told(id).is_none() {
            attach(self.program.as_fd(), cgroup.as_fd())?;
        }
        let mut seats = self.seats.borrow_mut();
        let told = seats.insert(key(id), u64::from(seat) + 1, 0);
        told.map_err(io::Error::other)
    }

    /// What the program was told of a cgroup, and 0 for nothing yet; `None`: it is not attached there.
    fn told(&self, id: u64) -> Option<u64> {
        self.seats.borrow().get(key(id), 0).ok()
    }
}

impl Account {
    /// Loads the program, or goes on with what an earlier launcher has left. With a directory of a bpffs a
    /// later one can go on.
    ///
    /// # Errors
    /// When a privilege or a kernel feature is missing.
    pub(super) fn start(pins: Option<&Path>) -> Result<Self, Failure> {
        loading::start(pins).map_err(|error| {
            let what = "cannot count connections, as least-conn needs";
            ebpf_failure(what, error.as_ref())
        })
    }

    /// Whether an earlier launcher has left one.
    pub(super) fn was_left(pins: &Path) -> bool {
        loading::was_left(pins)
    }

    /// Counts what begins from now on.
    ///
    /// # Errors
    /// Those of the map.
    pub(super) fn go_on(&mut self) -> Result<(), MapError> {
        self.counting.set(0, 1, 0)?;
        self.paused = None;
        Ok(())
    }

    /// Counts only the end of what has begun.
    pub(super) fn pause(&mut self) {
        // The map is there as long as this value.
        let _ = self.counting.set(0, 0, 0);
        self.continues = false;
        self.paused.get_or_insert_with(Instant::now);
    }

    /// Whether connections that begin are counted.
    pub(super) fn counts(&self) -> bool {
        self.paused.is_none()
    }

    /// Whether it was never paused since an earlier launcher's time: what that one knew is true still.
    pub(super) fn continues(&self) -> bool {
        self.continues
    }

    /// Whether all that was counted has ended, and nothing is counted any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let rested = |since| now.saturating_duration_since(since) >= REST;
        self.paused.is_some_and(rested)
            && self
                .loads()
                .is_some_and(|loads| loads.seats.iter().all(|load| load.active == 0))
    }

    /// Takes the program off the cgroups of those workers, for later launchers too. (A holding socket's is
    /// gone; the program stays with what it has held.)
    pub(super) fn end<'a>(self, places: impl Iterator<Item = &'a Place>) {
        if let Some(pins) = &self.pins {
            // First: who finds them takes the program for attached. A leftover is removed with all others at
            // the end.
            let _ = fs::remove_dir_all(pins);
        }
        for place in places {
            if let Ok(cgroup) = File::open(&place.directory) {
                // It may have come since.
                let _ = detach(self.counter.program.as_fd(), cgroup.as_fd());
            }
        }
    }

    /// Counts the connections of a worker from now on.
    ///
    /// # Errors
    /// When too many are counted; and those of the kernel.
    pub(super) fn seat(&mut self, worker: WorkerId, place: &Place) -> io::Result<()> {
        if self.recognise(worker, place) {
            return Ok(());
        }
        let free = self.free_seat();
        let seat = free.ok_or_else(|| io::Error::other("too many workers run"))?;
        self.counter
            .count(&File::open(&place.directory)?, place.id, seat)?;
        self.seated.insert(worker, seat);
        self.last = seat;
        Ok(())
    }

    /// Learns whether a worker is counted already.
    pub(super) fn recognise(&mut self, worker: WorkerId, place: &Place) -> bool {
        if self.seated.contains_key(&worker) {
            return true;
        }
        let told = self.counter.told(place.id);
        let Some(seat) = told.and_then(|told| u16::try_from(told.checked_sub(1)?).ok()) else {
            return false;
        };
        self.seated.insert(worker, seat);
        self.last = self.last.max(seat);
        true
    }

    /// Forgets a worker that is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.seated.remove(&worker);
    }

    /// The seat of a worker; 0 of one that has none.
    pub(super) fn seat_of(&self, worker: WorkerId) -> u16 {
        self.seated.get(&worker).copied().unwrap_or(0)
    }

    /// How many connections a worker has open; `None`: it is not counted.
    pub(super) fn active(&self, worker: WorkerId) -> Option<u64> {
        let seat = self.seated.get(&worker)?;
        let loads = self.loads()?;
        let load = loads.seats.get(usize::from(*seat))?;
        Some(load.active)
    }

    pub(super) fn counter(&self) -> Rc<Counter> {
        Rc::clone(&self.counter)
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn loads(&self) -> Option<Box<Loads>> {
        self.ledger.loads.get(&0, 0).ok().map(Box::new)
    }

    /// Not one that was free a moment ago: handshakes of its last worker may count there yet. And none
    /// for which connections are counted that a worker has passed to somebody else, if there is another.
    fn free_seat(&self) -> Option<u16> {
        let loads = self.loads()?;
        let taken: BTreeSet<u16> = self.seated.values().copied().collect();
        let all = MEMBERS_MAX - 1;
        let next = (0..all).map(|step| 1 + (usize::from(self.last) + step) % all);
        let free = |seat: &usize| !taken.contains(&(*seat as u16));
        let idle = |seat: &usize| loads.seats[*seat].active == 0;
        let mut idle_ones = next.clone().filter(free).filter(idle);
        let seat = idle_ones.next().or_else(|| next.clone().find(free))?;
        Some(seat as u16)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("paused", &self.paused)
            .field("seated", &self.seated)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// One in which nobody counts connections: enough for a measurement.
    ///
    /// # Errors
    /// When the kernel has no memory.
    pub(crate) fn of_nobody() -> Result<Self, MapError> {
        use aya_obj::generated::BPF_F_NO_PREALLOC;
        Ok(Self {
            loads: Array::create(1, 0)?,
            moved: HashMap::create(launcher_common::MOVED_MAX as u32, BPF_F_NO_PREALLOC)?,
        })
    }
}

fn key(cgroup: u64) -> CgroupStorageKey {
    CgroupStorageKey::new(cgroup, SOCK_OPS)
}
