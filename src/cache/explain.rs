//! Explains one key to an operator: where it is, and what `get_or_set` would do now.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use super::{handle::LazyLayersCache, state::CacheState};
use crate::{
    flight::{Role, Survey},
    key::CacheKey,
    l2::{HeldLock, KeyInL2, OutstandingLease, Peek},
};

/// Where a key of a cache is, and what `get_or_set` would do now: see
/// [`explain`](LazyLayersCache::explain). [`Display`](std::fmt::Display) writes it in words, in a few
/// lines. With the feature `serde` it serializes; durations are written as "1m 5s".
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, NextStep};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// let explanation = names.explain(&7).await;
/// assert_eq!((explanation.key.as_str(), explanation.next), ("7", NextStep::Load));
/// assert_eq!(
///     explanation.to_string(),
///     "key \"7\"\nL1: no entry\nL2: the cache has none\nget_or_set now loads",
/// );
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explanation {
    /// The text of the key.
    pub key: String,
    /// L1; `None` if the cache has none.
    pub l1: Option<KeyInL1>,
    /// Whether L1 is trusted, as in [`BusHealth::trusted`](crate::BusHealth::trusted); `true`
    /// without an event bus. An entry from before the last gap is untrusted all the same: each
    /// entry says so itself.
    pub l1_trusted: bool,
    /// Whether L1 has an entry that `get_or_set` would serve if its load failed or were slow.
    pub has_fallback: bool,
    /// L2; `None` if the cache has none.
    pub l2: Option<KeyInL2>,
    /// The lease of the key in L2: a load or a `set` that some instance has begun, and that has
    /// not ended, or whose instance died. `None` also if L2 was not read, or if its store does not
    /// implement [`Store::inspect`](crate::Store::inspect).
    pub l2_lease: Option<OutstandingLease>,
    /// The [distributed lock](crate::DistributedLock) of the key, while an instance holds it.
    /// `None` also in the cases of `l2_lease`.
    pub lock: Option<HeldLock>,
    /// Whether a load of this cache in this instance holds the lock.
    pub lock_is_own: bool,
    /// The loads of the key that run in this instance, at most two, in the order in which they
    /// began. The list leaves out loads that callers cannot join by the options of the cache
    /// ([`Coalescing`](crate::Coalescing)), and a load beside which a later one has begun because
    /// it exceeded `inflight.ttl`.
    pub loads: Vec<RunningLoad>,
    /// Number of callers that wait until one of two loads ends, because they can join neither.
    pub waiting: usize,
    /// What `get_or_set` would do now.
    pub next: NextStep,
}

/// What L1 has of a key, in an [`Explanation`].
///
/// An entry that is not trusted is looked up in L2, or loaded, before it is served.
///
/// ```
/// use std::time::Duration;
/// use lazy_layers_cache::{KeyInL1, LazyLayersCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// assert_eq!(names.explain(&7).await.l1, Some(KeyInL1::Absent));
///
/// names.set(&7, "Ada".to_owned()).await?;
/// let Some(KeyInL1::Fresh { fresh_for, .. }) = names.explain(&7).await.l1 else {
///     panic!("the value is in L1");
/// };
/// assert!(fresh_for <= Duration::from_secs(60));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum KeyInL1 {
    /// L1 has no entry of any use.
    Absent,
    /// L1 has a fresh value.
    Fresh {
        /// The time since the value was loaded, set or found in L2.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        age: Duration,
        /// The rest of its time as a fresh value.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        fresh_for: Duration,
        /// Its stale window after that.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        stale_for: Duration,
        /// Whether the entry is trusted.
        trusted: bool,
    },
    /// L1 has a stale value.
    Stale {
        /// The time since the value was loaded, set or found in L2.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        age: Duration,
        /// The rest of its stale window.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        stale_for: Duration,
        /// A load failed a moment ago: for this time callers get the stale value, and no load
        /// begins. `None`: a load may begin.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde::option"))]
        paused_for: Option<Duration>,
    },
    /// L1 has a negative entry: the key does not exist.
    Missing {
        /// The rest of its time.
        #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
        fresh_for: Duration,
        /// Whether the entry is trusted.
        trusted: bool,
    },
}

