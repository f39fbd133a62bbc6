//! The shared level as the cache sees it: values instead of bytes, each call within its deadline
//! and behind the breaker, every failure reported once and turned into "as if missing".
//!
//! Only a delete or set that did not get through is told to the caller: nobody else can know that
//! an old value may still be there.

mod guarded;
mod key_versions;
mod lock;
mod pending_invalidations;
mod retry;
pub(crate) mod store;

use std::{borrow::Cow, sync::Arc, time::Duration};

pub use self::store::{Lease, LeaseRequest, LeaseResponse, Store, StoreFuture, StoredValue};
pub(crate) use self::{
    guarded::Failure, lock::LockAttempt, pending_invalidations::PendingInvalidation,
};
use self::{
    guarded::{Blame, report},
    key_versions::Versions,
    pending_invalidations::Owed,
};
use crate::codec::offloading::{Convert, Unreadable};
use crate::{
    codec::Codec,
    observe::Observer,
    options::CacheOptions,
    resilience::Breaker,
    time::{Clock, millis},
};

pub(crate) struct L2<V> {
    store: Arc<dyn Store>,
    convert: Convert<V>,
    breaker: Breaker,
    read_limit: Duration,
    write_limit: Duration,
    pattern_limit: Duration,
    /// The end of a value's life in the store in which it is a stale copy.
    stale_for: Duration,
    max_key_bytes: usize,
    owed: Owed,
    /// `None`: names are not versioned.
    versions: Option<Versions>,
}

/// A value of the shared level and how long it is fresh; `None` for as long as anyone likes.
pub(crate) struct Fresh<V> {
    pub(crate) value: Arc<V>,
    pub(crate) fresh_for: Option<Duration>,
    /// How long ago the store was asked: a caller may come round late for the answer.
    pub(crate) asked_ago: Duration,
}

/// What a load begins with.
pub(crate) enum Start<V> {
    Fresh(Fresh<V>),
    Load {
        lease: Option<NamedLease>,
        /// A stale copy, and how much longer it may serve.
        stale: Option<(Arc<V>, Duration)>,
        /// Whether there is something in the store, of use or not.
        held: bool,
    },
}

/// The right to publish a load's result, under the name that it was given for.
pub(crate) struct NamedLease {
    lease: Lease,
    name: String,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    Yes,
    /// A delete came first, wherever: the value must not be kept anywhere.
    Refused,
    /// It is not known to be in the store. No delete is known either.
    Unknown,
}

/// Who asks, for reports.
#[derive(Clone, Copy)]
pub(crate) struct CallContext<'a> {
    pub(crate) key: &'a str,
    pub(crate) observer: &'a Observer,
    pub(crate) clock: &'a dyn Clock,
}

impl<V> L2<V> {
    pub(crate) fn is_skipped(&self) -> bool {
        self.breaker.is_open()
    }
}

