//! A store in memory whose calls arrive late, fail, or are never answered.

use std::{future::pending, time::Duration};

use lazy_layers_cache::{
    Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, Publication, Store, StoreFuture,
    StoredValue, testing::SharedStore,
};
use tokio::time::sleep;

use super::ms;

#[derive(Clone)]
pub(crate) struct FaultyStore {
    pub(crate) store: SharedStore,
    /// The fate of calls with this key or pattern.
    pub(crate) delete: fn(&str) -> Fate,
    pub(crate) pattern: fn(&str) -> Fate,
    pub(crate) acquire_write_lease: fn(&str) -> Fate,
    pub(crate) lock: fn(&str) -> Fate,
}

#[derive(Clone, Copy)]
pub(crate) enum Fate {
    /// The call reaches the store after this many milliseconds.
    ArrivesAfter(u64),
    Fails,
    /// The call happens, and is never answered.
    NotAnswered,
}

impl Fate {
    fn of<'a, T: Send + 'a>(self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            match self {
                Self::ArrivesAfter(after) => {
                    sleep(ms(after)).await;
                    call.await
                }
                Self::Fails => Err("a fault of the test".into()),
                Self::NotAnswered => {
                    call.await?;
                    pending().await
                }
            }
        })
    }
}

impl FaultyStore {
    pub(crate) fn to(store: &SharedStore) -> Self {
        let well: fn(&str) -> Fate = |_| Fate::ArrivesAfter(0);
        Self {
            store: store.clone(),
            delete: well,
            pattern: well,
            acquire_write_lease: well,
            lock: well,
        }
    }
}

impl Store for FaultyStore {
    fn get<'a>(&'a self, key: &'a str, with_window: bool) -> StoreFuture<'a, Option<StoredValue>> {
        self.store.get(key, with_window)
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        self.store.get_or_lease(key, request)
    }

    fn extend_lease<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        lease_for: Duration,
    ) -> StoreFuture<'a, bool> {
        self.store.extend_lease(key, lease, lease_for)
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        self.store.publish(key, lease, result)
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        (self.acquire_write_lease)(key).of(self.store.acquire_write_lease(key, lease_for))
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        (self.delete)(key).of(self.store.delete(key))
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        (self.pattern)(pattern).of(self.store.delete_matching(pattern))
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        self.store.delete_if_equals(key, value)
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.store.size()
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        ttl: Duration,
        waited_for: Option<&'a str>,
    ) -> StoreFuture<'a, LockResponse> {
        (self.lock)(key).of(self.store.lock(key, owner, ttl, waited_for))
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.store.extend(key, owner, ttl)
    }

    fn unlock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        end: Option<LoadEnd>,
    ) -> StoreFuture<'a, ()> {
        self.store.unlock(key, owner, end)
    }

    fn connection_generation(&self) -> u64 {
        self.store.connection_generation()
    }
}
