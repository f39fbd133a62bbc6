//! The shared level as the cache sees it: values instead of bytes, each call within its deadline
//! and behind the breaker, every failure reported once and turned into "as if missing".
//!
//! Only a delete or set that did not get through is told to the caller: nobody else can know that
//! an old value may still be there.

mod store;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

pub use self::store::{Begin, Begun, Lease, Store, StoreFuture, Stored};
use crate::{
    codec::Codec,
    error::BoxError,
    observe::{Counter, Event, Observer},
    options::CacheOptions,
    resilience::{Breaker, Late, within},
    time::{Clock, millis},
};

pub(crate) struct L2<V> {
    store: Arc<dyn Store>,
    codec: Arc<dyn Codec<V>>,
    breaker: Breaker,
    read_limit: Duration,
    write_limit: Duration,
    pattern_limit: Duration,
    /// The end of a value's life in the store in which it is a stale copy.
    stale_for: Duration,
}

/// A value of the shared level and how long it is fresh; `None` for as long as anyone likes.
pub(crate) struct Fresh<V> {
    pub(crate) value: Arc<V>,
    pub(crate) fresh_for: Option<Duration>,
}

/// What a load begins with.
pub(crate) enum Start<V> {
    Fresh(Fresh<V>),
    Load {
        lease: Option<Lease>,
        /// A stale copy, and how much longer it may serve.
        stale: Option<(Arc<V>, Duration)>,
        /// Whether there is something in the store, of use or not.
        held: bool,
    },
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

/// Why a call of the store came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The breaker is open: it was not called.
    Skipped,
    Failed(BoxError),
}

#[derive(Debug)]
struct NoAnswer(Duration);

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for NoAnswer {}

/// Who asks, for reports.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) key: &'a str,
    pub(crate) observer: &'a Observer,
    pub(crate) clock: &'a dyn Clock,
}

