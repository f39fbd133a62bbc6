//! The guarantees of a cache with its options and levels, to be logged or asserted.

use std::{fmt, time::Duration};

use super::state::CacheState;

/// The guarantees of a cache, which depend on its options and on whether it has an L2 and a bus.
/// [`Display`](fmt::Display) writes them in words, one a line.
///
/// `docs/guarantees.md` describes how each is tested.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{LazyLayersCache, LocalTransport, WireCodec};
///
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(LocalTransport::new(), WireCodec::new())
///     .build()?;
/// // Fails at the start of the service if a change of the options weakens what it relies on.
/// assert!(names.guarantees().max_staleness <= Some(Duration::from_secs(3)));
/// assert!(names.guarantees().one_load_within_instance);
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// How long the L1 of *this* instance may serve a value after a peer has deleted or set the
    /// key. Within this time the instance receives the invalidation from the bus, or notices its
    /// loss and looks the entry up in L2. Without a subscription it is the ttl of L1. `None`: it is
    /// the ttl of the value, because there is neither a subscription nor a ttl of L1. Zero without
    /// L1.
    ///
    /// Unless the ttl of L1 is the bound, a peer that is cut off from the bus, though not from L2,
    /// can exceed it; see [`notices_silent_peers`](Self::notices_silent_peers). So can the lost
    /// messages of instances of the TypeScript package, which have no numbers. Stale copies, which
    /// [`FailSafe`](crate::FailSafe) serves, have a bound of their own:
    /// [`stale_for`](Self::stale_for).
    pub max_staleness: Option<Duration>,
    /// Whether this instance subscribes to the messages of its peers.
    pub receives_messages: bool,
    /// Whether this instance notices that an idle peer is cut off from the bus: if it subscribes,
    /// while at most 64 instances are known on the channel. Among more, an idle instance sends
    /// beacons too seldom, and only the silence of a peer that has published within five seconds is
    /// noticed. A peer that this instance has never heard is noticed in no case, nor are the
    /// changes that a peer makes after it was cut off for a minute.
    pub notices_silent_peers: bool,
    /// Whether a load that began before a delete, on any instance, can never fill L2. `false`
    /// without an L2, and with [versioned keys](crate::L2Options::versioning): there it may fill L2
    /// for itself, under a generation of the key from before the delete, until the message of the
    /// delete arrives.
    pub l2_fenced: bool,
    /// Whether one load serves the callers of this instance that ask for a key at the same time;
    /// `false` if [coalescing](crate::Coalescing) is off.
    pub one_load_within_instance: bool,
    /// Whether one load serves the callers of all instances, and not only those of one, by the
    /// [distributed lock](crate::DistributedLock). Holds while L2 answers, and for loads that take
    /// no longer than the lock's `wait_timeout`: no caller waits longer.
    pub one_load_across_instances: bool,
    /// How far an invalidation has got when a delete or set returns, if its
    /// [report](crate::WriteReport) is complete.
    pub delete_ack: DeleteAck,
    /// How long a value may be served after its ttl when its load fails or is slow, by the options
    /// of the cache; zero is never. A call, a `set` and a loader may give a value another time.
    /// Such a stale copy may be one that a peer has deleted, if this instance has not learnt of
    /// that.
    pub stale_for: Duration,
    /// Whether `max_staleness` is the ttl of L1, which holds whatever happens to the bus.
    is_ttl_of_l1: bool,
}

/// How far an invalidation has got, beyond this instance, when a delete or set returns a
/// [complete](crate::WriteReport::is_complete) report.
///
/// ```
/// use lazy_layers_cache::{DeleteAck, LazyLayersCache, LocalTransport, WireCodec};
///
/// let alone = LazyLayersCache::<u64, String>::builder().build()?;
/// assert_eq!(alone.guarantees().delete_ack, DeleteAck::Local);
///
/// let one_of_several = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(LocalTransport::new(), WireCodec::new())
///     .build()?;
/// assert_eq!(one_of_several.guarantees().delete_ack, DeleteAck::Queued);
/// # Ok::<(), lazy_layers_cache::BuildError>(())
/// ```
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
        let is_ttl_of_l1 = options.l1.enabled && ttl.is_some_and(|it| max_staleness == Some(it));
        let notices_silent_peers = client.is_some_and(|client| client.notices_silent_peers());
        let delete_ack = match (&self.bus, &self.l2) {
            (Some(_), _) if options.event_bus.confirm_deletes => DeleteAck::Confirmed,
            (Some(_), _) => DeleteAck::Queued,
            (None, Some(_)) => DeleteAck::L2,
            (None, None) => DeleteAck::Local,
        };
        Guarantees {
            max_staleness,
            receives_messages: subscribes,
            notices_silent_peers,
            l2_fenced: self.l2.is_some() && !options.l2.versioning,
            one_load_within_instance: options.inflight.enabled,
            one_load_across_instances: self.l2.is_some() && options.distributed_lock.enabled,
            delete_ack,
            stale_for: options.stale_ttl(),
            is_ttl_of_l1,
        }
    }
}

impl fmt::Display for Guarantees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "after a delete has returned, this instance serves no older value")?;
        match self.max_staleness {
            Some(Duration::ZERO) => writeln!(f, "it has no L1 that could be behind")?,
            Some(limit) => writeln!(f, "its L1 is at most {limit:?} behind the deletes of peers")?,
            None => writeln!(f, "its L1 may serve a value that a peer deleted until its ttl ends")?,
        }
        let may_exceed = self.receives_messages && !self.is_ttl_of_l1;
        if may_exceed && self.max_staleness != Some(Duration::ZERO) {
            let line = match self.notices_silent_peers {
                true => "also if a peer that it heard is cut off from the bus for up to a minute",
                false => {
                    "unless an idle peer is cut off from the bus: more than 64 instances are known"
                }
            };
            writeln!(f, "{line}")?;
        }
        if self.l2_fenced {
            writeln!(f, "a load that began before a delete, on any instance, never fills L2")?;
        }
        let scope = match (self.one_load_across_instances, self.one_load_within_instance) {
            (true, _) => "one load serves all callers of all instances, while L2 answers in time",
            (false, true) => "one load serves all callers of this instance",
            (false, false) => "each caller loads for itself",
        };
        writeln!(f, "{scope}")?;
        let extent = match self.delete_ack {
            DeleteAck::Local => "is complete",
            DeleteAck::L2 => "is in L2",
            DeleteAck::Queued => "is in L2, if there is one, and queued for the bus",
            DeleteAck::Confirmed => "is in L2, if there is one, and confirmed by the bus",
        };
        writeln!(f, "a delete whose report is complete {extent}")?;
        let stale_for = self.stale_for;
        if stale_for.is_zero() {
            let only = "only if its call or its loader gave it a stale window";
            return write!(f, "a value is served after its ttl {only}");
        }
        write!(f, "a value is served for {stale_for:?} after its ttl if its load fails or is slow")
    }
}