impl<V: Send + Sync + 'static> L2<V> {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        codec: Arc<dyn Codec<V>>,
        options: &CacheOptions,
    ) -> Self {
        let breaker = &options.l2_circuit_breaker;
        Self {
            store,
            convert: Convert::new(codec),
            breaker: Breaker::new(breaker.failure_threshold, millis(breaker.cooldown)),
            read_limit: options.l2_timeouts.read,
            write_limit: options.l2_timeouts.write,
            pattern_limit: options.l2_timeouts.pattern,
            stale_for: options.stale_ttl(),
            max_key_bytes: options.l2.max_key_bytes,
            owed: Owed::default(),
            versions: options.l2.versioning.then(Versions::default),
        }
    }

    pub(crate) async fn get(&self, context: CallContext<'_>) -> Option<Fresh<V>> {
        let name = self.name(context.key);
        if !self.serves(context) {
            return None;
        }
        let asked = context.clock.now();
        let read = self.guarded(context, self.read_limit, || self.store.get(&name));
        let stored = read.await.ok()??;
        self.fresh(context, stored, asked).await
    }

    /// Never fails: without the store a load begins with nothing.
    /// `hard` is the load's own limit.
    pub(crate) async fn begin(
        &self,
        context: CallContext<'_>,
        refresh: bool,
        hard: Option<Duration>,
    ) -> Start<V> {
        // As long as the load can take, and its publication.
        let around = self.read_limit.saturating_add(self.write_limit);
        let lease_for = hard.map_or(WITHOUT_LIMIT, |hard| hard.saturating_add(around));
        let mut is_sound = true;
        let mut begin = LeaseRequest { stale_for: self.stale_for, lease_for, refresh };
        for _ in 0..2 {
            let name = self.name(context.key);
            if !self.serves(context) {
                break;
            }
            let asked = context.clock.now();
            let begun = || self.store.get_or_lease(&name, begin);
            match self.guarded(context, self.read_limit, begun).await {
                Ok(LeaseResponse::Fresh(stored)) => {
                    match self.fresh(context, stored, asked).await {
                        Some(fresh) => return Start::Fresh(fresh),
                        // Bytes that are no value, or a store that judges otherwise: load, with the
                        // right to replace them.
                        None => {
                            is_sound = false;
                            begin.refresh = true;
                        }
                    }
                }
                Ok(LeaseResponse::Load { lease, stale }) => {
                    let held = stale.is_some();
                    let mut copy = None;
                    if let Some(stored) = stale.filter(|_| is_sound) {
                        let remaining = stored.remaining.unwrap_or(self.stale_for);
                        let value = self.decode(context, stored.value).await;
                        copy = value.map(|value| (value, remaining));
                    }
                    let lease = lease.map(|lease| NamedLease { lease, name: name.into_owned() });
                    return Start::Load { lease, stale: copy, held };
                }
                Err(_) => break,
            }
        }
        Start::Load { lease: None, stale: None, held: false }
    }

    pub(crate) async fn publish(
        &self,
        context: CallContext<'_>,
        leased: &NamedLease,
        value: &Arc<V>,
        ttl: Duration,
    ) -> Published {
        let Some(bytes) = self.encode(context, value).await else { return Published::Unknown };
        self.publish_bytes(context, leased, bytes, ttl).await.unwrap_or(Published::Unknown)
    }

    /// Writes a value that was given and not loaded. One that cannot be encoded, or that the store
    /// has no room for, is deleted instead: what there was is old now.
    pub(crate) async fn set(
        &self,
        context: CallContext<'_>,
        value: &Arc<V>,
        ttl: Duration,
    ) -> Result<Published, Failure> {
        if !self.has_place(context) {
            return Ok(Published::Unknown);
        }
        // From here on: encoding may take a while, and its caller may go away meanwhile.
        let promise = self.owed.promise_key(context.key);
        let bytes = if ttl.is_zero() { None } else { self.encode(context, value).await };
        let told = match bytes {
            Some(bytes) => self.seize_and_publish(context, bytes, ttl).await?,
            None => self.remove(context).await.map(|()| Published::Unknown)?,
        };
        promise.kept();
        Ok(told)
    }

    async fn seize_and_publish(
        &self,
        context: CallContext<'_>,
        bytes: Vec<u8>,
        ttl: Duration,
    ) -> Result<Published, Failure> {
        // As long as the write can take, and a little more.
        let lease_for = self.write_limit.saturating_mul(2);
        if self.versions.is_some() {
            // Who is at another version must not go on with what there is.
            self.remove_versions(context, Blame::Everything).await?;
        }
        let name = self.name(context.key);
        let acquire_write_lease = || self.store.acquire_write_lease(&name, lease_for);
        let Some(lease) = self.guarded(context, self.write_limit, acquire_write_lease).await?
        else {
            return Ok(Published::Unknown);
        };
        let leased = NamedLease { lease, name: name.into_owned() };
        self.publish_bytes(context, &leased, bytes, ttl).await
    }

    /// One that does not get through, or whose caller goes away, is owed: until it does get
    /// through, the store is not asked about the key.
    pub(crate) async fn delete(&self, context: CallContext<'_>) -> Result<(), Failure> {
        if let Some(versions) = &self.versions {
            versions.advance(context.key);
        }
        self.remove(context).await
    }

    /// The same for what nobody deleted, but must not stay. Its version does.
    pub(crate) async fn remove(&self, context: CallContext<'_>) -> Result<(), Failure> {
        if !self.has_place(context) {
            return Ok(());
        }
        let promise = self.owed.promise_key(context.key);
        self.remove_versions(context, Blame::Everything).await?;
        promise.kept();
        Ok(())
    }

    /// How often a key was deleted, for the others: where its name says so.
    pub(crate) fn count(&self, key: &str) -> Option<u64> {
        self.versions.as_ref().map(|versions| versions.of(key))
    }

    /// Another instance has deleted or set the key, and counts so many deletes of it. What may be
    /// under its name all the same is owed: the caller is to [`repay`](Self::repay).
    pub(crate) fn adopt(&self, key: &str, theirs: u64) {
        let Some(versions) = &self.versions else { return };
        let has_place = key.len() <= self.max_key_bytes && self.store.reject_key(key).is_none();
        if has_place {
            versions.adopt(key, theirs, || drop(self.owed.promise_key(key)));
        }
    }

    async fn remove_versions(&self, context: CallContext<'_>, blame: Blame) -> Result<(), Failure> {
        let limit = self.write_limit;
        let Some(versions) = &self.versions else {
            return self.called(context, limit, blame, || self.store.delete(context.key)).await;
        };
        let names = versions.names(context.key);
        self.called(context, limit, blame, || self.store.delete_all(&names)).await
    }

    async fn remove_matching(
        &self,
        context: CallContext<'_>,
        limit: Duration,
        blame: Blame,
    ) -> Result<(), Failure> {
        let glob = match self.versions {
            Some(_) => Cow::Owned(Versions::glob(context.key)),
            None => Cow::Borrowed(context.key),
        };
        self.called(context, limit, blame, || self.store.delete_matching(&glob)).await
    }

    /// The same for a pattern, which is what `asker.key` is.
    pub(crate) async fn delete_matching(&self, context: CallContext<'_>) -> Result<(), Failure> {
        let promise = self.owed.promise_pattern(context.key);
        // One that takes too long says that there is much to look at, and not that nobody is there.
        self.remove_matching(context, self.pattern_limit, Blame::Errors).await?;
        promise.kept();
        Ok(())
    }

    pub(crate) async fn size(&self, context: CallContext<'_>) -> Option<u64> {
        self.guarded(context, self.read_limit, || self.store.size()).await.ok()
    }

    /// What a key's value is called in the store.
    fn name<'a>(&self, key: &'a str) -> Cow<'a, str> {
        match &self.versions {
            Some(versions) => Cow::Owned(versions.name(key)),
            None => Cow::Borrowed(key),
        }
    }

    /// Whether the store may be asked about the key. To be asked when it has its name: for what is
    /// under another one, this may change with the name.
    fn serves(&self, context: CallContext<'_>) -> bool {
        self.has_place(context) && !self.owed.covers(context.key)
    }

    /// Whether the store can have the key at all.
    fn has_place(&self, context: CallContext<'_>) -> bool {
        let length = context.key.len();
        let refusal = if length > self.max_key_bytes {
            let limit = self.max_key_bytes;
            Some(format!("a key of {length} bytes, l2.max_key_bytes is {limit}").into())
        } else {
            self.store.reject_key(context.key)
        };
        refusal.map(|error| report(context, &error)).is_none()
    }

    async fn publish_bytes(
        &self,
        context: CallContext<'_>,
        NamedLease { lease, name }: &NamedLease,
        bytes: Vec<u8>,
        ttl: Duration,
    ) -> Result<Published, Failure> {
        let lives = ttl.saturating_add(self.stale_for);
        let publish = || self.store.publish(name, lease, bytes, lives);
        let published = self.guarded(context, self.write_limit, publish).await?;
        Ok(if published { Published::Yes } else { Published::Refused })
    }

    /// Bytes that nobody can read make room for others.
    async fn delete_if_equals(&self, context: CallContext<'_>, bytes: &[u8]) {
        let name = self.name(context.key);
        let discard = || self.store.delete_if_equals(&name, bytes);
        let _ = self.guarded(context, self.write_limit, discard).await;
    }

    /// `None`: what there is is not fresh any more, or no value.
    async fn fresh(
        &self,
        context: CallContext<'_>,
        stored: StoredValue,
        asked: u64,
    ) -> Option<Fresh<V>> {
        let fresh_for = match stored.remaining {
            Some(remaining) if remaining <= self.stale_for => return None,
            Some(remaining) => Some(remaining - self.stale_for),
            None => None,
        };
        let value = self.decode(context, stored.value).await?;
        let asked_ago = Duration::from_millis(context.clock.now().saturating_sub(asked));
        let fresh_for = fresh_for.map(|fresh_for| fresh_for.saturating_sub(asked_ago));
        Some(Fresh { value, fresh_for, asked_ago })
    }

    /// Bytes that are no value are reported and go.
    async fn decode(&self, context: CallContext<'_>, bytes: Vec<u8>) -> Option<Arc<V>> {
        match self.convert.decode(bytes).await {
            Ok(value) => Some(Arc::new(value)),
            Err(Unreadable(error, bytes)) => {
                report(context, &error);
                if let Some(bytes) = bytes {
                    // Boxed, so that the future of a hit does not hold room for it.
                    Box::pin(self.delete_if_equals(context, &bytes)).await;
                }
                None
            }
        }
    }

    async fn encode(&self, context: CallContext<'_>, value: &Arc<V>) -> Option<Vec<u8>> {
        self.convert.encode(value).await.inspect_err(|error| report(context, error)).ok()
    }
}

/// How long a load that has no limit may take before its right to publish lapses.
const WITHOUT_LIMIT: Duration = Duration::from_secs(3_600);
