//! The report of a `set` or a delete: how far it has got in L1, in L2 and on the bus.

use std::{sync::Arc, time::Duration};

use crate::{
    bus::{PublishProgress, PublishWatch},
    error::text_of,
    l2::{InvalidationWatch, WriteOutcome},
    resilience::{has_timer, timeout},
};

/// How far a `set`, `delete`, `delete_by_pattern` or `clear` has got when it returned.
///
/// These calls do not fail when L2 or the bus does: this instance returns no older value from then
/// on in any case, and the cache brings the change to L2 and to the peers as soon as they answer.
/// So most callers ignore the report. A caller that must know asks
/// [`is_complete`](Self::is_complete), and waits with [`settled`](Self::settled).
///
/// ```
/// # use std::time::Duration;
/// # use lazy_layers_cache::{L1Effect, LazyLayersCache};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let users = LazyLayersCache::<u64, String>::builder().build()?;
/// // The database has committed the change of user 7.
/// let report = users.delete(&7).await?;
/// if !report.is_complete() {
///     println!("peers may serve the old user for a while: {report:?}");
/// }
/// assert_eq!(report.l1, L1Effect::Removed);
/// assert!(report.settled(Duration::from_secs(2)).await);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct WriteReport {
    /// The effect on L1, the memory of this instance.
    pub l1: L1Effect,
    /// The effect on L2, the store that instances share.
    pub l2: L2Effect,
    /// The effect on the event bus, over which peers receive the change.
    pub bus: BusEffect,
    is_bus_skipped: bool,
    pending: Option<InvalidationWatch>,
    message: Option<PublishWatch>,
}

/// The effect of a `set` or a delete on L1.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{L1Effect, LazyLayersCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// assert_eq!(names.set(&7, "Ada".to_owned()).await?.l1, L1Effect::Stored);
/// // A ttl of zero only deletes the old value.
/// let report = names.set(&7, "Grace".to_owned()).ttl(Duration::ZERO).await?;
/// assert_eq!(report.l1, L1Effect::Removed);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum L1Effect {
    /// The cache has no L1.
    None,
    /// L1 holds the value of the `set`.
    Stored,
    /// L1 holds no older value. After a `set`: nor the new one, because its ttl is zero, or because
    /// it is too heavy.
    Removed,
    /// A later `set` or delete of the key, of this instance or of a peer, came first: L1 does not
    /// hold the value of this `set`.
    Superseded,
}

/// The effect of a `set` or a delete on L2.
///
/// ```
/// use lazy_layers_cache::{
///     L2Effect, LazyLayersCache, SystemClock, WireCodec,
///     testing::{SharedStore, StoreFault},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = SharedStore::new(SystemClock);
/// let names = LazyLayersCache::<u64, String>::builder()
///     .l2(store.clone(), WireCodec::new())
///     .build()?;
/// assert_eq!(names.delete(&7).await?.l2, L2Effect::Done);
///
/// store.set_fault(StoreFault::Fails);
/// assert_eq!(names.delete(&7).await?.l2, L2Effect::Pending);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum L2Effect {
    /// The cache has no L2.
    None,
    /// L2 has stored or deleted the value.
    Done,
    /// L2 holds neither the value of this call nor an older one, for this reason: the key or the
    /// value breaks a limit, the codec cannot encode the value, L2 has no room, or a later change
    /// of the key came first. An `l2:refused` event reports the limits and the codec.
    NotStored(Arc<str>),
    /// L2 failed, was too slow, or was not called because its circuit is open (events `l2:error`
    /// and `l2:skipped`), so it may still hold an older value. The cache retries the delete until
    /// it succeeds, and does not read the key from L2 before. The value of a `set` is in L1 only.
    Pending,
}

/// The effect of a `set` or a delete on the event bus.
///
/// ```
/// use lazy_layers_cache::{BusEffect, LazyLayersCache, LocalTransport, WireCodec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder()
///     .name("users")
///     .event_bus(LocalTransport::new(), WireCodec::new())
///     .build()?;
/// names.ready().await?;
/// assert_eq!(names.delete(&7).await?.bus, BusEffect::Queued);
/// # names.close().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BusEffect {
    /// The cache has no event bus.
    None,
    /// The message is queued, and published as soon as the bus takes it.
    Queued,
    /// With [`confirm_deletes`](crate::EventBusOptions::confirm_deletes): the bus has accepted the
    /// message.
    Confirmed,
    /// With [`confirm_deletes`](crate::EventBusOptions::confirm_deletes): the bus has not accepted
    /// the message in time, its circuit is open, or the broker refuses all messages. The message
    /// stays queued.
    Unconfirmed,
}

