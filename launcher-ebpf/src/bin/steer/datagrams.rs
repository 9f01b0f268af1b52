//! Datagrams: a flow stays with its member until it has been idle for the table's time-out, whatever
//! the table's sequence says by then.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, sk_action::SK_PASS},
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::SkReuseportContext,
};
use launcher_common::{Flow, FlowState, MEMBERS_MAX, Table};

use crate::{
    ByTable, Chooser as _, SYNS, count, fall_through,
    maps::{FLOWED, FLOWS, MEMBERS, SOCKETS},
    packet, refuse,
};

#[inline(always)]
pub fn decide(ctx: &SkReuseportContext, table: &Table) -> u32 {
    let Some(flow) = flow(ctx, table) else {
        return choose(ctx, table).map_or_else(|| nobody(table), |_| SK_PASS);
    };
    // SAFETY: the helper only reads a clock.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let known = FLOWS.get_ptr_mut(&flow);
    if let Some(known) = known {
        // SAFETY: points into the map's value. Another CPU may handle a datagram of the same flow:
        // then both write the same, or the later time is one tick off.
        let state = unsafe { &mut *known };
        let member = state.member;
        if state.stays(socket(member), now, table.flow_timeout)
            && MEMBERS.select_reuseport(ctx, member).is_ok()
        {
            if state.last != now {
                state.last = now;
            }
            touch(member, now);
            count(member, |c| c.selected += 1);
            return SK_PASS;
        }
    }
    let Some(member) = choose(ctx, table) else {
        return nobody(table);
    };
    let state = FlowState {
        member: u32::from(member),
        socket: socket(u32::from(member)),
        last: now,
    };
    // A full flow table evicts what has been idle for longest, so this fails only if another CPU is at
    // the same flow, and then the other one's entry serves. What is known is replaced, not written
    // over: its place may have been given to another flow by now.
    let flags = if known.is_none() {
        BPF_NOEXIST
    } else {
        BPF_ANY
    };
    if FLOWS.insert(&flow, &state, flags.into()).is_ok() && known.is_none() {
        count(MEMBERS_MAX as u32, |c| c.flows += 1);
    }
    touch(u32::from(member), now);
    SK_PASS
}

/// Chooses a member, and counts the datagram.
#[inline(always)]
fn choose(ctx: &SkReuseportContext, table: &Table) -> Option<u16> {
    let chosen = ByTable.choose(ctx, table, SYNS)?;
    if chosen.after_miss {
        count(MEMBERS_MAX as u32, |c| c.missed += 1);
    }
    count(u32::from(chosen.member), |c| c.selected += 1);
    Some(chosen.member)
}

/// The number of the socket with which the flows of this member stay; 0: with none.
#[inline(always)]
fn socket(member: u32) -> u32 {
    SOCKETS.get(member).copied().unwrap_or(0)
}

/// The flow that a datagram is of; `None` where each is on its own.
#[inline(always)]
fn flow(ctx: &SkReuseportContext, table: &Table) -> Option<Flow> {
    if table.flow_timeout == 0 {
        return None;
    }
    packet::flow(ctx)
}

/// What becomes of a datagram for which there is nobody.
#[inline(always)]
fn nobody(table: &Table) -> u32 {
    if table.len == 0 {
        refuse()
    } else {
        fall_through()
    }
}

/// Notes that a member has a flow that is not idle.
#[inline(always)]
fn touch(member: u32, now: u64) {
    if let Some(last) = FLOWED.get_ptr_mut(member) {
        // SAFETY: points into the map's value; an aligned store of 8 bytes can't tear. All CPUs write
        // the same, once a tick.
        unsafe {
            if *last < now {
                *last = now;
            }
        }
    }
}
