//! Reads a key from the store for `explain`, and changes nothing: no lease, no report, no failure
//! that the circuit breaker counts.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    facade::L2,
    inspection::{HeldLock, Inspection, OutstandingLease},
    store_types::StoredValue,
};
use crate::{codec::offloading::Unreadable, contain::Held, error::text_of};

/// What L2 has of a key, in an [`Explanation`](crate::Explanation).
///
/// ```
/// use lazy_layers_cache::{KeyInL2, LazyLayersCache, SystemClock, WireCodec, testing::SharedStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), lazy_layers_cache::BoxError> {
/// let names = LazyLayersCache::<u64, String>::builder()
///     .l2(SharedStore::new(SystemClock), WireCodec::new())
///     .build()?;
/// assert_eq!(names.explain(&7).await.l2, Some(KeyInL2::Absent));
///
/// names.set(&7, "Ada".to_owned()).await?;
/// assert!(matches!(names.explain(&7).await.l2, Some(KeyInL2::Fresh { .. })));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum KeyInL2 {
    /// L2 has neither a fresh value nor a negative entry nor a stale copy.
    Absent,
    /// L2 has no fresh value. Whether it has a negative entry or a stale copy is not known: the
    /// store does not implement [`Store::inspect`](crate::Store::inspect), or that call failed.
    NotFresh,
    /// L2 has a fresh value, which the codec can decode.
    Fresh {
        /// The rest of its time as a fresh value; `None`: it has no end.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
        fresh_for: Option<Duration>,
    },
    /// L2 has a negative entry: the key does not exist. It has an effect only where
    /// [`NegativeCache`](crate::NegativeCache) is on.
    Missing {
        /// The rest of its time.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        fresh_for: Duration,
    },
    /// L2 has no fresh value, but a stale copy, for a load that fails or is slow. It has an effect
    /// only where [`FailSafe`](crate::FailSafe) is on, with `in_l2`.
    Stale {
        /// The rest of its stale window.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        stale_for: Duration,
    },
    /// L2 has a null of an instance of the TypeScript package: for a `V` that cannot be null, the
    /// key does not exist.
    Null,
    /// L2 has bytes that the codec cannot decode, for this reason. A `get_or_set` removes them.
    Unreadable {
        /// The text of the codec's error.
        reason: String,
    },
    /// An invalidation of the key, or of a pattern that matches it, has not reached L2, which may
    /// hold an older value. This instance reads the key from L2 once the invalidation is there.
    Pending,
    /// L2 cannot hold the key, for this reason: the key is in L1 only.
    Refused {
        /// Which limit or name the key breaks.
        reason: String,
    },
    /// The circuit of L2 is not closed: L2 was not read.
    Skipped,
    /// L2 failed, or did not answer within the deadline of a read
    /// ([`L2Timeouts`](crate::L2Timeouts)).
    Unreachable {
        /// The text of the store's error.
        reason: String,
    },
    /// The cache is closed: L2 was not read.
    Closed,
}

/// What [`L2::peek`] finds.
pub(crate) struct Peek {
    pub(crate) found: KeyInL2,
    pub(crate) lease: Option<OutstandingLease>,
    pub(crate) lock: Option<HeldLock>,
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Reads a key without a lease, and what the store keeps of it beside the value.
    pub(crate) async fn peek(&self, key: &str) -> Peek {
        let only = |found| Peek { found, lease: None, lock: None };
        let name = self.name(key);
        if let Some(error) = self.rejection(key) {
            return only(KeyInL2::Refused { reason: text_of(&error) });
        }
        if self.pending.covers(key) {
            return only(KeyInL2::Pending);
        }
        if self.is_skipped() {
            return only(KeyInL2::Skipped);
        }
        let (asked_at, limit) = (self.now(), self.limits.read);
        // Without the window: to find it, a store may remove a copy that is of no use.
        let read = self.call_unnoticed("get", limit, |store| store.get(&name, false)).await;
        let stored = match read {
            Ok(stored) => stored,
            Err(error) => return only(KeyInL2::Unreachable { reason: text_of(&error) }),
        };
        let inspect = self.call_unnoticed("inspect", limit, |store| store.inspect(&name, key));
        let inspection = inspect.await.ok().flatten();
        // It may have been recorded during the reads.
        if self.pending.covers(key) {
            return only(KeyInL2::Pending);
        }
        let found = match (stored, &inspection) {
            (Some(StoredValue { value, ttl, .. }), _) => self.decoded(value, ttl, asked_at).await,
            (None, Some(Inspection { missing_for: Some(fresh_for), .. })) => {
                KeyInL2::Missing { fresh_for: *fresh_for }
            }
            (None, Some(Inspection { stale_for: Some(stale_for), .. })) => {
                KeyInL2::Stale { stale_for: *stale_for }
            }
            (None, Some(_)) => KeyInL2::Absent,
            (None, None) => KeyInL2::NotFresh,
        };
        let Inspection { lease, lock, .. } = inspection.unwrap_or_default();
        Peek { found, lease, lock }
    }

    /// Whether a load that accepts "none" returns it for a negative entry of L2.
    pub(crate) fn serves_missing(&self) -> bool {
        self.with_missing
    }

    /// Decodes a value, and drops it.
    async fn decoded(&self, value: Vec<u8>, ttl: Option<Duration>, asked_at: u64) -> KeyInL2 {
        match self.codec.decode(value).await {
            Ok(value) => {
                drop(Held::new(Arc::new(value)));
                let elapsed = Duration::from_millis(self.now().saturating_sub(asked_at));
                KeyInL2::Fresh { fresh_for: ttl.map(|ttl| ttl.saturating_sub(elapsed)) }
            }
            Err(Unreadable(_, Some(bytes))) if self.codec.is_null(&bytes) => KeyInL2::Null,
            Err(Unreadable(error, _)) => KeyInL2::Unreadable { reason: text_of(&error) },
        }
    }
}

impl fmt::Display for KeyInL2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "no entry"),
            Self::NotFresh => write!(f, "no fresh value; the store does not say what else it has"),
            Self::Missing { fresh_for } => write!(f, "a negative entry, for {fresh_for:?}"),
            Self::Stale { stale_for } => {
                write!(f, "no fresh value, but a copy that is stale for {stale_for:?}")
            }
            Self::Fresh { fresh_for: Some(rest) } => write!(f, "a value, fresh for {rest:?}"),
            Self::Fresh { fresh_for: None } => write!(f, "a value, fresh for ever"),
            Self::Null => write!(f, "a null, so the key does not exist"),
            Self::Unreadable { reason } => write!(f, "bytes that cannot be decoded: {reason}"),
            Self::Pending => write!(f, "not read before a pending invalidation has reached it"),
            Self::Refused { reason } => write!(f, "cannot hold the key: {reason}"),
            Self::Skipped => write!(f, "not read, because its circuit is not closed"),
            Self::Unreachable { reason } => write!(f, "failed: {reason}"),
            Self::Closed => write!(f, "not read, because the cache is closed"),
        }
    }
}
