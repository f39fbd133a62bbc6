//! The guarantees of a cache with its options and levels, to be logged or asserted.

use std::{fmt, time::Duration};

use super::state::CacheState;

/// The guarantees of a cache, which depend on its options and on whether it has an L2 and a bus.
/// [`Display`](fmt::Display) writes them in words, one a line.
///
/// `docs/guarantees.md` describes how each is tested.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// How long the L1 of *this* instance may serve a value after a peer has deleted or set the
    /// key. Within this time the instance receives the invalidation from the bus, or notices its
    /// loss and looks the entry up in L2. Without a subscription it is the ttl of L1. `None`: it is
    /// the ttl of the value, because there is neither a subscription nor a ttl of L1.
    ///
    /// The bound also holds while a peer is cut off from the bus, though not from L2, if this
    /// instance had heard the peer within the minute before; see
    /// [`notices_silent_peers`](Self::notices_silent_peers). It does not hold for lost messages of
    /// instances of the TypeScript package, which have no numbers.
    pub max_staleness: Option<Duration>,
    /// Whether this instance notices that an idle peer is cut off from the bus: if it subscribes,
    /// while at most 64 instances are known on the channel. Among more, an idle instance sends
    /// beacons too seldom, and only the silence of a peer that has published within five seconds is
    /// noticed.
    pub notices_silent_peers: bool,
    /// Whether a load that began before a delete, on any instance, can never fill L2. `false`
    /// without an L2.
    pub l2_fenced: bool,
    /// Whether one load serves the callers of all instances, and not only those of one. Holds while
    /// L2 answers: no load waits for an L2 that does not.
    pub one_load_across_instances: bool,
    /// How far an invalidation has got when a delete or set returns, if its
    /// [report](crate::WriteReport) is complete.
    pub delete_ack: DeleteAck,
    /// How long a value may be served after its ttl when the loader fails; zero is never.
    pub stale_for: Duration,
}

/// How far an invalidation has got, beyond this instance, when a delete or set returns a
/// [complete](crate::WriteReport::is_complete) report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteAck {
    /// The cache has neither L2 nor a bus.
    Local,
    /// L2 has it. A peer sees it when its own L1 entry has expired.
    L2,
    /// L2, if there is one, has it, and it is queued for the bus.
    Queued,
    /// L2, if there is one, has it, and the bus has confirmed it.
    Confirmed,
}

impl<V: 'static> CacheState<V> {
    pub(super) fn guarantees(&self) -> Guarantees {
        let options = &self.options;
        let subscribes = self.bus.is_some() && options.subscribe_to_events;
        let ttl = options.l1.ttl;
        let trust_timeout = options.event_bus.trust_timeout;
        let max_staleness = match (options.l1.enabled, subscribes) {
            (false, _) => Some(Duration::ZERO),
            (true, false) => ttl,
            (true, true) => Some(ttl.map_or(trust_timeout, |ttl| ttl.min(trust_timeout))),
        };
        let client = self.bus.as_ref().map(|bus| &bus.client).filter(|_| subscribes);
        let notices_silent_peers = client.is_some_and(|client| client.notices_silent_peers());
        let delete_ack = match (&self.bus, &self.l2) {
            (Some(_), _) if options.event_bus.confirm_deletes => DeleteAck::Confirmed,
            (Some(_), _) => DeleteAck::Queued,
            (None, Some(_)) => DeleteAck::L2,
            (None, None) => DeleteAck::Local,
        };
        Guarantees {
            max_staleness,
            notices_silent_peers,
            l2_fenced: self.l2.is_some(),
            one_load_across_instances: self.l2.is_some() && options.distributed_lock.enabled,
            delete_ack,
            stale_for: options.stale_ttl(),
        }
    }
}

impl fmt::Display for Guarantees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after a delete has returned, this instance serves no older value")?;
        match self.max_staleness {
            Some(limit) => writeln!(f, "its L1 is at most {limit:?} behind the deletes of peers")?,
            None => writeln!(f, "its L1 may serve a value that a peer deleted until its ttl ends")?,
        }
        if self.notices_silent_peers {
            writeln!(f, "also if a peer that it heard is cut off from the bus for up to a minute")?;
        }
        if self.l2_fenced {
            writeln!(f, "a load that began before a delete, on any instance, never fills L2")?;
        }
        let scope = if self.one_load_across_instances { "all instances" } else { "this instance" };
        writeln!(f, "one load serves all callers of {scope}")?;
        let extent = match self.delete_ack {
            DeleteAck::Local => "is complete",
            DeleteAck::L2 => "is in L2",
            DeleteAck::Queued => "is in L2, if there is one, and queued for the bus",
            DeleteAck::Confirmed => "is in L2, if there is one, and confirmed by the bus",
        };
        writeln!(f, "a delete whose report is complete {extent}")?;
        let stale_for = self.stale_for;
        if stale_for.is_zero() {
            return write!(f, "a value is never served after its ttl");
        }
        write!(f, "a value is served for up to {stale_for:?} after its ttl if its loader fails")
    }
}
