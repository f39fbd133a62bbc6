//! Fuzzes the answers of an L2 store: no answer may cause a panic, a call that never returns, or a
//! load that fails.
//!
//!     cargo +nightly fuzz run level -- -rss_limit_mb=512

#![no_main]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::{
    DistributedLock, FailSafe, L2Options, LazyLayersCache, Lease, LeaseRequest, LeaseResponse,
    LoadEnd, LockResponse, NegativeCache, Publication, Store, StoreFuture, StoredValue, WireCodec,
    testing::TokioClock,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tokio::{runtime::Builder, time::timeout};

/// A store whose answers are made from the input's bytes, over and over again.
struct AnyStore {
    bytes: Arc<[u8]>,
    at: AtomicUsize,
}

impl AnyStore {
    fn byte(&self) -> u8 {
        let at = self.at.fetch_add(1, Ordering::Relaxed);
        self.bytes.get(at % self.bytes.len().max(1)).copied().unwrap_or(0)
    }

    fn span(&self) -> Duration {
        match self.byte() % 4 {
            0 => Duration::ZERO,
            1 => Duration::MAX,
            _ => Duration::from_millis(u64::from(self.byte()) << (self.byte() % 40)),
        }
    }

    fn stored(&self) -> StoredValue {
        let length = usize::from(self.byte());
        let value = (0..length).map(|_| self.byte()).collect();
        let ttl = (self.byte() % 3 > 0).then(|| self.span());
        StoredValue { value, ttl, stale_for: self.span() }
    }

    fn answer<'a, T: Send + 'a>(&'a self, answer: impl FnOnce(&Self) -> T) -> StoreFuture<'a, T> {
        let fault = self.byte() % 8;
        let answer = answer(self);
        Box::pin(async move {
            match fault {
                0 => Err("a fault of the input".into()),
                1 => std::future::pending().await,
                _ => Ok(answer),
            }
        })
    }
}

impl Store for AnyStore {
    fn get<'a>(&'a self, _: &'a str, _: bool) -> StoreFuture<'a, Option<StoredValue>> {
        self.answer(|any| (any.byte() % 3 > 0).then(|| any.stored()))
    }

    fn get_or_lease<'a>(&'a self, _: &'a str, _: LeaseRequest) -> StoreFuture<'a, LeaseResponse> {
        self.answer(|any| match any.byte() % 3 {
            0 => LeaseResponse::Fresh(any.stored()),
            1 => LeaseResponse::Missing(any.span()),
            _ => LeaseResponse::Load {
                lease: (any.byte() % 2 == 0).then(|| Lease::new("x")),
                stale: (any.byte() % 2 == 0).then(|| any.stored().into_stale()),
            },
        })
    }

    fn extend_lease<'a>(&'a self, _: &'a str, _: &'a Lease, _: Duration) -> StoreFuture<'a, bool> {
        self.answer(|any| any.byte() % 2 == 0)
    }

    fn publish<'a>(&'a self, _: &'a str, _: &'a Lease, _: Publication) -> StoreFuture<'a, bool> {
        self.answer(|any| any.byte() % 2 == 0)
    }

    fn acquire_write_lease<'a>(
        &'a self,
        _: &'a str,
        _: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        self.answer(|any| (any.byte() % 2 == 0).then(|| Lease::new("x")))
    }

    fn delete<'a>(&'a self, _: &'a str) -> StoreFuture<'a, ()> {
        self.answer(|_| ())
    }

    fn delete_matching<'a>(&'a self, _: &'a str) -> StoreFuture<'a, ()> {
        self.answer(|_| ())
    }

    fn delete_if_equals<'a>(&'a self, _: &'a str, _: &'a [u8]) -> StoreFuture<'a, ()> {
        self.answer(|_| ())
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.answer(|any| u64::MAX >> (any.byte() % 64))
    }

    fn lock<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: Duration,
        _: Option<&'a str>,
    ) -> StoreFuture<'a, LockResponse> {
        self.answer(|any| match any.byte() % 4 {
            0 => LockResponse::HeldBy("another".into()),
            1 => LockResponse::Released(LoadEnd::Failed),
            2 => LockResponse::Released(LoadEnd::Missing(Lease::new("x"))),
            _ => LockResponse::Acquired,
        })
    }

    fn extend<'a>(&'a self, _: &'a str, _: &'a str, _: Duration) -> StoreFuture<'a, bool> {
        self.answer(|any| any.byte() % 2 == 0)
    }

    fn unlock<'a>(&'a self, _: &'a str, _: &'a str, _: Option<LoadEnd>) -> StoreFuture<'a, ()> {
        self.answer(|_| ())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let any = AnyStore { bytes: Arc::from(bytes), at: AtomicUsize::new(0) };
        let mode = any.byte();
        let mut builder = LazyLayersCache::<String, Value>::builder()
            .clock(TokioClock::new())
            .l2_options(L2Options::default().versioning(mode & 1 > 0));
        if mode & 2 > 0 {
            builder = builder.fail_safe(FailSafe::enabled());
        }
        if mode & 8 > 0 {
            builder = builder.negative_cache(NegativeCache::enabled());
        }
        if mode & 4 > 0 {
            builder = builder.distributed_lock(DistributedLock::enabled());
        }
        let cache = builder.l2(any, WireCodec::new()).build().expect("valid options");
        let calls = async {
            for turn in 0..8 {
                let load = move || async move { Ok::<_, std::io::Error>(json!(turn)) };
                cache.get_or_set("k", load).await.expect("the loader succeeds");
                let _ = (cache.get("k").await, cache.has("k").await, cache.size().await);
                cache.get_or_set("k", load).refresh().await.expect("the loader succeeds");
                let _ = cache.set("k", json!(turn)).await;
                let _ = cache.delete("k").await;
                let _ = cache.delete_by_pattern("[k").await;
            }
            cache.close().await;
        };
        timeout(Duration::from_secs(36_000), calls).await.expect("every call returns");
    });
});
