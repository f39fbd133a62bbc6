//! The plainest implementation of [`Store`], in memory.

use std::time::Duration;

use super::{
    store::SharedStore,
    store_state::{END_SHOWN, Lock, StaleCopy, TimedValue, until},
};
use crate::{
    error::BoxError,
    l2::{
        Inspection, Lease, LeaseRequest, LeaseResponse, LoadEnd, LockResponse, PatternCursor,
        Publication, Store, StoreFuture, StoredValue,
    },
};

impl Store for SharedStore {
    fn get<'a>(&'a self, key: &'a str, _: bool) -> StoreFuture<'a, Option<StoredValue>> {
        self.operate(move |state, now| state.stored(key, now))
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        request: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        self.operate(move |state, now| {
            let stored = state.stored(key, now);
            if let Some(stored) = &stored {
                state.check_copy(key, stored);
            }
            if let Some(fresh) = stored.clone().filter(|_| !request.refresh) {
                return LeaseResponse::Fresh(fresh);
            }
            let missing = state.missing.get(key).filter(|until| now < **until);
            if let Some(until) = missing
                && request.with_missing
                && !request.refresh
            {
                return LeaseResponse::Missing(Duration::from_millis(until - now));
            }
            let until = until(now, request.lease_for);
            let lease = match state.leases.get_mut(key).filter(|out| now < out.until) {
                // mutant shared-write-lease: s/None/Some(out.lease.clone())/
                Some(out) if out.is_exclusive => None,
                Some(out) => {
                    out.until = out.until.max(until);
                    Some(out.lease.clone())
                }
                None => Some(state.give_lease(key, until, false)),
            };
            let stale = match stored {
                Some(ignored) => Some(ignored.into_stale()),
                None => state.stale(key, now),
            };
            LeaseResponse::Load { lease, stale }
        })
    }

    fn extend_lease<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        lease_for: Duration,
    ) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let is_valid = state.has_lease(key, lease, now);
            if is_valid && let Some(out) = state.leases.get_mut(key) {
                out.until = out.until.max(until(now, lease_for));
            }
            is_valid
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            if !state.has_lease(key, lease, now) {
                return false;
            }
            state.remove(key);
            match result {
                Publication::Missing { ttl } => {
                    state.missing.insert(key.to_owned(), until(now, ttl));
                }
                Publication::Value { value, ttl, stale_for } => {
                    let fresh_until = until(now, ttl);
                    if !stale_for.is_zero() {
                        let until = until(fresh_until, stale_for);
                        let copy = StaleCopy { value: value.clone(), fresh_until, until };
                        state.copies.insert(key.to_owned(), copy);
                    }
                    state.values.insert(key.to_owned(), TimedValue { value, until: fresh_until });
                }
            }
            true
        })
    }

    fn acquire_write_lease<'a>(
        &'a self,
        key: &'a str,
        lease_for: Duration,
    ) -> StoreFuture<'a, Option<Lease>> {
        self.operate(move |state, now| {
            state.remove(key);
            Some(state.give_lease(key, until(now, lease_for), true))
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| state.remove(key))
    }

    fn delete_matching<'a>(&'a self, pattern: &'a str) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| state.remove_matching(pattern, false))
    }

    fn delete_matching_from<'a>(
        &'a self,
        pattern: &'a str,
        sidecars_only: bool,
        _: &'a PatternCursor,
    ) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| state.remove_matching(pattern, sidecars_only))
    }

    fn delete_sidecars<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| keys.iter().for_each(|key| state.remove_sidecar(key)))
    }

    fn delete_if_equals<'a>(&'a self, key: &'a str, value: &'a [u8]) -> StoreFuture<'a, ()> {
        self.operate(move |state, _| {
            let in_value = state.values.get(key).is_some_and(|kept| kept.value == value);
            if in_value || state.copies.get(key).is_some_and(|copy| copy.value == value) {
                state.values.remove(key);
                state.copies.remove(key);
            }
        })
    }

    fn size(&self) -> StoreFuture<'_, u64> {
        self.operate(|state, now| {
            state.values.values().filter(|kept| now < kept.until).count() as u64
        })
    }

    fn lock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        ttl: Duration,
        waited_for: Option<&'a str>,
    ) -> StoreFuture<'a, LockResponse> {
        self.operate(move |state, now| {
            let lock = state.locks.get(key).filter(|lock| now < lock.until && lock.owner != owner);
            match lock {
                Some(Lock { owner, end: None, .. }) => return LockResponse::HeldBy(owner.clone()),
                Some(Lock { owner, end: Some(end), .. }) if waited_for == Some(owner) => {
                    return LockResponse::Released(end.clone());
                }
                _ => {}
            }
            let lock = Lock { owner: owner.to_owned(), until: until(now, ttl), end: None };
            state.locks.insert(key.to_owned(), lock);
            LockResponse::Acquired
        })
    }

    fn extend<'a>(&'a self, key: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.operate(move |state, now| {
            let is_held = |lock: &&mut Lock| lock.is_held_by(owner) && now < lock.until;
            let lock = state.locks.get_mut(key).filter(is_held);
            lock.map(|lock| lock.until = until(now, ttl)).is_some()
        })
    }

    fn unlock<'a>(
        &'a self,
        key: &'a str,
        owner: &'a str,
        end: Option<LoadEnd>,
    ) -> StoreFuture<'a, ()> {
        self.operate(move |state, now| {
            let Some(lock) = state.locks.get_mut(key).filter(|lock| lock.is_held_by(owner)) else {
                return;
            };
            lock.until = if end.is_some() { now + END_SHOWN } else { now };
            lock.end = end;
        })
    }

    fn inspect<'a>(&'a self, key: &'a str, lock: &'a str) -> StoreFuture<'a, Option<Inspection>> {
        self.operate(move |state, now| Some(state.inspect(key, lock, now)))
    }

    fn claim(&self, cache: Option<&str>) -> Result<(), BoxError> {
        // A cache without a name may look into the store of any other.
        let Some(cache) = cache else { return Ok(()) };
        let owner = self.cache.get_or_init(|| cache.to_owned());
        let text = || format!("`{owner}` uses the store, `{cache}` cannot use it too");
        if owner == cache { Ok(()) } else { Err(text().into()) }
    }

    fn connection_generation(&self) -> u64 {
        self.state.lock().connection
    }
}
