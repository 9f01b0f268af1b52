//! Steering: selects a member of a group for each connection, or datagram. One instance of this
//! object, with its own maps and one of its programs, is loaded for each group.
#![no_std]
#![no_main]

mod datagrams;
mod loads;
mod maps;
mod packet;

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
    macros::sk_reuseport,
    programs::SkReuseportContext,
};
use launcher_common::{
    Chosen, Counters, HOLD, MEMBERS_MAX, Policy, Table, choose, choose_least, cpu_number,
    source_key,
};
use launcher_ebpf::fetch_add;

use self::{
    loads::View,
    maps::{COUNTERS, CURSOR, MEMBERS, PROBES, PROBING, TABLE},
};

/// Connections, where the kernel can move those whose listener has gone (Linux 5.14).
#[sk_reuseport(migrate)]
pub fn steer(ctx: SkReuseportContext) -> u32 {
    match TABLE.get_value(0, &0) {
        Some(table) if ctx.migrating_sk().is_some() => migrate(&ctx, table, ByTable),
        Some(table) => connect(&ctx, table, ByTable),
        None => fall_through(),
    }
}

/// The same under `least-conn`: a program of its own, so that the others need not carry it.
#[sk_reuseport(migrate)]
pub fn steer_least(ctx: SkReuseportContext) -> u32 {
    match (TABLE.get_value(0, &0), View::now()) {
        (Some(table), Some(loads)) if ctx.migrating_sk().is_some() => {
            migrate(&ctx, table, ByLoad(loads))
        }
        (Some(table), Some(loads)) => connect(&ctx, table, ByLoad(loads)),
        _ => fall_through(),
    }
}

/// Connections, where it can't.
#[sk_reuseport]
pub fn steer_plain(ctx: SkReuseportContext) -> u32 {
    match TABLE.get_value(0, &0) {
        Some(table) => connect(&ctx, table, ByTable),
        None => fall_through(),
    }
}

/// Datagrams.
#[sk_reuseport]
pub fn steer_datagrams(ctx: SkReuseportContext) -> u32 {
    match TABLE.get_value(0, &0) {
        Some(table) => datagrams::decide(&ctx, table),
        None => fall_through(),
    }
}

/// A packet that may begin a connection.
#[inline(always)]
fn connect(ctx: &SkReuseportContext, table: &Table, chooser: impl Chooser) -> u32 {
    if PROBING.get(0).is_some_and(|&probing| probing != 0)
        && let Some(source) = packet::probe_source(ctx)
        // SAFETY: the value is copied at once.
        && let Some(&member) = unsafe { PROBES.get(&source) }
    {
        // Not counted: no client sent it. Nobody else may answer for the member.
        return match MEMBERS.select_reuseport(ctx, member) {
            Ok(()) => SK_PASS,
            Err(_) => SK_DROP,
        };
    }
    if table.len == 0 && table.hold == 0 {
        // Nobody takes new connections, as in a shutdown: refuse them at once instead of letting
        // them wait in a queue that will be reset.
        return refuse();
    }
    // Only a SYN takes its turn, and is counted, so that neither the ACK of a SYN cookie nor a stray one
    // skips a member. ACKs take turns among themselves: those of SYN cookies may come all at once, and
    // one that is stray costs nobody anything.
    let turns = if packet::is_syn(ctx) { SYNS } else { ACKS };
    let Some(chosen) = chooser.choose(ctx, table, turns) else {
        return fall_through();
    };
    if chosen.after_miss {
        count(MEMBERS_MAX as u32, |c| c.missed += 1);
    }
    // The group's own counters stand where the holding socket's would. Asked again, because what is
    // known before the search multiplies the ways through it.
    if packet::is_syn(ctx) {
        count(u32::from(chosen.member), |c| {
            if chosen.member == HOLD {
                c.held += 1;
            } else {
                c.selected += 1;
            }
        });
        chooser.begin(table, chosen.member);
    }
    SK_PASS
}

/// A connection whose listener has gone, or is going.
#[inline(always)]
fn migrate(ctx: &SkReuseportContext, table: &Table, chooser: impl Chooser) -> u32 {
    if table.len == 0 && table.hold == 0 {
        // What waits already may still be served, by whomever the kernel finds.
        chooser.strays(ctx);
        return fall_through();
    }
    let Some(chosen) = chooser.choose(ctx, table, SYNS) else {
        chooser.strays(ctx);
        return fall_through();
    };
    if chosen.after_miss {
        count(MEMBERS_MAX as u32, |c| c.missed += 1);
    }
    count(u32::from(chosen.member), |c| {
        if chosen.member == HOLD {
            c.held += 1;
        } else {
            c.migrated += 1;
        }
    });
    chooser.moves(ctx, table, chosen.member);
    SK_PASS
}