/// A load that runs, in an [`Explanation`]: it reads L2, waits for the distributed lock, or runs
/// its loader.
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, NextStep};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// let load = || std::future::pending::<Result<String, std::io::Error>>();
/// let caller = tokio::spawn({
///     let names = names.clone();
///     async move { names.get_or_set(&7, load).await }
/// });
/// tokio::task::yield_now().await;
///
/// let explanation = names.explain(&7).await;
/// assert_eq!((explanation.loads.len(), explanation.loads[0].followers), (1, 0));
/// assert_eq!(explanation.next, NextStep::JoinLoad);
/// # caller.abort();
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RunningLoad {
    /// The time since it began.
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    pub age: Duration,
    /// Number of callers that wait for it, other than the caller that began it.
    pub followers: usize,
}

/// What a `get_or_set` without options of its own would do, in an [`Explanation`].
///
/// ```
/// use lazy_layers_cache::{LazyLayersCache, NextStep};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = LazyLayersCache::<u64, String>::builder().build()?;
/// names.set(&7, "Ada".to_owned()).await?;
/// assert_eq!(names.explain(&7).await.next, NextStep::ServeL1);
/// names.close().await;
/// assert_eq!(names.explain(&7).await.next, NextStep::Refuse);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum NextStep {
    /// It returns the fresh value of L1.
    ServeL1,
    /// It returns `None`, because L1 or L2 has a negative entry, or L2 a null. If its loader cannot
    /// return "none", it loads.
    ServeMissing,
    /// It returns the stale value of L1, because a load failed a moment ago.
    ServeStale,
    /// It joins the load that runs.
    JoinLoad,
    /// It waits until one of two loads ends, because it can join neither.
    WaitForNext,
    /// It returns the value of L2, and fills L1 with it.
    ServeL2,
    /// It reads L2, and loads unless it finds a fresh value or a negative entry there. With the
    /// [distributed lock](crate::DistributedLock) a load waits for that of a peer.
    ReadL2,
    /// It loads: there is no L2, L2 is not to be read, or has bytes that cannot be decoded.
    Load,
    /// It fails, because the cache is closed.
    Refuse,
}

impl<K: CacheKey + ?Sized, V: Send + Sync + 'static> LazyLayersCache<K, V> {
    /// Explains a key to an operator: where it is, for how long it is fresh, which loads of it run,
    /// and what [`get_or_set`](Self::get_or_set) would do now.
    ///
    /// The call changes nothing. It loads nothing and fills no level; it takes no lease in L2; no
    /// counter, event or log line reports it; and L1 does not count it as a use of the entry. It
    /// reads L2 with [`Store::get`](crate::Store::get) and [`Store::inspect`](crate::Store::inspect),
    /// past the circuit breaker, which counts neither their success nor their failure. If L2 does
    /// not answer within [`L2Timeouts::read`](crate::L2Timeouts::read), or its circuit is not
    /// closed, the report says so. The codec decodes a value that it finds, and the value is
    /// dropped.
    ///
    /// The report is of this instance. The parts are read one after another, L2 first, so a change
    /// meanwhile may show in one of them only. The L1 of the peers is not in the report.
    ///
    /// ```
    /// # use lazy_layers_cache::{LazyLayersCache, NextStep};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let users = LazyLayersCache::<u64, String>::builder().build()?;
    /// assert_eq!(users.explain(&7).await.next, NextStep::Load);
    ///
    /// users.set(&7, "Ada".to_owned()).await?;
    /// let explanation = users.explain(&7).await;
    /// assert_eq!(explanation.next, NextStep::ServeL1);
    /// println!("{explanation}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn explain<Q: CacheKey + ?Sized>(&self, key: &Q) -> Explanation
    where
        K: Borrow<Q>,
    {
        Box::pin(self.state.explain(Arc::from(&*key.key_text()))).await
    }
}

