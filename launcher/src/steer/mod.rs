//! Steering: the groups, their members, and the tables that the kernel evaluates.
//!
//! A member joins its group's socket array when it is adopted, and takes connections when its
//! worker is in the ready set: then the group gets a new table. Where no member can be selected the
//! holding socket is, the launcher's own member of the group.

pub(crate) mod account;
mod adopt;
mod aim;
mod batch;
mod books;
mod cgroups;
mod change;
mod counting;
pub mod features;
mod flows;
mod group;
mod hints;
mod loading;
pub(crate) mod measure;
mod object;
mod probes;
pub(crate) mod program;
mod remember;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

pub use self::aim::Cpus;
pub use self::change::Copies;
pub use self::flows::FlowsView;
pub use self::object::Object;
pub use self::probes::reached_at;
pub use self::remember::{Remembered, RememberedGroup, RememberedMember};
pub use self::view::{Counted, GroupView, Sent};
use self::{
    account::{Account, Place},
    aim::Aim,
    group::{Group, Member, OwnSockets},
    loading::Loaded,
};
use crate::{
    failure::Failure,
    policy::{Policies, Policy},
    sys::{
        listen::Mark,
        listeners::{Endpoint, Protocol},
        privilege::ebpf_failure,
    },
    worker::WorkerId,
};

/// How long a group without members is kept: its counters are of interest while a worker restarts.
const DESERTED_FOR: Duration = Duration::from_secs(60);

/// How long the holding socket of a group without members is kept while workers are ready: none of
/// them listens there, so nobody would take over what waits in it.
const HELD_FOR: Duration = Duration::from_secs(10);

/// How a fleet is steered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How connections and datagrams are dealt out.
    pub policies: Policies,
    /// What steers in place of our program: all groups, but those of datagrams where these have a policy
    /// of their own.
    pub object: Option<Object>,
    /// How many slots the fleet has.
    pub slots: u32,
    /// The weights of slots; 1 where none is given.
    pub weights: BTreeMap<u32, u16>,
    /// The machine's CPUs, and the workers'.
    pub cpus: Cpus,
    /// Whether connections wait in a holding socket when no worker takes any.
    pub hold: bool,
    /// Whether a worker that listens may have to wait until it takes connections.
    pub early: bool,
    /// How long a flow of datagrams may be idle and still stay with its member, under a policy that
    /// keeps flows; not 0. `None`: each datagram is on its own.
    pub flow_timeout: Option<Duration>,
    /// How many flows a group's flow table has room for; at least 1.
    pub flows: u32,
    /// A directory of a bpffs for what is to outlive the launcher.
    pub pins: Option<PathBuf>,
}

/// The steering of one fleet.
pub struct Steering {
    policies: Policies,
    object: Option<Object>,
    /// Whether connections are held; see [`Settings`].
    hold: bool,
    early: bool,
    pins: Option<PathBuf>,
    own: OwnSockets,
    groups: BTreeMap<Endpoint, Group>,
    aim: Aim,
    /// How long a flow of datagrams may be idle and still stay; `None`: none stays.
    flow_timeout: Option<Duration>,
    /// How many flows of a group stay.
    flows: u32,
    /// Workers that something is held against, since they were last steered to: their flows of datagrams
    /// go to others.
    ailing: BTreeSet<WorkerId>,
    /// What members that have closed had been sent, by worker.
    past: HashMap<WorkerId, u64>,
    /// What workers have told the program.
    hints: HashMap<WorkerId, u64>,
    /// For the first group; loaded at the start, so that what the kernel lacks is known before a
    /// worker runs.
    spare: Option<Loaded>,
    /// The number of the next group's pins.
    next_pins: u32,
    handed_over: bool,
    /// Whether members that are added wait for a table; see [`Steering::gather`].
    gathering: bool,
    /// Counts connections while some group needs it, and until all that were counted have ended.
    account: Option<Account>,
    /// Where the workers' connections are counted.
    places: BTreeMap<WorkerId, Place>,
    /// The workers all of whose connections are counted: since before they listened.
    whole: BTreeSet<WorkerId>,
    /// Whether there may be members that are not listed there.
    unlisted: bool,
}

