//! A store that forwards to another, and records which leases loads get and how their publications
//! are answered.

use std::time::Duration;

use lazy_layers_cache::{
    BoxError, Codec, Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, Publication, Store,
    StoreFuture, StoredValue,
};

use crate::{
    faulty_store::{PlainCodec, parts},
    recorder::Recorder,
};

pub(crate) struct RecordingStore<S> {
    store: S,
    by: usize,
    recorder: Recorder,
}

impl<S> RecordingStore<S> {
    pub(crate) fn new(store: S, by: usize, recorder: &Recorder) -> Self {
        Self { store, by, recorder: recorder.clone() }
    }
}

impl<S: Store> Store for RecordingStore<S> {
    fn get<'a>(&'a self, key: &'a str, with_window: bool) -> StoreFuture<'a, Option<StoredValue>> {
        self.store.get(key, with_window)
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        begin: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        Box::pin(async move {
            let number = self.recorder.key_of(key).ok_or("a key of nobody")?;
            self.recorder.leased(self.by, number, false);
            let begun = self.store.get_or_lease(key, begin).await?;
            let leased = matches!(begun, LeaseResponse::Load { lease: Some(_), .. });
            self.recorder.leased(self.by, number, leased);
            Ok(begun)
        })
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
        Box::pin(async move {
            let Publication::Value { value, .. } = &result else {
                return self.store.publish(key, lease, result).await;
            };
            let (_, write) = parts(PlainCodec.decode(value)?);
            let published = self.store.publish(key, lease, result).await?;
            self.recorder.publish_answered(write, published);
            Ok(published)
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        self.store.acquire_write_lease(key, lease_for)
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.store.delete(key)
    }

    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.store.delete_all(keys)
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        self.store.delete_matching(pattern)
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
        self.store.lock(key, owner, ttl, waited_for)
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

    fn reject_key(&self, key: &str) -> Option<BoxError> {
        self.store.reject_key(key)
    }

    fn reject_value(&self, bytes: usize) -> Option<BoxError> {
        self.store.reject_value(bytes)
    }

    fn connection_generation(&self) -> u64 {
        self.store.connection_generation()
    }
}
