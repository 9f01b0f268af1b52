//! The capture object: loading, attaching, and its ring buffer.

use std::{
    cell::RefCell,
    error::Error,
    fmt, fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    ptr,
    rc::{Rc, Weak},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Array, HashMap, MapData, RingBuf, SkStorage},
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError, SockOps,
        links::{FdLink, PinnedLink},
        sock_ops::SockOpsLink,
    },
};
use aya_log::EbpfLogger;
use launcher_common::CaptureEvent;
use log::Log;

use super::Ports;
use crate::{
    failure::Failure,
    sys::{
        cgroup::{FleetCgroup, WorkerCgroup},
        privilege::ebpf_failure,
    },
};

/// The compiled programs; see `launcher-ebpf/src/bin/capture.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("BPF_DIR"), "/capture.o"));

/// The marks of the fleet's sockets: see `OURS` in `launcher-ebpf/src/bin/capture.rs`.
pub(super) type Marks = Rc<RefCell<SkStorage<MapData, u64>>>;

/// The loaded and attached object. Dropping it detaches the programs unless they are pinned; sockets
/// stay as they are.
pub(super) struct Programs {
    ebpf: Ebpf,
    pub(super) marks: Marks,
    events: RingBuf<MapData>,
    log: Option<EbpfLogger<&'static dyn Log>>,
    /// Where workers share a cgroup: the kernel attaches one program only once.
    listening: Weak<SockOpsLink>,
    /// Kept open besides being pinned: somebody may remove the pins.
    _links: Vec<PinnedLink>,
}

/// Keeps the `listening` program attached to a worker's cgroup.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    _link: Rc<SockOpsLink>,
}

impl Programs {
    /// Loads the object and attaches the bind programs to the fleet's cgroup. With a directory of a
    /// bpffs they stay attached when the launcher ends, until the files there are removed, and what
    /// an earlier launcher has left there is replaced without a gap.
    pub(super) fn load(
        fleet: &FleetCgroup,
        ports: &Ports,
        log: bool,
        pins: Option<&Path>,
    ) -> Result<Self, Failure> {
        load(fleet, ports, log, pins)
            .map_err(|error| ebpf_failure("cannot load eBPF (capture)", error.as_ref()))
    }

    /// Whether a socket has the fleet's mark.
    pub(super) fn is_marked(&self, socket: &OwnedFd) -> bool {
        self.marks.borrow().get(socket, 0).is_ok()
    }

    pub(super) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    pub(super) fn log(&self) -> Option<BorrowedFd<'_>> {
        self.log.as_ref().map(|log| log.as_fd())
    }

    pub(super) fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    pub(super) fn next_event(&mut self) -> Option<CaptureEvent> {
        let record = self.events.next()?;
        if record.len() != size_of::<CaptureEvent>() {
            return None;
        }
        // SAFETY: the record has the size of a `CaptureEvent`, which is plain integers, so any
        // bytes are a valid one; the read does not ask for alignment.
        Some(unsafe { ptr::read_unaligned(record.as_ptr().cast()) })
    }

    pub(super) fn lost(&self) -> u64 {
        let lost = self.ebpf.map("EVENTS_LOST").map(Array::<_, u64>::try_from);
        match lost {
            Some(Ok(lost)) => lost.get(&0, 0).unwrap_or(0),
            _ => 0,
        }
    }

    /// Attaches the `listening` program to a worker's cgroup until the result is dropped.
    pub(super) fn attach_listening(&mut self, cgroup: &WorkerCgroup) -> io::Result<Listening> {
        if cgroup.is_shared()
            && let Some(link) = self.listening.upgrade()
        {
            return Ok(Listening { _link: link });
        }
        let shared = cgroup.is_shared();
        let cgroup = cgroup.open_dir()?;
        let mut attach = || -> Result<SockOpsLink, ProgramError> {
            let program: &mut SockOps = program(&mut self.ebpf, "listening")?;
            let id = program.attach(&cgroup, CgroupAttachMode::Single)?;
            program.take_link(id)
        };
        match attach() {
            Ok(link) => {
                let link = Rc::new(link);
                if shared {
                    self.listening = Rc::downgrade(&link);
                }
                Ok(Listening { _link: link })
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

fn load(
    fleet: &FleetCgroup,
    ports: &Ports,
    log: bool,
    pins: Option<&Path>,
) -> Result<Programs, Box<dyn Error>> {
    let all = u8::from(*ports == Ports::All);
    // A program that never logs at this level has its log calls removed by the verifier.
    let level = if log { aya_log::Level::Debug as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .override_global("CAPTURE_ALL", &all, true)
        .override_global(aya_log::LEVEL, &level, true);
    if let Some(pins) = pins {
        // Without the marks of the sockets that there are, they would be taken for strangers'.
        loader.map_pin_path("OURS", pins.join("OURS"));
    }
    let mut ebpf = loader.load(OBJECT)?;
    if let Ports::Only(ports) = ports {
        let map = ebpf.map_mut("PORTS").ok_or_else(|| missing("PORTS"))?;
        let mut wanted: HashMap<_, u32, u8> = map.try_into()?;
        for &(protocol, port) in ports {
            let key = u32::from(protocol.number()) << 16 | u32::from(port);
            wanted.insert(key, 1, 0)?;
        }
    }
    let mut take = |name| ebpf.take_map(name).ok_or_else(|| missing(name));
    let events = RingBuf::try_from(take("EVENTS")?)?;
    let marks = Rc::new(RefCell::new(SkStorage::try_from(take("OURS")?)?));
    let log = if log {
        Some(EbpfLogger::init(&mut ebpf)?)
    } else {
        None
    };
    let cgroup = fleet.directory();
    let mut links = Vec::new();
    for name in ["bind4", "bind6"] {
        let program: &mut CgroupSockAddr = program(&mut ebpf, name)?;
        program.load()?;
        let link = program.attach(cgroup, CgroupAttachMode::Single)?;
        if let Some(pins) = pins {
            links.push(pin(program.take_link(link)?.try_into()?, pins, name)?);
        }
    }
    for name in ["post_bind4", "post_bind6"] {
        let program: &mut CgroupSock = program(&mut ebpf, name)?;
        program.load()?;
        let link = program.attach(cgroup, CgroupAttachMode::Single)?;
        if let Some(pins) = pins {
            links.push(pin(program.take_link(link)?.try_into()?, pins, name)?);
        }
    }
    let listening: &mut SockOps = program(&mut ebpf, "listening")?;
    listening.load()?;
    Ok(Programs {
        ebpf,
        marks,
        events,
        log,
        listening: Weak::new(),
        _links: links,
    })
}

/// Keeps a link alive by a file, in place of the one that has the name: whose program is detached by
/// that. For a moment both run on each bind; they share the marks, so they agree.
fn pin(link: FdLink, pins: &Path, name: &str) -> Result<PinnedLink, Box<dyn Error>> {
    let new = pins.join(format!("{name}_new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let link = link.pin(&new)?;
    fs::rename(new, pins.join(name))?;
    Ok(link)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(ProgramError::UnexpectedProgramType)?
        .try_into()
}

/// The object and this file are built from one tree, so this means a broken build.
fn missing(map: &str) -> EbpfError {
    EbpfError::MapError(aya::maps::MapError::InvalidName {
        name: map.to_owned(),
    })
}