impl<V: 'static> L2<V> {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        codec: Arc<dyn Codec<V>>,
        options: &CacheOptions,
    ) -> Self {
        let breaker = &options.l2_circuit_breaker;
        Self {
            store,
            codec,
            breaker: Breaker::new(breaker.failure_threshold, millis(breaker.cooldown)),
            read_limit: options.l2_timeouts.read,
            write_limit: options.l2_timeouts.write,
            pattern_limit: options.l2_timeouts.pattern,
            stale_for: options.stale_ttl(),
        }
    }

    pub(crate) async fn get(&self, asker: Asker<'_>) -> Option<Fresh<V>> {
        let read = self.guarded(asker, Some(self.read_limit), self.store.get(asker.key));
        self.fresh(asker, &read.await.ok()??)
    }

    /// Never fails: without the store a load begins with nothing.
    /// `hard` is the load's own limit.
    pub(crate) async fn begin(
        &self,
        asker: Asker<'_>,
        refresh: bool,
        hard: Option<Duration>,
    ) -> Start<V> {
        // As long as the load can take, and its publication.
        let around = self.read_limit.saturating_add(self.write_limit);
        let lease_for = hard.map_or(WITHOUT_LIMIT, |hard| hard.saturating_add(around));
        let mut is_sound = true;
        let mut begin = Begin { stale_for: self.stale_for, lease_for, refresh };
        for _ in 0..2 {
            let begun = self.store.begin(asker.key, begin);
            match self.guarded(asker, Some(self.read_limit), begun).await {
                Ok(Begun::Fresh(stored)) => {
                    if let Some(fresh) = self.fresh(asker, &stored) {
                        return Start::Fresh(fresh);
                    }
                    // Bytes that are no value: load, with the right to replace them.
                    begin.refresh = true;
                    is_sound = false;
                }
                Ok(Begun::Load { lease, stale }) => {
                    let held = stale.is_some();
                    let stale = stale.filter(|_| is_sound).and_then(|stored| {
                        let remaining = stored.remaining.unwrap_or(self.stale_for);
                        let value = self.decode(asker, &stored.value)?;
                        Some((value, remaining))
                    });
                    return Start::Load { lease, stale, held };
                }
                Err(_) => break,
            }
        }
        Start::Load { lease: None, stale: None, held: false }
    }

    pub(crate) async fn publish(
        &self,
        asker: Asker<'_>,
        lease: &Lease,
        value: &V,
        ttl: Duration,
    ) -> Published {
        let Some(bytes) = self.encode(asker, value) else { return Published::Unknown };
        let lives = ttl.saturating_add(self.stale_for);
        let publish = self.store.publish(asker.key, lease, bytes, lives);
        match self.guarded(asker, Some(self.write_limit), publish).await {
            Ok(true) => Published::Yes,
            Ok(false) => Published::Refused,
            Err(_) => Published::Unknown,
        }
    }

    /// A value that cannot be encoded is deleted instead: what there was is old now.
    pub(crate) async fn set(
        &self,
        asker: Asker<'_>,
        value: &V,
        ttl: Duration,
    ) -> Result<(), Failure> {
        let lives = ttl.saturating_add(self.stale_for);
        let bytes = if ttl.is_zero() { None } else { self.encode(asker, value) };
        match bytes {
            Some(bytes) => {
                let set = self.store.set(asker.key, bytes, lives);
                self.guarded(asker, Some(self.write_limit), set).await
            }
            None => self.delete(asker).await,
        }
    }

    pub(crate) async fn delete(&self, asker: Asker<'_>) -> Result<(), Failure> {
        self.guarded(asker, Some(self.write_limit), self.store.delete(asker.key)).await
    }

    /// `asker.key` is the pattern.
    pub(crate) async fn delete_matching(&self, asker: Asker<'_>) -> Result<(), Failure> {
        let delete = self.store.delete_matching(asker.key);
        self.guarded(asker, Some(self.pattern_limit), delete).await
    }

    pub(crate) async fn size(&self, asker: Asker<'_>) -> Option<u64> {
        self.guarded(asker, Some(self.read_limit), self.store.size()).await.ok()
    }

    pub(crate) fn is_skipped(&self) -> bool {
        self.breaker.is_open()
    }

    fn fresh(&self, asker: Asker<'_>, stored: &Stored) -> Option<Fresh<V>> {
        let fresh_for = match stored.remaining {
            Some(remaining) if remaining <= self.stale_for => return None,
            Some(remaining) => Some(remaining - self.stale_for),
            None => None,
        };
        Some(Fresh { value: self.decode(asker, &stored.value)?, fresh_for })
    }

    fn decode(&self, asker: Asker<'_>, bytes: &[u8]) -> Option<Arc<V>> {
        let decoded = contained(|| self.codec.decode(bytes));
        decoded.map(Arc::new).map_err(|error| report(asker, &error)).ok()
    }

    fn encode(&self, asker: Asker<'_>, value: &V) -> Option<Vec<u8>> {
        contained(|| self.codec.encode(value)).map_err(|error| report(asker, &error)).ok()
    }

    /// The only place that calls a store: breaker, deadline, report.
    async fn guarded<T>(
        &self,
        asker: Asker<'_>,
        limit: Option<Duration>,
        call: StoreFuture<'_, T>,
    ) -> Result<T, Failure> {
        let Some(permit) = self.breaker.permit(asker.clock.now()) else {
            asker.observer.count(Counter::L2Skipped);
            asker.observer.emit(|| Event::L2Skipped { key: asker.key });
            return Err(Failure::Skipped);
        };
        let answer = within(limit, call).await;
        match answer.unwrap_or_else(|Late| Err(NoAnswer(limit.unwrap_or_default()).into())) {
            Ok(answer) => {
                if permit.succeeded() {
                    asker.observer.l2_recovered();
                }
                Ok(answer)
            }
            Err(error) => {
                report(asker, &error);
                if permit.failed(asker.clock.now()) {
                    asker.observer.l2_fails(&error);
                }
                Err(Failure::Failed(error))
            }
        }
    }
}

/// How long a load that has no limit may take before its right to publish lapses.
const WITHOUT_LIMIT: Duration = Duration::from_secs(3_600);

/// Runs the user's codec. What it panics with has been told by the panic hook.
fn contained<T>(convert: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    catch_unwind(AssertUnwindSafe(convert)).unwrap_or_else(|_| Err("the codec panicked".into()))
}

fn report(asker: Asker<'_>, error: &BoxError) {
    asker.observer.count(Counter::L2Errors);
    asker.observer.emit(|| Event::L2Error { key: asker.key, error: &**error });
}