impl Steering {
    /// Steering as it is wanted, of a fleet with this cgroup (its directory). `mark` is called with each
    /// socket that the launcher itself opens. What an earlier launcher has pinned is left alone, for [`Steering::resume`].
    ///
    /// # Errors
    /// When a program can't be loaded.
    pub fn new(
        settings: Settings,
        cgroup: File,
        mark: Box<Mark>,
        earlier: Option<&Remembered>,
    ) -> Result<Self, Failure> {
        let Settings {
            policies,
            object,
            slots,
            weights,
            cpus,
            hold,
            flow_timeout,
            flows,
            early,
            pins,
        } = settings;
        let mut steering = Self {
            policies,
            object,
            hold,
            early,
            pins,
            own: OwnSockets { mark, cgroup },
            groups: BTreeMap::new(),
            aim: Aim {
                ready: Vec::new(),
                weights,
                slots,
                cpus,
            },
            flow_timeout,
            flows,
            ailing: BTreeSet::new(),
            past: HashMap::new(),
            hints: HashMap::new(),
            spare: None,
            next_pins: earlier.map_or(0, Remembered::next_pins),
            handed_over: false,
            gathering: false,
            account: None,
            places: BTreeMap::new(),
            whole: BTreeSet::new(),
            unlisted: false,
        };
        if policies.connections() == Policy::LeastConn {
            steering.start_counting()?;
        } else if let Some(pins) = steering.pins.as_deref()
            && earlier.is_some()
            && Account::was_left(pins)
        {
            // Until the groups have other programs: see `settle`.
            steering.account = Some(Account::start(Some(pins))?);
        }
        if policies.connections() != Policy::Kernel {
            let loaded = steering.load(Protocol::Tcp)?;
            // Without migration there is no way from the holding socket to a worker.
            steering.hold &= loaded.0.migrates();
            steering.spare = Some(loaded);
        }
        Ok(steering)
    }

    /// The holding sockets, for a launcher that replaces this one.
    pub fn holding(&self) -> impl Iterator<Item = (&Endpoint, &OwnedFd)> {
        self.groups
            .iter()
            .filter_map(|(endpoint, group)| Some((endpoint, &group.holding.as_ref()?.socket)))
    }

    /// Opens a holding socket where workers of an earlier run listened, so that connections wait
    /// for the first worker instead of being refused. That the address is taken is no error: it is
    /// the worker's to say.
    ///
    /// # Errors
    /// When the program can't be loaded, or the kernel refuses it.
    pub fn hold_early(&mut self, endpoint: &Endpoint, uid: u32) -> Result<(), Failure> {
        let policy = self.policy(endpoint.protocol);
        if !self.hold || policy == Policy::Kernel || self.groups.contains_key(endpoint) {
            return Ok(());
        }
        let loaded = self.take_program(endpoint.protocol)?;
        let mut group = self.group(endpoint, policy, uid, Some(loaded))?;
        group.steer(endpoint, &self.aim, &self.own)?;
        if group.holding.is_some() {
            self.groups.insert(endpoint.clone(), group);
        }
        Ok(())
    }

    /// Holds nothing any more, and refuses what nobody takes.
    ///
    /// # Errors
    /// When the kernel refuses a table.
    pub fn stop_holding(&mut self) -> Result<(), Failure> {
        self.hold = false;
        for (endpoint, group) in &mut self.groups {
            group.release(&self.aim).map_err(|error| {
                ebpf_failure(format!("cannot release what is held on {endpoint}"), &error)
            })?;
        }
        Ok(())
    }

    /// Closes the holding socket of a group without members on this port: a worker could not have an
    /// address there, and it may be why.
    pub fn stop_holding_for_nobody(&mut self, port: u16) {
        let pins = self.pins.as_deref();
        self.groups.retain(|endpoint, group| {
            let nobodys = endpoint.address.port() == port && group.members.is_empty();
            if nobodys {
                remove_pins(pins, group.pins.as_deref());
            }
            !nobodys
        });
    }

