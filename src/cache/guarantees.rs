//! What a cache promises as it is configured, to be logged or asserted.

use std::{fmt, time::Duration};

use super::state::CacheState;

/// What a cache promises as it is configured: which of the promises hold depends on what is
/// attached. [`Display`](fmt::Display) says it in words, a line each.
///
/// How each was attacked is told in `docs/guarantees.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// How far the memory of *this* instance may be behind what another has deleted or set. Within
    /// it, a delete is heard of by the bus, or its loss is noticed and memory looked up again. It
    /// is the time to live in memory where nothing is listened to.
    pub max_staleness: Duration,
    /// Whether a load that began before a delete, on any instance, can never fill the shared level.
    /// `false` without one.
    pub l2_fenced: bool,
    /// Whether one load serves all instances, and not only all callers of one. (While the shared
    /// level answers: it is never waited for in vain.)
    pub one_load_per_fleet: bool,
    /// What a delete or set that returned `Ok` has done.
    pub delete_ack: DeleteAck,
    /// How long a value may be served after its time when the loader fails; zero is never.
    pub stale_for: Duration,
}

/// What a delete or set that returned `Ok` has done, beside this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteAck {
    /// Nothing: there is nobody else.
    Local,
    /// The shared level has it. Other instances find it there when what they hold has ended.
    Shared,
    /// The shared level, if there is one, has it; other instances will be told as soon as the bus
    /// takes it.
    Told,
    /// The same, and the bus has confirmed it.
    Confirmed,
}

impl<V: 'static> CacheState<V> {
    pub(super) fn guarantees(&self) -> Guarantees {
        let options = &self.options;
        let listens = self.bus.is_some() && options.subscribe_to_events;
        let ttl = options.l1.ttl.unwrap_or(options.ttl);
        let max_staleness = match (options.l1.enabled, listens) {
            (false, _) => Duration::ZERO,
            (true, false) => ttl,
            (true, true) => ttl.min(options.event_bus.trust_timeout),
        };
        let delete_ack = match (&self.bus, &self.l2) {
            (Some(_), _) if options.event_bus.confirm_deletes => DeleteAck::Confirmed,
            (Some(_), _) => DeleteAck::Told,
            (None, Some(_)) => DeleteAck::Shared,
            (None, None) => DeleteAck::Local,
        };
        Guarantees {
            max_staleness,
            l2_fenced: self.l2.is_some(),
            one_load_per_fleet: self.l2.is_some() && options.distributed_lock.enabled,
            delete_ack,
            stale_for: options.stale_ttl(),
        }
    }
}

impl fmt::Display for Guarantees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after a delete returned, this instance serves nothing older from anywhere")?;
        let behind = self.max_staleness;
        writeln!(f, "its memory is at most {behind:?} behind the deletes of other instances")?;
        if self.l2_fenced {
            writeln!(f, "a load begun before a delete, on any instance, fills no shared level")?;
        }
        let all = if self.one_load_per_fleet { "of all instances" } else { "of this instance" };
        writeln!(f, "one load serves all callers {all}")?;
        let means = match self.delete_ack {
            DeleteAck::Local => "is done",
            DeleteAck::Shared => "is done in the shared level",
            DeleteAck::Told => {
                "is done in the shared level if there is one, and on its way to others"
            }
            DeleteAck::Confirmed => {
                "is done in the shared level if there is one, and taken by the bus"
            }
        };
        writeln!(f, "a delete that returned {means}")?;
        if self.stale_for.is_zero() {
            write!(f, "a value is never served after its time")
        } else {
            let stale_for = self.stale_for;
            write!(f, "a value is served up to {stale_for:?} after its time if its loader fails")
        }
    }
}