/// How a member is chosen, and what has to be counted for that.
trait Chooser: Copy {
    /// Chooses and selects a member; a turn comes from this counter. (Nothing is counted during the
    /// search: the verifier goes through every step of it.)
    fn choose(self, ctx: &SkReuseportContext, table: &Table, turns: u32) -> Option<Chosen>;

    /// A connection begins.
    fn begin(self, table: &Table, member: u16);

    /// The connection that this program is asked about moves.
    fn moves(self, ctx: &SkReuseportContext, table: &Table, to: u16);

    /// It moves to whomever the kernel finds.
    fn strays(self, ctx: &SkReuseportContext);
}

/// By the table alone.
#[derive(Clone, Copy)]
struct ByTable;

impl Chooser for ByTable {
    #[inline(always)]
    fn choose(self, ctx: &SkReuseportContext, table: &Table, turns: u32) -> Option<Chosen> {
        let number = number(ctx, table, turns);
        choose(table, number, |member| select(ctx, member))
    }

    #[inline(always)]
    fn begin(self, _: &Table, _: u16) {}

    #[inline(always)]
    fn moves(self, _: &SkReuseportContext, _: &Table, _: u16) {}

    #[inline(always)]
    fn strays(self, _: &SkReuseportContext) {}
}

/// By the workers' loads, and the table where they are equal.
#[derive(Clone, Copy)]
struct ByLoad(View);

impl Chooser for ByLoad {
    #[inline(always)]
    fn choose(self, ctx: &SkReuseportContext, table: &Table, turns: u32) -> Option<Chosen> {
        choose_least(
            table,
            turn(turns),
            |_, share| self.0.of(share),
            |member| select(ctx, member),
        )
    }

    #[inline(always)]
    fn begin(self, table: &Table, member: u16) {
        self.0.begin(table, member);
    }

    #[inline(always)]
    fn moves(self, ctx: &SkReuseportContext, table: &Table, to: u16) {
        if let Some(connection) = ctx.migrating_sk() {
            self.0.moves(ctx, &connection, table, to);
        }
    }

    #[inline(always)]
    fn strays(self, ctx: &SkReuseportContext) {
        if let Some(connection) = ctx.migrating_sk() {
            loads::stray(&connection);
        }
    }
}

/// What the policy's index function yields.
#[inline(always)]
fn number(ctx: &SkReuseportContext, table: &Table, turns: u32) -> u32 {
    let policy = table.policy;
    if policy == Policy::RoundRobin as u32 || policy == Policy::LeastConn as u32 {
        turn(turns)
    } else if policy == Policy::Source as u32 {
        // A connection that moves has no packet: the hash of its 4-tuple serves.
        packet::source(ctx).map_or_else(
            || ctx.hash(),
            |source| source_key(source, table.source_v4, table.source_v6),
        )
    } else if policy == Policy::Cpu as u32 {
        // SAFETY: the helper only reads a number.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        cpu_number(cpu, ctx.hash(), table.rounds)
    } else if policy == Policy::Random as u32 {
        // SAFETY: the helper only makes a number.
        unsafe { bpf_get_prandom_u32() }
    } else {
        ctx.hash()
    }
}

#[inline(always)]
fn select(ctx: &SkReuseportContext, member: u16) -> bool {
    MEMBERS.select_reuseport(ctx, u32::from(member)).is_ok()
}

/// The counter of SYNs, datagrams, and connections that move.
const SYNS: u32 = 0;
/// The counter of all other segments.
const ACKS: u32 = 1;

/// The next turn.
#[inline(always)]
fn turn(counter: u32) -> u32 {
    match CURSOR.get_ptr_mut(counter) {
        // SAFETY: points into the map's value.
        Some(cursor) => unsafe { fetch_add(cursor, 1) as u32 },
        None => 0,
    }
}

#[inline(always)]
fn count(index: u32, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own copy; programs of this type run with migration disabled and are
        // not re-entered on a CPU.
        change(unsafe { &mut *counters });
    }
}

#[inline(always)]
fn fall_through() -> u32 {
    count(MEMBERS_MAX as u32, |c| c.fell_through += 1);
    SK_PASS
}

#[inline(always)]
fn refuse() -> u32 {
    count(MEMBERS_MAX as u32, |c| c.refused += 1);
    SK_DROP
}

launcher_ebpf::license!();