impl<V: Send + Sync + 'static> CacheState<V> {
    async fn explain(&self, key: Arc<str>) -> Explanation {
        let (mut l2, mut l2_lease, mut lock) = (None, None, None);
        match &self.l2 {
            Some(_) if self.check_open().is_err() => l2 = Some(KeyInL2::Closed),
            Some(level) => {
                let Peek { found, lease, lock: held } = level.peek(&key).await;
                (l2, l2_lease, lock) = (Some(found), lease, held);
            }
            None => {}
        }
        let now = self.now();
        // As a caller does that joins a flight.
        let floor = self.min_stored_at(now).saturating_sub(1);
        let Survey { loads, waiting, role } = self.flights.survey(&key, now, floor);
        let load = |(age, followers)| RunningLoad { age: Duration::from_millis(age), followers };
        let l1 = self.options.l1.enabled.then(|| self.key_in_l1(&key, now));
        let next = self.next_step(&key, now, l1.as_ref(), l2.as_ref(), role);
        Explanation {
            key: key.to_string(),
            l1,
            l1_trusted: self.is_current(now),
            has_fallback: self.usable(&key, now, &mut None).is_some(),
            l2,
            l2_lease,
            lock_is_own: lock.as_ref().is_some_and(|lock| self.owns_lock(&lock.owner)),
            lock,
            loads: loads.into_iter().map(load).collect(),
            waiting,
            next,
        }
    }

    fn key_in_l1(&self, key: &str, now: u64) -> KeyInL1 {
        let min_stored_at = self.min_stored_at(now);
        let entry = self.l1.peek(key).filter(|entry| entry.is_usable(now));
        if let Some(entry) = entry.as_ref().filter(|entry| entry.is_fresh(now)) {
            let (age, fresh_for) = (entry.age(now), entry.fresh_left(now));
            let stale_for = entry.usable_left(now).saturating_sub(fresh_for);
            let trusted = entry.stored_at_or_after(min_stored_at);
            return KeyInL1::Fresh { age, fresh_for, stale_for, trusted };
        }
        if let Some((since, until)) = self.l1.peek_missing(key).filter(|(_, until)| now < *until) {
            let fresh_for = Duration::from_millis(until - now);
            return KeyInL1::Missing { fresh_for, trusted: since >= min_stored_at };
        }
        entry.map_or(KeyInL1::Absent, |entry| KeyInL1::Stale {
            age: entry.age(now),
            stale_for: entry.usable_left(now),
            paused_for: entry.is_throttled(now).then(|| entry.fresh_left(now)),
        })
    }

    /// Decides in the order in which `get_or_set` does.
    fn next_step(
        &self,
        key: &str,
        now: u64,
        l1: Option<&KeyInL1>,
        l2: Option<&KeyInL2>,
        role: Role,
    ) -> NextStep {
        match l1 {
            Some(KeyInL1::Fresh { trusted: true, .. }) => return NextStep::ServeL1,
            Some(KeyInL1::Missing { trusted: true, .. }) => return NextStep::ServeMissing,
            _ if role == Role::Follow => return NextStep::JoinLoad,
            _ if self.check_open().is_err() => return NextStep::Refuse,
            _ => {}
        }
        if self.usable(key, now, &mut None).is_some_and(|entry| entry.is_throttled(now)) {
            return NextStep::ServeStale;
        }
        match l2 {
            _ if role == Role::Wait => NextStep::WaitForNext,
            Some(KeyInL2::Fresh { .. }) => NextStep::ServeL2,
            Some(KeyInL2::Null) => NextStep::ServeMissing,
            Some(KeyInL2::Missing { .. })
                if self.l2.as_ref().is_some_and(|l2| l2.serves_missing()) =>
            {
                NextStep::ServeMissing
            }
            Some(
                KeyInL2::Absent
                | KeyInL2::NotFresh
                | KeyInL2::Missing { .. }
                | KeyInL2::Stale { .. }
                | KeyInL2::Unreachable { .. },
            ) => NextStep::ReadL2,
            Some(KeyInL2::Skipped) if self.l2.as_ref().is_some_and(|l2| l2.would_call()) => {
                NextStep::ReadL2
            }
            _ => NextStep::Load,
        }
    }
}