    /// Whether connections are held where no worker takes them.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.hold && self.policies.connections() != Policy::Kernel
    }

    /// For a fleet of this many slots from the next table on.
    pub fn set_slots(&mut self, slots: u32) {
        self.aim.slots = slots;
    }

    /// By these weights from the next table on; 1 where none is given.
    pub fn set_weights(&mut self, weights: BTreeMap<u32, u16>) {
        self.aim.weights = weights;
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> Policies {
        self.policies
    }

    /// What steers groups of this protocol in place of our program.
    fn object(&self, protocol: Protocol) -> Option<&Object> {
        let given = protocol == Protocol::Udp && self.policies.datagrams.is_some();
        self.object.as_ref().filter(|_| !given)
    }

    /// The policy of a group.
    fn policy(&self, protocol: Protocol) -> Policy {
        if self.object(protocol).is_some() {
            // The table of an object of the user's own is in turn, by weight.
            return Policy::RoundRobin;
        }
        policy_of(self.policies, protocol)
    }

    /// Until [`Steering::install_gathered`], members that are only added to a table wait for each other:
    /// the kernel takes some ten milliseconds to exchange a table, because it waits until no CPU uses
    /// the old one. What takes a member out of a table is done at once.
    pub fn gather(&mut self) {
        self.gathering = true;
    }

    /// Brings in force what was gathered.
    ///
    /// # Errors
    /// As for [`Steering::set_ready`].
    pub fn install_gathered(&mut self) -> Result<(), Failure> {
        self.gathering = false;
        for (endpoint, group) in self.groups.iter_mut().filter(|(_, group)| group.due) {
            self.handed_over |= group.steer(endpoint, &self.aim, &self.own)?;
        }
        Ok(())
    }

    /// Steers to these workers, and to no others. `workers` is the whole set. Flows of datagrams that
    /// others have stay with these, unless they are among the `ailing`.
    ///
    /// # Errors
    /// When the kernel refuses a table or the program.
    pub fn set_ready(
        &mut self,
        workers: &[WorkerId],
        ailing: impl IntoIterator<Item = WorkerId>,
    ) -> Result<(), Failure> {
        self.aim.ready = workers.to_vec();
        // One that was found ailing and is replaced for that drains, but does not get well by it.
        self.ailing.extend(ailing);
        self.ailing.retain(|worker| !workers.contains(worker));
        for (endpoint, group) in &mut self.groups {
            group.ailing.clone_from(&self.ailing);
            if self.gathering && group.only_grows(&self.aim) {
                group.due = true;
                continue;
            }
            self.handed_over |= group.steer(endpoint, &self.aim, &self.own)?;
        }
        Ok(())
    }

    /// Closes our copies of the members' sockets. To be called before the launcher waits again:
    /// an open copy would keep a dead worker's socket in its group.
    pub fn close_copies(&mut self) {
        for group in self.groups.values_mut() {
            group.unattached.clear();
        }
    }

    /// Forgets a worker that is gone.
    ///
    /// # Errors
    /// As for [`Steering::set_ready`].
    pub fn forget(&mut self, worker: WorkerId) -> Result<(), Failure> {
        self.remove(|member| member.worker == worker)?;
        self.past.remove(&worker);
        self.hints.remove(&worker);
        self.ailing.remove(&worker);
        self.places.remove(&worker);
        self.whole.remove(&worker);
        if let Some(account) = &mut self.account {
            account.forget(worker);
        }
        Ok(())
    }

    /// Forgets the members that have closed: those whose cookie is not `alive`.
    ///
    /// # Errors
    /// As for [`Steering::set_ready`].
    pub fn forget_closed(&mut self, alive: impl Fn(u64) -> bool) -> Result<(), Failure> {
        self.remove(|member| !alive(member.cookie))
    }

    /// Hands over what is held though workers are ready: what came when all of a group's members had
    /// gone and the table did not know yet; or before the program was asked. `waits` tells whether
    /// something waits in the holding socket with this cookie. Tables that could not be installed are
    /// tried again.
    ///
    /// # Errors
    /// As for [`Steering::set_ready`].
    pub fn hand_over(&mut self, waits: impl Fn(u64) -> bool) -> Result<(), Failure> {
        for (endpoint, group) in &mut self.groups {
            if let Some(holding) = &mut group.holding {
                holding.waits |= waits(holding.cookie);
            }
            self.handed_over |= group.steer(endpoint, &self.aim, &self.own)?;
        }
        Ok(())
    }

    /// Unloads the programs of groups that have been without members for a minute while workers were
    /// ready: a server may open ever new ports, and each group costs a handful of descriptors. What
    /// is held there is held for less.
    pub fn forget_deserted(&mut self, now: Instant) {
        if self.aim.ready.is_empty() {
            return;
        }
        let pins = self.pins.as_deref();
        self.groups.retain(|_, group| {
            if !group.members.is_empty() {
                group.deserted = None;
                group.abandoned = false;
                return true;
            }
            let deserted = now.saturating_duration_since(*group.deserted.get_or_insert(now));
            if deserted >= HELD_FOR {
                // Nothing is told to the program: without a socket in the group it is not asked.
                group.abandoned = true;
                group.close_holding();
            }
            if deserted >= DESERTED_FOR {
                remove_pins(pins, group.pins.as_deref());
            }
            deserted < DESERTED_FOR
        });
    }

    fn remove(&mut self, gone: impl Fn(&Member) -> bool) -> Result<(), Failure> {
        for (endpoint, group) in &mut self.groups {
            let indices: Vec<u16> = group
                .members
                .iter()
                .filter(|(_, member)| gone(member))
                .map(|(&index, _)| index)
                .collect();
            if self.gathering && indices.is_empty() {
                continue;
            }
            for index in indices {
                if let Some(member) = group.members.remove(&index) {
                    group.unlist(member.cookie);
                    let sent = group.sent_to(index, member.before);
                    *self.past.entry(member.worker).or_default() += sent;
                }
                if let Some(program) = &mut group.program {
                    program.clear_member(index);
                }
            }
            self.handed_over |= group.steer(endpoint, &self.aim, &self.own)?;
        }
        Ok(())
    }

    /// Whether held connections were handed over since this was asked last.
    #[must_use]
    pub fn take_handed_over(&mut self) -> bool {
        std::mem::take(&mut self.handed_over)
    }
}

/// The policy for groups of this protocol, where our program steers.
fn policy_of(policies: Policies, protocol: Protocol) -> Policy {
    match protocol {
        Protocol::Tcp => policies.connections(),
        Protocol::Udp => policies.datagrams(),
    }
}

/// Removes what is pinned for a group that is forgotten.
fn remove_pins(pins: Option<&Path>, name: Option<&str>) {
    if let (Some(pins), Some(name)) = (pins, name) {
        // A leftover is removed with all others at the end.
        let _ = fs::remove_dir_all(pins.join(name));
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering")
            .field("policies", &self.policies)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}
