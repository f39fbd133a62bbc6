//! A store in memory whose calls arrive late, fail, or are never answered.

use std::{future::pending, sync::Arc, time::Duration};

use lazy_layers_cache::{
    Lease, LockResponse, PatternCursor, Store, StoreFuture,
    testing::{ForwardStore, SharedStore},
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

impl ForwardStore for FaultyStore {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
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

    fn delete_matching_from<'a>(
        &'a self,
        pattern: &'a str,
        sidecars_only: bool,
        cursor: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        let delete = self.store.delete_matching_from(pattern, sidecars_only, cursor);
        (self.pattern)(pattern).of(delete)
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
}