impl WriteReport {
    pub(super) fn new(
        l1: L1Effect,
        l2: Option<WriteOutcome>,
        progress: Option<PublishProgress>,
    ) -> Self {
        let mut pending = None;
        let l2 = match l2 {
            None => L2Effect::None,
            Some(WriteOutcome::Done) => L2Effect::Done,
            Some(WriteOutcome::NotStored(error)) => L2Effect::NotStored(text_of(&error).into()),
            Some(WriteOutcome::Superseded) => {
                L2Effect::NotStored(Arc::from("a later change of the key came first"))
            }
            Some(WriteOutcome::Pending(watch)) => {
                pending = Some(watch);
                L2Effect::Pending
            }
        };
        let bus = match progress.as_ref().map(|progress| progress.is_confirmed) {
            None => BusEffect::None,
            Some(None) => BusEffect::Queued,
            Some(Some(true)) => BusEffect::Confirmed,
            Some(Some(false)) => BusEffect::Unconfirmed,
        };
        let is_bus_skipped = progress.as_ref().is_some_and(|progress| progress.is_skipped);
        let message = progress.map(|progress| progress.watch);
        Self { l1, l2, bus, is_bus_skipped, pending, message }
    }

    /// Whether nothing is known to be left to do: L2 is not [`Pending`](L2Effect::Pending), and the
    /// bus is not [`Unconfirmed`](BusEffect::Unconfirmed), nor [`Queued`](BusEffect::Queued) while
    /// its circuit was open or its broker refused all messages.
    ///
    /// `false`: peers may serve an older value until L2 and the bus answer again. The report says
    /// how far the call had got when it returned, and does not change;
    /// [`settled`](Self::settled) waits for the rest.
    ///
    /// ```
    /// use lazy_layers_cache::{
    ///     LazyLayersCache, SystemClock, WireCodec,
    ///     testing::{SharedStore, StoreFault},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = SharedStore::new(SystemClock);
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .build()?;
    /// assert!(names.delete(&7).await?.is_complete());
    ///
    /// // Redis is down: the delete succeeds here, and the cache retries it there.
    /// store.set_fault(StoreFault::Fails);
    /// assert!(!names.delete(&7).await?.is_complete());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let is_bus_behind = match self.bus {
            BusEffect::None | BusEffect::Confirmed => false,
            BusEffect::Queued => self.is_bus_skipped,
            BusEffect::Unconfirmed => true,
        };
        self.l2 != L2Effect::Pending && !is_bus_behind
    }

    /// Waits until L2 has the change and the bus has accepted its message, for at most `limit`.
    /// Returns whether both have; at once if they have already.
    ///
    /// Returns `false` also if the cache is closed, or its last handle is dropped, before that. The
    /// call does not keep the cache open. It needs a tokio runtime with a timer, and waits for
    /// nothing without one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use lazy_layers_cache::{
    ///     LazyLayersCache, WireCodec,
    ///     testing::{SharedStore, StoreFault, TokioClock},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = SharedStore::new(TokioClock::new());
    /// let names = LazyLayersCache::<u64, String>::builder()
    ///     .l2(store.clone(), WireCodec::new())
    ///     .build()?;
    /// store.set_fault(StoreFault::Fails);
    /// let report = names.delete(&7).await?;
    ///
    /// store.set_fault(StoreFault::None);
    /// assert!(report.settled(Duration::from_secs(10)).await, "the cache has retried the delete");
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing: the cache brings the change to L2 and to the bus
    /// whether or not a caller waits.
    pub async fn settled(&self, limit: Duration) -> bool {
        if !has_timer() {
            let is_in_l2 = self.pending.as_ref().is_none_or(InvalidationWatch::has_reached);
            return is_in_l2 && self.message.as_ref().is_none_or(PublishWatch::is_accepted);
        }
        let settled = async {
            if let Some(pending) = &self.pending
                && !pending.wait_reached().await
            {
                return false;
            }
            match &self.message {
                // A retry that has reached L2 broadcasts the delete again.
                Some(message) => message.wait_accepted(self.pending.is_some()).await,
                None => true,
            }
        };
        timeout(Some(limit), settled).await.unwrap_or(false)
    }
}

impl PartialEq for WriteReport {
    fn eq(&self, other: &Self) -> bool {
        (self.l1, &self.l2, self.bus) == (other.l1, &other.l2, other.bus)
    }
}

impl std::fmt::Debug for WriteReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { l1, l2, bus, .. } = self;
        let mut out = f.debug_struct("WriteReport");
        out.field("l1", l1).field("l2", l2).field("bus", bus);
        out.field("is_complete", &self.is_complete()).finish()
    }
}
